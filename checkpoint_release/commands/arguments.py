"""The arguments that commands about models share, by the names that `load` has."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from checkpoint_release.core.errors import ArtifactError, InferenceError

if TYPE_CHECKING:
    from checkpoint_release.core.signature import Arrays


def add_release(parser: argparse.ArgumentParser) -> None:
    """Declare which release, and whose it must be."""
    parser.add_argument(
        "release", help="a folder, or organisation/name on the Hub (HF_ENDPOINT)"
    )
    parser.add_argument("--revision", help="branch, tag or commit; main by default")
    parser.add_argument(
        "--public-key",
        type=Path,
        metavar="FILE",
        help="PEM file of the publisher, to check the signature with",
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Declare what code from elsewhere may run."""
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="CODE",
        help="code that may run: package.module:callable, torchscript or torch_export",
    )


def add_pth_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what a .pth may need to be read as a model."""
    parser.add_argument(
        "--lora-alpha",
        type=float,
        metavar="ALPHA",
        help="alpha of the LoRA layers in a .pth that doesn't state it",
    )
    parser.add_argument(
        "--state-dict",
        metavar="KEY",
        help="key of the weights in a .pth that holds several state dicts",
    )


def read_inputs(path: Path) -> Arrays:
    """The arrays of a safetensors file, by name.

    Raises:
        InferenceError: it can't be read.
    """
    from checkpoint_release.tensors.safetensors import open_safetensors

    try:
        tensors = open_safetensors(path)
    except ArtifactError as error:
        raise InferenceError(
            error.problem, "give a safetensors file that holds the inputs by name"
        ) from None
    return {name: tensor.numpy() for name, tensor in tensors.items()}
