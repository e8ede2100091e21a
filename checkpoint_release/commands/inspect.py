"""checkpoint-release inspect: list what a checkpoint holds, without running any of it.

checkpoint-release inspect checkpoint.pth
checkpoint-release inspect folder/with/shards
checkpoint-release inspect --json checkpoint.pth

Exit codes: 0 for a file without dangerous code, 1 for one that can't be read, and 2 for
one that names code that could do harm.
"""

from __future__ import annotations

import argparse
import json

from checkpoint_release.core.errors import CheckpointReleaseError

SUMMARY = "list what a checkpoint holds, without running any of it"
_EXIT_CODES = "exit codes: 0 clean, 1 unreadable, 2 dangerous or wrong usage"
DANGEROUS = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "path", help="a .pth or safetensors file, an index of shards, or a folder"
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON, for other programs"
    )
    parser.epilog = _EXIT_CODES


def run(asked: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Print the report, and return the exit code for its verdict.

    Raises:
        CheckpointReleaseError: as `inspect`; as JSON, it was printed before.
    """
    from checkpoint_release.state_dict.inspection import Safety, inspect

    try:
        found = inspect(asked.path)
    except CheckpointReleaseError as error:
        if asked.json:
            print(json.dumps(_unreadable(asked.path, error), indent=2))
        raise
    # JSON has no characters that could steer a terminal: it escapes what isn't ASCII.
    print(json.dumps(found.to_json(), indent=2) if asked.json else found)
    return DANGEROUS if found.safety is Safety.DANGEROUS else 0


def _unreadable(path: str, error: CheckpointReleaseError) -> dict[str, str]:
    """What --json says of a file that can't be read."""
    return {
        "path": path,
        "verdict": "unreadable",
        "error": error.problem,
        "remedy": error.remedy,
    }
