"""checkpoint-release convert: one release of a checkpoint, without a repository.

checkpoint-release convert best.pth -o release --factory tagger.net:build
checkpoint-release convert best.pth -o release --formats onnx --set onnx.opset=20

The stages are the pipeline's own, with the same proof, and so is the release.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from checkpoint_release.commands.asking import add_model_arguments, asked_for

SUMMARY = "turn a checkpoint into a release, without a repository"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("checkpoint", help="a .pth or safetensors file, or a folder")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="DIR",
        help="folder for the release; missing or empty",
    )
    add_model_arguments(parser)


def run(asked: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Run every stage, and put the release into its folder.

    Returns:
        The exit code; 1 where a stage failed, which it reported itself.

    Raises:
        CheckpointReleaseError: an option is wrong, or the folder isn't free.
    """
    from checkpoint_release.project.one_shot import convert

    options = asked_for(asked, asked.checkpoint)
    return convert(options, Path(asked.output))
