"""The card's front matter: what the Hub searches and shows."""

from __future__ import annotations

from typing import Any

import yaml
from huggingface_hub.repocard_data import EvalResult, ModelCardData

from checkpoint_release.card.author_notes import AuthorNotes
from checkpoint_release.card.hub_terms import METRICS, metric_id
from checkpoint_release.card.inputs import ReleaseInputs
from checkpoint_release.card.markdown import one_line
from checkpoint_release.core.artifacts.formats import DATA_SUFFIX, ONNX, SAFETENSORS
from checkpoint_release.core.errors import CardError
from checkpoint_release.core.params import CardParams
from checkpoint_release.core.training import metrics, without_repeats

_NOT_ON_HUB = "custom"
"""The type of a dataset that has no id on the Hub; the model-index wants one."""

_STATED = (
    "license",
    "license_name",
    "license_link",
    "language",
    "datasets",
    "base_model",
    "pipeline_tag",
)


def front_matter(inputs: ReleaseInputs, notes: AuthorNotes, title: str) -> str:
    """The metadata as YAML; what isn't known is left out.

    Args:
        inputs: what the release is made of.
        notes: what the author states.
        title: the card's own.

    Raises:
        CardError: huggingface_hub doesn't read back what it wrote.
    """
    text = str(_card_data(inputs, notes, title))
    # As huggingface_hub.ModelCard reads it, which would import the Hub's whole client.
    if "\n---" in text or str(ModelCardData(**yaml.safe_load(text))) != text:
        raise CardError(
            "the front matter doesn't read back as it was written",
            "simplify the texts under {card}",
            options=["card"],
        )
    return text


def _card_data(inputs: ReleaseInputs, notes: AuthorNotes, title: str) -> ModelCardData:
    """The front matter, as huggingface_hub models it."""
    params = notes.params
    measured = without_repeats(
        metrics(inputs.checkpoint.training), notes.stated_metrics
    )
    results = [*notes.results, *_checkpoint_results(measured, params)]
    fields: dict[str, Any] = {
        "library_name": _library_name(inputs),
        "tags": [*params.tags, *inputs.formats, *_runtime_tags(inputs)],
    }
    if results:
        fields["model_name"] = one_line(title)
        fields["eval_results"] = results
        types = dict.fromkeys(item.metric_type for item in results)
        known = [name for name in types if name in METRICS or "/" in name]
        if known:
            fields["metrics"] = known
    for key in _STATED:
        value = getattr(params, key)
        if value:  # an empty list would be written
            fields[key] = value
    for key, value in params.metadata.items():
        if value is not None:
            fields[key] = value
    return ModelCardData(**fields)


def _runtime_tags(inputs: ReleaseInputs) -> list[str]:
    """Runtimes that load the release by its name.

    transformers.js looks for onnx/model.onnx, and for config.json in the root, which
    is there with the safetensors. Weights in a file beside the graph it takes only if
    it is told so.
    """
    formats = inputs.formats
    if not (ONNX.name in formats and SAFETENSORS.name in formats):
        return []
    files = formats[ONNX.name].files
    is_whole = not any(name.endswith(DATA_SUFFIX) for name in files)
    return ["transformers.js"] if is_whole else []


def loading_library(inputs: ReleaseInputs) -> str | None:
    """The other library that builds and loads the model, if any."""
    if inputs.library_class is not None:
        return inputs.library_class.library
    return "transformers" if inputs.has_transformers_code else None


def _library_name(inputs: ReleaseInputs) -> str:
    """The library that the Hub names for loading the model."""
    library = loading_library(inputs)
    if library is not None:
        return library
    if list(inputs.formats) == [ONNX.name]:
        return "onnx"
    return "pytorch"


def _checkpoint_results(
    measured: dict[str, float], params: CardParams
) -> list[EvalResult]:
    """The checkpoint's metrics for the model-index, which wants a name for the data.

    Args:
        measured: name → value.
        params: what the author states; without `evaluated_on` there are no results.
    """
    if params.evaluated_on is None:
        return []
    dataset = one_line(params.evaluated_on)
    dataset_id = dataset if dataset in params.datasets else _NOT_ON_HUB
    results = []
    for name, value in measured.items():
        result = EvalResult(
            task_type=params.pipeline_tag or "other",
            dataset_type=dataset_id,
            dataset_name=dataset,
            metric_type=metric_id(name) or name,
            metric_value=value,
            metric_name=name,
        )
        results.append(result)
    return results
