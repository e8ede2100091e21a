"""checkpoint-release diff: what changed from one release to another.

checkpoint-release diff old/release artifacts/release
checkpoint-release diff organisation/name@v1.0.0 artifacts/release --json

Each is a folder, or organisation/name on the Hub (HF_ENDPOINT), with @ and a branch,
tag or commit. Of a release on a Hub only small files are downloaded, and weights of up
to 100 MB, to measure how far they moved; --weights downloads larger ones too.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import canonical_json

if TYPE_CHECKING:
    from checkpoint_release.release.view import ReleaseView

SUMMARY = "what changed from one release to another"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    what = "a folder, or organisation/name@v1.0.0 on the Hub (HF_ENDPOINT)"
    parser.add_argument("old", help=what)
    parser.add_argument("new", help=what)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--weights",
        action="store_true",
        help="download weights of any size to measure how far they moved",
    )


def run(asked: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Compare the releases and print what changed.

    Raises:
        ArtifactError: one is no release, or a file of it is another than it lists.
        PublishError: the Hub doesn't give it.
    """
    from checkpoint_release.release.comparison import DOWNLOAD_LIMIT, compare
    from checkpoint_release.release.notes import notes

    limit = sys.maxsize if asked.weights else DOWNLOAD_LIMIT
    with _view(asked.old) as old, _view(asked.new) as new:
        comparison = compare(old, new, limit)
    if asked.json:
        print(canonical_json(comparison.to_json()), end="")
    else:
        print(f"{comparison.new} since {comparison.old}:\n\n{notes(comparison)}")
    return 0


def _view(name: str) -> AbstractContextManager[ReleaseView]:
    """A release to look into.

    Args:
        name: of a folder, or organisation/name@revision.

    Raises:
        ArtifactError: it is neither, or no release.
        PublishError: the Hub doesn't give it.
    """
    from checkpoint_release.release.view import view_folder, view_on_hub

    folder = Path(name)
    if folder.is_dir():
        return nullcontext(view_folder(folder))
    repo_id, _, revision = name.partition("@")
    organisation, _, model = repo_id.partition("/")
    if not organisation or not model or "/" in model:
        raise ArtifactError(
            f"{name} is neither a folder nor organisation/name@revision",
            "name one of them",
        )
    from checkpoint_release.release.hub import Hub, default_endpoint
    from checkpoint_release.release.tokens import stored_token

    hub = Hub(default_endpoint(), stored_token)
    return view_on_hub(hub, repo_id, revision or "main")
