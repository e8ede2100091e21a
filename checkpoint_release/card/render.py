"""The card's text, from the template card.md.jinja."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from checkpoint_release.card.address import Address
from checkpoint_release.card.author_notes import AuthorNotes, MissingItem
from checkpoint_release.card.benchmark import (
    benchmarked_on,
    not_run_remark,
    speed_rows,
)
from checkpoint_release.card.description import describe
from checkpoint_release.card.files import file_rows, library_versions, provenance
from checkpoint_release.card.front_matter import front_matter, loading_library
from checkpoint_release.card.inputs import ReleaseInputs
from checkpoint_release.card.install import needed_packages
from checkpoint_release.card.markdown import code, escaped, fenced
from checkpoint_release.card.parity import measured_on, parity_remarks, parity_rows
from checkpoint_release.card.pictures import LATENCY, PROOF, SIZES
from checkpoint_release.core.artifacts.checkpoint import CheckpointFacts
from checkpoint_release.core.artifacts.release import EXAMPLE_PICTURE, PICTURES
from checkpoint_release.core.signature import Signature, TensorSpec
from checkpoint_release.core.signing_keys import Signer, fingerprint_line
from checkpoint_release.core.text import human_size
from checkpoint_release.core.training import (
    metrics,
    training_facts,
    without_repeats,
)
from checkpoint_release.pictures.picture import Picture

_OWN_MODELS = "checkpoint_release.models."
_INPUT_COLUMNS = ("input", "dtype", "shape", "values", "meaning")
_OUTPUT_COLUMNS = ("output", "dtype", "shape", "meaning")
TEMPLATE = Path(__file__).with_name("card.md.jinja")


def render(
    inputs: ReleaseInputs,
    notes: AuthorNotes,
    missing: Sequence[MissingItem],
    pictures: Mapping[str, Picture],
    signer: Signer | None = None,
    address: Address | None = None,
) -> str:
    """The card: front matter and Markdown.

    Args:
        inputs: what the release is made of.
        notes: what the author states.
        missing: what the author should still supply.
        pictures: file name → picture, as draw_pictures draws them.
        signer: who will sign the release; None: nobody does.
        address: on the Hub, for examples; None: it has none.

    Raises:
        CardError: the front matter doesn't read back.
        ModelError: the model's module fails to describe it.
    """
    model = describe(inputs.architecture)
    signature = inputs.architecture.signature
    title = notes.params.title or model.name
    measured = metrics(inputs.checkpoint.training)
    facts = training_facts(inputs.checkpoint.training)
    for name in measured:
        del facts[name]
    body = (
        _environment()
        .get_template(TEMPLATE.name)
        .render(
            title=title,
            model=model,
            notes=notes,
            missing=missing,
            key_line=fingerprint_line(signer.fingerprint) if signer else None,
            certified=signer is not None and signer.certified,
            checkpoint=inputs.checkpoint,
            factory=inputs.architecture.factory,
            signature=signature,
            training=facts,
            metrics=without_repeats(measured, notes.stated_metrics),
            address=address,
            is_library_model=inputs.architecture.factory.startswith(_OWN_MODELS),
            inputs_table=table(_INPUT_COLUMNS, _input_rows(signature)),
            outputs_table=table(_OUTPUT_COLUMNS, _output_rows(signature)),
            formats=inputs.formats,
            files=file_rows(inputs.formats),
            has_transformers_code=inputs.has_transformers_code,
            library_class=inputs.library_class,
            parity=inputs.parity,
            measured_on=measured_on(inputs.parity.machine),
            parity_rows=parity_rows(inputs.parity),
            parity_remarks=parity_remarks(inputs.parity),
            benchmark=inputs.benchmark,
            speed_rows=speed_rows(inputs.benchmark) if inputs.benchmark else [],
            latency=LATENCY,
            pictures=pictures,
            example=EXAMPLE_PICTURE,
            proof=PROOF,
            sizes=SIZES,
            left_out=_left_out(inputs.checkpoint),
            provenance=provenance(inputs.formats),
            versions=library_versions(inputs.formats),
            needed=needed_packages(
                inputs.formats,
                library=loading_library(inputs),
            ),
        )
    )
    data = front_matter(inputs, notes, title)
    return f"---\n{data}\n---\n\n{body.strip()}\n"


def _input_rows(signature: Signature) -> list[list[str]]:
    rows = []
    for spec in signature.inputs:
        cells = [code(spec.name), code(spec.dtype), _shape_cell(spec)]
        rows.append([*cells, escaped(spec.range_text), escaped(spec.description)])
    return rows


def _output_rows(signature: Signature) -> list[list[str]]:
    rows = []
    for spec in signature.outputs:
        cells = [code(spec.name), code(spec.dtype), _shape_cell(spec)]
        rows.append([*cells, escaped(spec.description)])
    return rows


def _shape_cell(spec: TensorSpec) -> str:
    shape = _shape(spec)
    return code(shape) if shape else ""


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    """A table without the columns in which nothing stands; without rows, nothing.

    Args:
        columns: headings.
        rows: cells as Markdown, one for each column.
    """
    used = [i for i in range(len(columns)) if any(row[i] for row in rows)]
    lines = [[columns[i] for i in used], ["---"] * len(used)]
    lines += [[row[i] for i in used] for row in rows]
    if not rows:
        return Markup()
    return Markup("\n".join(f"| {' | '.join(cells)} |" for cells in lines))  # noqa: S704


def _left_out(checkpoint: CheckpointFacts) -> Counter[str]:
    """Global that the pickle names and nobody called → how often."""
    total = Counter[str]()
    for counts in checkpoint.left_out.values():
        total.update(counts)
    return total


def _environment() -> Environment:
    """Jinja that escapes every value but Markup for Markdown.

    What a template may not know is an error.
    """
    # autoescape is for HTML; `finalize` does for Markdown what it does there.
    environment = Environment(  # noqa: S701
        loader=FileSystemLoader(TEMPLATE.parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_escaped_unless_markup,
    )
    environment.filters |= {
        "code": _code,
        "fenced": _fenced,
        "link": _link,
        "markdown": Markup,
    }
    environment.globals |= {
        "benchmarked_on": benchmarked_on,
        "grouped": "{:,}".format,
        "names": _names,
        "not_run_remark": not_run_remark,
        "picture": _picture,
        "shape": _shape,
        "size": human_size,
    }
    return environment


def _escaped_unless_markup(value: Any) -> str:
    """What a template writes for a value."""
    return value if isinstance(value, Markup) else escaped(value)


def _code(value: object) -> Markup:
    return Markup(code(value))  # noqa: S704


def _fenced(text: str, language: str = "") -> Markup:
    return Markup(fenced(text, language))  # noqa: S704


def _link(url: str) -> Markup:
    """An address that can't end the angle brackets it stands in."""
    return Markup("<" + re.sub(r"[<>\s]", "", url) + ">")  # noqa: S704


def _picture(name: str, alt: str) -> Markup:
    """An image beside the card."""
    return Markup(f"![{escaped(alt)}]({PICTURES}/{name})")  # noqa: S704


def _shape(spec: TensorSpec) -> str:
    """A shape such as [sequence, batch, 48]; empty where none is stated."""
    if spec.shape is None:
        return ""
    return f"[{', '.join(map(str, spec.shape))}]"


def _names(specs: Iterable[TensorSpec]) -> str:
    """The names as a Python list that can't end the code block it stands in."""
    return json.dumps([spec.name for spec in specs]).replace("`", "\\u0060")
