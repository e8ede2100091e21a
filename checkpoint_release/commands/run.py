"""checkpoint-release run: run a model of any format, or describe it.

checkpoint-release run artifacts/release --describe
checkpoint-release run artifacts/onnx --inputs case.safetensors --outputs out
checkpoint-release run mine.pth --state-dict ema --lora-alpha 16 --describe
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoint_release.commands.arguments import (
    add_pth_arguments,
    add_trust,
    read_inputs,
)
from checkpoint_release.core.artifacts.formats import FORMATS
from checkpoint_release.core.errors import InferenceError
from checkpoint_release.core.text import for_terminal, printable

if TYPE_CHECKING:
    from checkpoint_release.runtimes.loader import Model

SUMMARY = "run a model of any format, or describe it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments; most are those of `load`, by the same names."""
    parser.add_argument(
        "model", help="file, folder, or repository on the Hub (organisation/name)"
    )
    parser.add_argument(
        "--describe",
        action="store_true",
        help="print the model's inputs and outputs",
    )
    parser.add_argument(
        "--inputs",
        type=Path,
        metavar="FILE",
        help="safetensors file with the inputs, by name",
    )
    parser.add_argument(
        "--outputs",
        type=Path,
        metavar="FILE",
        help="safetensors file to write the outputs to",
    )
    parser.add_argument(
        "--format",
        choices=(*FORMATS, "checkpoint", "pth"),
        help="which of a folder's formats to take",
    )
    parser.add_argument(
        "--device",
        default="cpu",
        help="torch device, or cpu or cuda for ONNX (default: cpu)",
    )
    parser.add_argument(
        "--threads", type=int, help="threads that one run uses, 1 or more"
    )
    parser.add_argument(
        "--providers",
        nargs="+",
        metavar="NAME",
        help="ONNX Runtime's execution providers",
    )
    parser.add_argument("--revision", help="branch, tag or commit of a repository")
    add_trust(parser)
    add_pth_arguments(parser)
    parser.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="PATH[:WEIGHT]",
        help="LoRA adapter to merge into a .pth: a file, or a folder of PEFT",
    )


def run(asked: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Load the model; describe it, and compute the outputs of the inputs.

    Raises:
        CheckpointReleaseError: as `load` and a call of the model; or the inputs can't
            be read, or the outputs can't be written.
    """
    computes = asked.inputs is not None and asked.outputs is not None
    if not (asked.describe or computes):
        parser.error("give --inputs and --outputs, or --describe")
    if asked.outputs is not None:
        _require_writable(asked.outputs)
    model = _load(asked, parser)
    if asked.describe:
        print(model.describe())
    if computes:
        _compute(model, asked.inputs, asked.outputs)
    return 0


def _print_warning(message: Warning | str, *place: Any, **line: Any) -> None:
    """Print a warning without the place in the code that it is about."""
    print(f"warning: {for_terminal(str(message))}", file=sys.stderr)


def _load(asked: argparse.Namespace, parser: argparse.ArgumentParser) -> Model:
    """Load the model, and show the warning that a .pth is deprecated.

    Raises:
        CheckpointReleaseError: as `load`.
    """
    from checkpoint_release.runtimes.loader import load

    with warnings.catch_warnings():
        # Python hides deprecations from everybody but the calling script.
        warnings.filterwarnings(
            "default", category=DeprecationWarning, module=__name__.replace(".", r"\.")
        )
        warnings.showwarning = _print_warning
        return load(
            asked.model,
            format=asked.format,
            device=asked.device,
            threads=asked.threads,
            providers=asked.providers,
            revision=asked.revision,
            trust=asked.trust,
            lora_alpha=asked.lora_alpha,
            state_dict=asked.state_dict,
            adapter=_adapters(asked.adapter, parser),
        )


def _adapters(
    stated: list[str], parser: argparse.ArgumentParser
) -> dict[str, float] | None:
    """What --adapter states: a path, or paths with weights behind a colon.

    Args:
        stated: the option's values.
        parser: exits where a weight is no number.
    """
    if not stated:
        return None
    adapters = {}
    for each in stated:
        path, colon, weight = each.rpartition(":")
        if not colon or Path(each).exists():
            adapters[each] = 1.0
            continue
        try:
            adapters[path] = float(weight)
        except ValueError:
            parser.error(f"--adapter {each}: {weight!r} is no number")
    return adapters


def _require_writable(path: Path) -> None:
    """Fail before anything is computed where its result couldn't be written.

    Raises:
        InferenceError: it is a folder, in a folder that is missing, or not permitted.
    """
    if path.is_dir():
        raise InferenceError(f"{path} is a folder", "name a file")
    if not path.parent.is_dir():
        raise InferenceError(
            f"{path} can't be written: there is no folder {path.parent}",
            "name a file in an existing folder",
        )
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InferenceError(
            f"{path} can't be written: permission denied",
            "name a file that you may write",
        )


def _compute(model: Model, inputs: Path, outputs: Path) -> None:
    """Run the model on a file of inputs, and list the outputs that were written.

    Args:
        model: what to run.
        inputs: safetensors file with the inputs, by name.
        outputs: where the outputs go.

    Raises:
        InferenceError: the inputs can't be read, or don't fit the signature.
    """
    from checkpoint_release.tensors.safetensors import write_safetensors
    from checkpoint_release.tensors.tensor import Tensor

    computed = model(**read_inputs(inputs))
    tensors = {name: Tensor.of_numpy(array) for name, array in computed.items()}
    write_safetensors(outputs, tensors)
    for name, array in computed.items():
        print(f"{printable(name)} {array.dtype} {list(array.shape)}")
