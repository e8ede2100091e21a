"""checkpoint-release page: open a release in the browser, and have it prove itself.

checkpoint-release page artifacts/release
checkpoint-release page organisation/name --revision v1.0.0 --port 8000 --open
checkpoint-release page artifacts/release --space space --model organisation/name

The page is this package's own, whatever the release holds. Its runtime,
onnxruntime-web, comes from the npm registry at a pinned version and hash, once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from checkpoint_release.release.fetched import local_release

SUMMARY = "serve a release's page on this machine, for the browser to prove it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "release", help="a folder, or organisation/name on the Hub (HF_ENDPOINT)"
    )
    parser.add_argument("--revision", help="branch, tag or commit; main by default")
    parser.add_argument(
        "--port", type=int, default=0, help="of loopback; a free one by default"
    )
    parser.add_argument(
        "--runtime",
        type=Path,
        metavar="FILE",
        help="onnxruntime-web's npm archive, for machines without internet",
    )
    parser.add_argument(
        "--space",
        type=Path,
        metavar="DIR",
        help="write a static Space of the Hub into a folder, and serve nothing",
    )
    parser.add_argument(
        "--model",
        metavar="REPO",
        help="organisation/name of the model on the Hub, for the Space's card",
    )
    parser.add_argument(
        "--open", action="store_true", help="open the page in the browser"
    )


def run(asked: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Serve the page until Ctrl-C, or write a Space.

    Raises:
        ArtifactError: it is no release with an ONNX model, the runtime can't be had,
            the port is taken, or the Space's folder isn't free.
        PublishError: the Hub doesn't give the release.
    """
    with local_release(asked.release, asked.revision) as found:
        if found.note:
            print(found.note)
        if asked.space:
            _write_space(found.folder, asked)
        else:
            _serve(found.folder, asked)
    return 0


def _write_space(release: Path, asked: argparse.Namespace) -> None:
    from checkpoint_release.page.space import write_space

    write_space(release, asked.space, asked.model)
    print(f"{asked.space}: a static Space; upload it with")
    print(f"  hf upload ORGANISATION/NAME {asked.space} . --repo-type space")


def _serve(release: Path, asked: argparse.Namespace) -> None:
    from checkpoint_release.core.artifacts.release import read_release
    from checkpoint_release.page.npm import cache_folder, runtime_package, unpacked
    from checkpoint_release.page.server import page_server

    read_release(release)  # before anything is fetched
    runtime = unpacked(runtime_package(), cache_folder(), asked.runtime)
    with page_server(release, runtime, asked.port) as server:
        print(f"{asked.release} is at {server.url} until Ctrl-C", flush=True)
        if asked.open:
            import webbrowser

            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
