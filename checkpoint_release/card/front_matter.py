"""The card's front matter: what the Hub searches and shows."""

from __future__ import annotations

import re

import yaml
from huggingface_hub.repocard_data import EvalResult, ModelCardData

from checkpoint_release.card.author_notes import AuthorNotes
from checkpoint_release.card.inputs import ReleaseInputs
from checkpoint_release.card.markdown import one_line
from checkpoint_release.card.training import metrics
from checkpoint_release.core.artifacts.formats import ONNX
from checkpoint_release.core.errors import CardError
from checkpoint_release.core.params import CardParams

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
    params = notes.params
    training = inputs.checkpoint.training
    results = [*notes.results, *_checkpoint_results(metrics(training), params)]
    metric_types = dict.fromkeys(result.metric_type for result in results)
    data = ModelCardData(
        library_name=_library_name(inputs),
        tags=[*params.tags, *inputs.formats],
        metrics=list(metric_types) or None,
        model_name=one_line(title) if results else None,
        eval_results=results or None,
    )
    for key in _STATED:
        # None is left out; an empty list would be written
        data[key] = getattr(params, key) or None
    return data


def _library_name(inputs: ReleaseInputs) -> str:
    """The library that the Hub offers for loading the model."""
    if inputs.has_transformers_code:
        return "transformers"
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
    dataset_id = re.sub(r"[^a-z0-9./_-]+", "-", dataset.lower()).strip("-")
    results = []
    for name, value in measured.items():
        result = EvalResult(
            task_type=params.pipeline_tag or "other",
            dataset_type=dataset_id or "unnamed",
            dataset_name=dataset,
            metric_type=name,
            metric_value=value,
            metric_name=name,
        )
        results.append(result)
    return results
