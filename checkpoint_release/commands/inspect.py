"""checkpoint-release inspect: list what a checkpoint holds, without running any of it.

checkpoint-release inspect checkpoint.pth
checkpoint-release inspect folder/with/shards
"""

from __future__ import annotations

import argparse

SUMMARY = "list what a checkpoint holds, without running any of it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's argument."""
    parser.add_argument("path", help="a .pth or safetensors file, or a folder")


def run(asked: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Print the report.

    Raises:
        CheckpointReleaseError: as `inspect`.
    """
    from checkpoint_release.state_dict.inspection import inspect

    print(inspect(asked.path))
    return 0
