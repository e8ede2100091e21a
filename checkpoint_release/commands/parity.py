"""checkpoint-release parity: does one model compute what another does?

checkpoint-release parity mine.pth theirs.onnx
checkpoint-release parity mine.pth theirs.onnx --factory my_model:build
checkpoint-release parity artifacts/release converted.onnx --inputs case.safetensors

The first model is the reference. Is the other's graph the same, in double precision?
And what does its runtime cost, in multiples of float32's own error?
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from checkpoint_release.commands.arguments import (
    add_pth_arguments,
    add_trust,
    read_inputs,
)
from checkpoint_release.core.errors import InferenceError

if TYPE_CHECKING:
    from checkpoint_release.core.signature import Arrays, Signature
    from checkpoint_release.parity.compare import Run, Side
    from checkpoint_release.runtimes.detect import Detected
    from checkpoint_release.runtimes.loader import Model

SUMMARY = "hold one model against another: the same graph? how exact a runtime?"
NOISE_MULTIPLE = 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments; most are those of `load`, by the same names."""
    parser.add_argument("reference", help="file, folder or repository on the Hub")
    parser.add_argument("other", help="what is held against it, likewise")
    parser.add_argument(
        "--inputs",
        type=Path,
        metavar="FILE",
        help="safetensors file with the inputs, by name (default: drawn)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the inputs that are drawn (default: 0)"
    )
    parser.add_argument(
        "--noise-multiple",
        type=float,
        default=NOISE_MULTIPLE,
        metavar="TIMES",
        help="error allowed, in multiples of float32's own (default: 3)",
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="JSON file to write all figures to"
    )
    parser.add_argument(
        "--factory",
        metavar="CODE",
        help="what builds the model of a .pth, package.module:callable; it runs",
    )
    parser.add_argument(
        "--kwargs",
        default="{}",
        metavar="JSON",
        help="the factory's keyword arguments (default: none)",
    )
    add_pth_arguments(parser)
    add_trust(parser)


def run(asked: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Compare the two and print the report; 1 if the other doesn't pass.

    Raises:
        CheckpointReleaseError: one of them can't be opened or fails, or they don't take
            and give the same.
    """
    if not asked.noise_multiple > 0 or math.isinf(asked.noise_multiple):
        raise InferenceError(
            f"{{noise_multiple}} is {asked.noise_multiple}",
            "give a number above 0",
            options=["noise_multiple"],
        )
    from checkpoint_release.parity.compare import compare, draw, given_case
    from checkpoint_release.parity.machine import this_machine
    from checkpoint_release.parity.report import parity_report, summary
    from checkpoint_release.parity.rules import Limits

    reference, other = _open_both(asked)
    if asked.inputs is None:
        cases = draw(reference, other, asked.seed)
    else:
        cases = given_case(read_inputs(asked.inputs))
    limits = Limits(asked.noise_multiple, reduced={})
    check = compare(reference, other, cases, limits)
    print(summary(check))
    for verdict in check.failed:
        print(f"{verdict.candidate.name}: {verdict.problem}")
        if verdict.errs_in_runtime:
            print("  the graph is the reference's; its runtime errs by more than that")
    if asked.report is not None:
        report = parity_report(check, this_machine(), seed=asked.seed, checked={})
        report.write(asked.report)
    return 1 if check.failed else 0


def _open_both(asked: argparse.Namespace) -> tuple[Side, Side]:
    """The two models.

    A .pth whose model --factory builds takes what the other one takes, so that is
    opened first.

    Raises:
        CheckpointReleaseError: as `load`.
    """
    from checkpoint_release.runtimes.detect import PTH
    from checkpoint_release.runtimes.loader import find_model

    first = find_model(asked.reference, None, None)
    second = find_model(asked.other, None, None)
    if asked.factory is None:
        reference = _open(asked, asked.reference, first, None)
        return reference, _open(asked, asked.other, second, None)
    if [first.format, second.format].count(PTH) != 1:
        raise InferenceError(
            f"{{factory}} builds the model of a .pth, and these are {first.format} and"
            f" {second.format}",
            "give one .pth, and one model that describes its inputs",
            options=["factory"],
        )
    if first.format == PTH:
        other = _open(asked, asked.other, second, None)
        return _open(asked, asked.reference, first, other.signature), other
    reference = _open(asked, asked.reference, first, None)
    return reference, _open(asked, asked.other, second, reference.signature)


def _open(
    asked: argparse.Namespace, given: str, found: Detected, signature: Signature | None
) -> Side:
    """One model, in its own dtypes and, unless it is ONNX, in float64.

    Args:
        asked: the command's arguments.
        given: what the user named.
        found: the model there.
        signature: of the other model, where --factory builds this one.

    Raises:
        CheckpointReleaseError: as `load`.
    """
    from checkpoint_release.core.architecture import Architecture
    from checkpoint_release.core.artifacts.formats import ONNX
    from checkpoint_release.core.trust import Trust
    from checkpoint_release.parity.compare import Side
    from checkpoint_release.runtimes.detect import PTH
    from checkpoint_release.runtimes.loader import open_model
    from checkpoint_release.runtimes.runtime import Merging, Options

    architecture, trusted = None, list(asked.trust)
    if signature is not None:
        architecture = Architecture(asked.factory, _kwargs(asked.kwargs), signature)
        trusted.append(asked.factory)
    merging = Merging()
    if found.format == PTH:
        merging = Merging(asked.state_dict, asked.lora_alpha)

    def opened(dtype: Literal["own", "float64"]) -> Model:
        options = Options(threads=1, dtype=dtype, trust=Trust.of(trusted))
        return open_model(given, found, options, merging, architecture)

    own = opened("own")
    is_onnx = found.format == ONNX.name
    # ONNX Runtime has packed the weights already: it is opened again when it runs
    waiting = [] if is_onnx else [own]
    return Side(
        Path(given).name,
        found.format,
        found.path,
        own.signature,
        _running(lambda: waiting.pop() if waiting else opened("own")),
        None if is_onnx else _running(lambda: opened("float64")),
    )


def _running(open_it: Callable[[], Model]) -> Run:
    """A model that is opened for each series of inputs.

    Several large ones aren't held at once then.
    """

    def run(series: Sequence[Arrays]) -> list[Arrays]:
        model = open_it()
        return [model(**inputs) for inputs in series]

    return run


def _kwargs(text: str) -> dict[str, Any]:
    """The factory's keyword arguments.

    Raises:
        InferenceError: it isn't a JSON object.
    """
    from checkpoint_release.core.json_text import JsonError, parse_json

    try:
        value = parse_json(text)
    except JsonError:
        value = None
    if not isinstance(value, dict):
        raise InferenceError(
            f"{{kwargs}} is {text!r}",
            "give a JSON object, such as '{\"width\": 64}'",
            options=["kwargs"],
        )
    return value
