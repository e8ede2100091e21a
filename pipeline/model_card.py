"""Stage model-card: the release's README.md, filled from what the stages before it
measured and wrote.

Reads the artifacts' manifests, checkpoint.json and parity.json; writes
artifacts/model-card. What isn't known is left out, and the card lists what its author
should still supply. Artifacts that parity-check didn't pass, or that changed since, get
no card. The text is card.md.jinja; torch isn't imported.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.repocard_data import EvalResult, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from checkpoint_release.card import author_notes
from checkpoint_release.card.author_notes import OWN_SECTIONS, AuthorNotes, read_notes
from checkpoint_release.card.hub_terms import check_terms
from checkpoint_release.card.markdown import code, escaped, fenced, human_size, one_line
from checkpoint_release.core import stage
from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.manifest import (
    MANIFEST,
    Manifest,
    read_verified,
    write_manifest,
)
from checkpoint_release.core.errors import CardError
from checkpoint_release.core.files import artifact_folder, read_json, sha256
from checkpoint_release.core.params import CardParams, load_params
from checkpoint_release.core.signature import TensorSpec

TEMPLATE = Path(author_notes.__file__).with_name("card.md.jinja")
# format → folder in the release, and what to say of its main files
PLACES = {
    "safetensors": "",
    "onnx": "onnx/",
    "torchscript": "torchscript/",
    "torch_export": "torch_export/",
}
LIBRARIES = {
    "safetensors": ("safetensors",),
    "onnx": ("onnx", "onnxruntime"),
    "torchscript": (),
    "torch_export": (),
}
PURPOSES = (
    (r"model(-\d+-of-\d+)?\.safetensors", "weights"),
    (r"model\.safetensors\.index\.json", "which file holds which weight"),
    (r"(.+/)?config\.json", "architecture, inputs and outputs"),
    (r"training_args\.json", "what the checkpoint says of its training"),
    (r"generation_config\.json", "frame rate and sequence length"),
    (r"\w+\.py", "the model's code, for transformers"),
    (r"onnx/model\.onnx", "for ONNX Runtime and whatever else reads ONNX"),
    (r"onnx/model_\w+\.onnx", "a smaller ONNX model, less exact"),
    (r"onnx/.+\.(data|bin)", "weights of the ONNX model"),
    (
        r"torchscript/model\.pt",
        "for libtorch, and for PyTorch without the model's code",
    ),
    (r"torch_export/model\.pt2", "for torch.export's runtimes"),
)
_METRIC = re.compile(r"(val|valid|validation|best|eval|test)_[\w.-]{1,60}")
_STATES = re.compile(r"optim|sched|scaler|state_dict|rng", re.IGNORECASE)
# of a manifest's facts: sizes, and what `versions` has
_NOT_SHOWN = ("tensors", "bytes", "shards", "nodes", "torch")
_MOST_FACTS = 60
_REBUILD = "run `dvc repro`, which checks what changed"


def main() -> None:
    """Run the stage."""
    write_card(load_params().card, stage.ARTIFACTS)


def write_card(params: CardParams, artifacts: Path) -> None:
    """Write artifacts/model-card.

    Raises:
        ArtifactError: an artifact is missing, or isn't what its manifest says.
        CardError: parity-check didn't pass these artifacts, or the author's words can't
            be used.
    """
    check_terms(params)
    made = read_made(artifacts)
    words = read_notes(params, made.checkpoint["origin"]["sha256"])
    if words.params is None:
        print(
            "note: the card section of params.yaml is about the checkpoint"
            f" {params.written_for}…, and this one is"
            f" {made.checkpoint['origin']['sha256'][:16]}…, so the card goes without"
            " its words",
            file=sys.stderr,
        )
    card = render(made, words)
    with artifact_folder(artifacts / "model-card") as folder:
        (folder / "README.md").write_text(card, encoding="utf-8", newline="\n")
        made_from = {
            f"{name}/{MANIFEST}": sha256(artifacts / name / MANIFEST)
            for name in ("checkpoint", *PLACES)
        }
        write_manifest(
            folder,
            "model-card",
            made_from={**made_from, "parity.json": sha256(artifacts / "parity.json")},
        )
    unsaid = [item["what"] for item in missing(made, words)]
    print(
        f"{artifacts / 'model-card'}: README.md; the author has yet to say:"
        f" {', '.join(unsaid) or 'nothing'}"
    )


# What was made


@dataclass(frozen=True)
class Made:
    """The artifacts that the card describes.

    Attributes:
        checkpoint: checkpoint.json.
        architecture: what was read off the checkpoint.
        formats: enabled format → its manifest.
        parity: parity.json.
        transformers: whether the safetensors folder has the code that transformers
            runs.
    """

    checkpoint: dict[str, Any]
    architecture: Architecture
    formats: dict[str, Manifest]
    parity: dict[str, Any]
    transformers: bool


def read_made(artifacts: Path) -> Made:
    """Read the artifacts, and make sure that they belong together and that parity-check
    passed exactly these.

    Raises:
        ArtifactError: one is missing, or isn't what its manifest says.
        CardError: they don't belong together, or weren't checked.
    """
    manifests = read_verified(artifacts, ("checkpoint", *PLACES))
    source = manifests["checkpoint"]
    formats = {name: manifests[name] for name in PLACES if manifests[name].enabled}
    if not formats:
        raise CardError(
            f"no format in {artifacts} is enabled",
            "set one of formats to true, then run `dvc repro`",
        )
    parity = read_json(artifacts / "parity.json")
    if not isinstance(parity, dict) or parity.get("passed") is not True:
        raise CardError(
            f"{artifacts / 'parity.json'} doesn't say that parity-check passed",
            "mend what it names first",
        )
    checked = parity.get("checked")
    for name, manifest in formats.items():
        for made_from, digest in manifest.made_from.items():
            if made_from in source.files and source.files[made_from].sha256 != digest:
                raise CardError(
                    f"{artifacts / name} was made from another {made_from}", _REBUILD
                )
        now = sha256(artifacts / name / MANIFEST)
        seen = checked.get(name) if isinstance(checked, dict) else None
        if seen != now:
            raise CardError(
                f"{artifacts / name} is not what parity-check saw: its {MANIFEST} has"
                f" sha256 {now[:12]}…, and parity.json checked"
                f" {f'{seen[:12]}…' if isinstance(seen, str) else 'none'}",
                _REBUILD,
            )
    checkpoint = read_json(artifacts / "checkpoint" / "checkpoint.json")
    config = (
        read_json(artifacts / "safetensors" / "config.json")
        if "safetensors" in formats
        else {}
    )
    architecture = Architecture.from_json(checkpoint["model"])
    return Made(
        checkpoint,
        architecture,
        formats,
        parity,
        "AutoModel" in config.get("auto_map", {}),
    )


# What the card says


def render(made: Made, words: AuthorNotes) -> str:
    """The card: front matter and Markdown.

    Raises:
        CardError: huggingface_hub reads another front matter than was written.
    """
    describe = made.architecture.hook("describe")
    described: dict[str, Any] = describe(made.architecture.kwargs) if describe else {}
    said = words.params
    title = (
        (said and said.title)
        or described.get("name")
        or made.architecture.factory.partition(":")[2]
    )
    measured = metrics(made)
    context = {
        "title": title,
        "summary": described.get("summary"),
        "own": {heading: words.section(heading) for heading in OWN_SECTIONS},
        "others": words.extra_sections(),
        "parameters": described.get("parameters"),
        "tensors": made.checkpoint["tensors"],
        "factory": made.architecture.factory,
        "dimensions": described.get("dimensions", made.architecture.kwargs),
        "notes": described.get("notes", []),
        "segments": described.get("segments", []),
        "lora": made.checkpoint["lora"],
        "signature": made.architecture.signature,
        "training": {
            name: value for name, value in training_facts(made) if name not in measured
        },
        "measured": measured,
        "evaluated_on": said and said.evaluated_on,
        "results": words.results,
        "files": list(files(made)),
        "parity": parity_table(made.parity),
        "formats": made.formats,
        "transformers": made.transformers,
        "limitations": described.get("limitations", []),
        "origin": made.checkpoint["origin"],
        "left_out": {
            name: count
            for names in made.checkpoint["left_out"].values()
            for name, count in names.items()
        },
        "made_with": dict(made_with(made)),
        "versions": versions(made),
        "citation": words.citation,
        "authors": said.authors if said else [],
        "license": said and (said.license_name or said.license),
        "license_link": said and said.license_link,
        "todo": missing(made, words),
    }
    body = environment().get_template(TEMPLATE.name).render(context)
    data = str(front_matter(made, words, title))
    # As huggingface_hub.ModelCard reads it, which would import the Hub's whole client.
    if "\n---" in data or str(ModelCardData(**yaml.safe_load(data))) != data:
        raise CardError(
            "the front matter doesn't read back as it was written",
            "simplify the texts under card",
        )
    return f"---\n{data}\n---\n\n{body.strip()}\n"


def front_matter(made: Made, words: AuthorNotes, title: str) -> ModelCardData:
    """The metadata that the Hub searches and shows; what isn't known isn't there."""
    said = words.params
    results = [*words.results, *checkpoint_results(made, said)]
    data = ModelCardData(
        library_name=(
            "transformers"
            if made.transformers
            else "pytorch"
            if set(made.formats) - {"onnx"}
            else "onnx"
        ),
        tags=[*(said.tags if said else []), *made.formats],
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        model_name=one_line(title) if results else None,
        eval_results=results or None,
    )
    if said:
        for key in (
            "license",
            "license_name",
            "license_link",
            "language",
            "datasets",
            "base_model",
            "pipeline_tag",
        ):
            # None is left out; an empty list would be written
            data[key] = getattr(said, key) or None
    return data


def checkpoint_results(made: Made, said: CardParams | None) -> list[EvalResult]:
    """The checkpoint's own metrics for the model-index, which has no place for one on
    unnamed data.
    """
    if said is None or said.evaluated_on is None:
        return []
    dataset = one_line(said.evaluated_on)
    kind = re.sub(r"[^a-z0-9./_-]+", "-", dataset.lower()).strip("-") or "unnamed"
    task = said.pipeline_tag or "other"
    return [
        EvalResult(
            task, kind, dataset, metric_type=name, metric_value=value, metric_name=name
        )
        for name, value in metrics(made).items()
    ]


def training_facts(made: Made) -> Iterator[tuple[str, Any]]:
    """The checkpoint's one_line facts, one level deep; training_args.json has them all."""
    facts = [
        (f"{name}.{key}" if key else name, item)
        for name, value in made.checkpoint["training"].items()
        if not _STATES.search(name)
        for key, item in (value.items() if isinstance(value, dict) else [("", value)])
        if not isinstance(item, dict | list)
    ]
    yield from facts[:_MOST_FACTS]
    if len(facts) > _MOST_FACTS:
        yield "…", f"{len(facts) - _MOST_FACTS} more in training_args.json"


def metrics(made: Made) -> dict[str, float]:
    """What the checkpoint holds of measurements on data that it wasn't trained on."""
    return {
        name: value
        for name, value in training_facts(made)
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and _METRIC.fullmatch(name.rpartition(".")[2])
    }


@dataclass(frozen=True)
class File:
    """One line of the table of files."""

    name: str
    purpose: str
    size: int
    sha256: str


def files(made: Made) -> Iterator[File]:
    """The artifacts' files under their names in the release."""
    for format, manifest in made.formats.items():
        for path, entry in manifest.files.items():
            name = PLACES[format] + path
            purpose = next(
                (text for pattern, text in PURPOSES if re.fullmatch(pattern, name)), ""
            )
            if purpose == "weights" and (cast := manifest.facts.get("cast")):
                purpose += f", {cast['tensors']} tensors cast to {cast['to']}"
            if name == "onnx/model.onnx" and "opset" in manifest.facts:
                purpose += f"; opset {manifest.facts['opset']}"
            if purpose == "weights" and (cast := manifest.facts.get("cast")):
                purpose += f"; {cast['tensors']} tensors cast to {cast['to']}"
            yield File(name, purpose, entry.size, entry.sha256)


def made_with(made: Made) -> Iterator[tuple[str, dict[str, Any]]]:
    """How each format was made and with which versions, as its manifest says."""
    for format, manifest in made.formats.items():
        facts = {
            name.replace("_", " "): value
            for name, value in manifest.facts.items()
            if isinstance(value, str | int | float)
            and not isinstance(value, bool)
            and name not in _NOT_SHOWN
        }
        versions = manifest.facts.get("versions")
        facts |= versions if isinstance(versions, dict) else {}
        if facts:
            yield format, facts


def versions(made: Made) -> dict[str, str]:
    """The installed versions of what wrote and checked the formats, without the build
    that they are of.

    The build (such as +cpu) is left out: the same card is made wherever the same
    versions are installed.
    """
    libraries = dict.fromkeys(
        library for format in made.formats for library in LIBRARIES[format]
    )
    return {
        library: metadata.version(library).partition("+")[0]
        for library in ("torch", *libraries)
    }


def missing(made: Made, words: AuthorNotes) -> list[dict[str, str]]:
    """What the card would say if the author had said it, and where to say it."""
    said = words.params
    if said is None:
        return [
            {
                "what": "All that an author says",
                "how": (
                    "`params.yaml` describes another checkpoint: write its `card`"
                    " section for this one, and set `card.written_for` to"
                    f" `{made.checkpoint['origin']['sha256'][:16]}`"
                ),
            }
        ]
    notes = f"{code(f'{said.notes_dir}/notes.md')}"
    wanted = [
        *(
            (heading, words.section(heading), f"`## {heading}` in {notes}")
            for heading in OWN_SECTIONS[:4]
        ),
        ("Licence", said.license, "`card.license` in `params.yaml`"),
        ("Authors", said.authors, "`card.authors` in `params.yaml`"),
        (
            "Citation",
            words.citation,
            f"BibTeX in {code(f'{said.notes_dir}/citation.bib')}",
        ),
        ("Task on the Hub", said.pipeline_tag, "`card.pipeline_tag` in `params.yaml`"),
    ]
    if metrics(made):
        wanted.append(
            (
                "What the metrics were measured on",
                said.evaluated_on,
                "`card.evaluated_on` in `params.yaml`",
            )
        )
    return [{"what": what, "how": how} for what, there, how in wanted if not there]


def parity_table(parity: Mapping[str, Any]) -> dict[str, Any]:
    """What parity.json says: one row for each output, one column for each artifact, and
    a remark on each artifact.

    Raises:
        CardError: it isn't as parity-check writes it.
    """
    try:
        return _parity_table(parity)
    except (KeyError, TypeError, AttributeError) as error:
        raise CardError(
            f"parity.json is not as parity-check writes it: {error!r}", _REBUILD
        ) from None


def _parity_table(parity: Mapping[str, Any]) -> dict[str, Any]:
    checked = parity["formats"]
    outputs = list(
        dict.fromkeys(
            output for figures in checked.values() for output in figures["outputs"]
        )
    )
    return {
        "rule": parity["rule"],
        "subjects": list(checked),
        "rows": {
            output: [
                parity["noise_floor"].get(output, {}).get("typical", ""),
                *(
                    _parity_cell(figures["outputs"].get(output))
                    for figures in checked.values()
                ),
            ]
            for output in outputs
        },
        "remarks": {
            name: "; ".join(_remarks(figures, parity["rule"]["cases"]))
            for name, figures in checked.items()
        },
    }


def _parity_cell(figures: Mapping[str, Any] | None) -> str:
    """The largest absolute error, and how much that is by the rule that the artifact
    was judged by.
    """
    if figures is None:
        return ""
    error = f"{figures['max_abs_error']:.2g}"
    if "share_of_output" in figures:
        return f"{error} ({figures['share_of_output']:.2%})"
    return f"{error} ({figures['times_floor']:.2g}×)"


def _remarks(figures: Mapping[str, Any], cases: int) -> Iterator[str]:
    precision = figures.get("reduced_precision")
    if held := figures.get("weights"):
        how = f"rounded to {precision}" if precision else "bit for bit"
        rest = held["of"] - held["bit_for_bit"]
        absent = (
            f"; the other {rest} are not in the file (its inputs don't need them, or"
            " they are folded)"
            if rest
            else ""
        )
        yield (
            f"{held['bit_for_bit']} of {held['of']} weights are the checkpoint's,"
            f" {how}{absent}"
        )
    if same := figures["bit_identical_cases"]:
        yield (
            f"in {same} of {cases} cases every output is bit for bit that of the eager"
            " model in float32"
        )
    if precision:
        limit = max(
            (output["limit"] for output in figures["outputs"].values()), default=0.0
        )
        yield (
            f"{precision} by request: in brackets the typical error as a share of the"
            f" output, and {limit:.0%} passes"
        )


# How it is written


def environment() -> Environment:
    """Jinja that escapes every value but Markup for Markdown; what a template may not
    know is an error.
    """
    # autoescape is for HTML; `finalize` does for Markdown what it does there.
    environment = Environment(  # noqa: S701
        loader=FileSystemLoader(TEMPLATE.parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else escaped(value),
    )
    environment.filters["code"] = lambda value: Markup(code(value))  # noqa: S704
    environment.filters["fenced"] = lambda text, language="": Markup(
        fenced(text, language)
    )
    environment.filters["markdown"] = Markup
    environment.filters["link"] = lambda url: Markup(
        "<" + re.sub(r"[<>\s]", "", url) + ">"
    )
    environment.globals["grouped"] = lambda number: f"{number:,}"
    environment.globals["size"] = human_size
    environment.globals["shape"] = shape
    environment.globals["names"] = names
    return environment


def shape(spec: TensorSpec) -> str:
    """A shape such as [sequence, batch, 48]; nothing for one that nobody stated."""
    return f"[{', '.join(map(str, spec.shape))}]" if spec.shape is not None else ""


def names(specs: tuple[TensorSpec, ...]) -> str:
    """The names as a Python list that can't end the block of code it stands in."""
    return json.dumps([spec.name for spec in specs]).replace("`", "\\u0060")


if __name__ == "__main__":
    stage.run(main)
