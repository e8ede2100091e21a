"""A static Space of the Hub: a release's page, and the files that it reads.

The page lies where it lies in a release, so that it finds everything by the same
relative addresses; the Space's own files are a card and a page that leads there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from checkpoint_release.core.artifacts.config import CONFIG
from checkpoint_release.core.artifacts.formats import ONNX
from checkpoint_release.core.artifacts.parity import RELEASED_REPORT
from checkpoint_release.core.artifacts.release import (
    CARD,
    RELEASE,
    Release,
    read_release,
)
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import REMAKE, artifact_folder, copy_file
from checkpoint_release.page.files import FOLDER, page_files
from checkpoint_release.page.server import require_onnx

INDEX = "index.html"
"""The page that a Space shows first."""
RELEASE_FOLDER = "release"
"""The release's folder in the Space."""
_INDEX = f"""\
<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <title>Proof of a release</title>
  <meta http-equiv="refresh" content="0; url={RELEASE_FOLDER}/{FOLDER}/index.html">
</head>
<body>
  <p><a href="{RELEASE_FOLDER}/{FOLDER}/index.html">The proof of the release</a></p>
</body>
</html>
"""


def write_space(release: Path, folder: Path, model: str | None = None) -> None:
    """Write the folder of a Space, whole or not at all.

    Args:
        release: the release's folder.
        folder: where to; missing or empty.
        model: organisation/name of the model on the Hub, which the Space's card names.

    Raises:
        ArtifactError: it is no release, holds no ONNX model or a file that isn't what
            it lists; or the folder isn't free.
    """
    description = read_release(release)
    require_onnx(description, release)
    _require_free(folder)
    with artifact_folder(folder) as staging:
        target = staging / RELEASE_FOLDER
        target.mkdir()
        shutil.copyfile(release / RELEASE, target / RELEASE)
        for name in _needed(description):
            _copy(release, name, description, target)
        (target / FOLDER).mkdir()
        for name, path in page_files().items():
            shutil.copyfile(path, target / FOLDER / name)
        (staging / INDEX).write_text(_INDEX, encoding="utf-8")
        card = _card(_title(target / CARD), model)
        (staging / CARD).write_text(card, encoding="utf-8")


def _require_free(folder: Path) -> None:
    """Require that the folder may become the Space.

    Raises:
        ArtifactError: it holds something, or is a file.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ArtifactError(
            f"{folder} is there already, and is no empty folder",
            "name another folder, or remove it",
        )


def _needed(description: Release) -> Iterator[str]:
    """The listed files that the page reads."""
    sample = description.sample
    folder = f"{ONNX.release_folder}/"
    alone = {CARD, CONFIG, RELEASED_REPORT, sample.inputs, sample.outputs}
    for name in description.files:
        if name in alone or name.startswith(folder):
            yield name


def _copy(release: Path, name: str, description: Release, target: Path) -> None:
    """Copy a file that is what the release lists.

    Raises:
        ArtifactError: it is missing or another one.
    """
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    try:
        entry = copy_file(release / name, target / name)
    except OSError as error:
        raise ArtifactError(
            f"{release / name} can't be copied: {error.strerror}", REMAKE
        ) from None
    if entry != description.files[name]:
        raise ArtifactError(f"{release / name} is not what {RELEASE} lists", REMAKE)


def _title(card: Path) -> str:
    """The first heading of a model card, if there is one."""
    if card.is_file():
        for line in card.read_text(encoding="utf-8").splitlines():
            if line.startswith("# "):
                return line.removeprefix("# ").strip()
    return "Proof of a release"


def _card(title: str, model: str | None) -> str:
    """The Space's card; its front matter makes the Space a static one."""
    # a text in JSON is one in YAML
    matter = [f"title: {json.dumps(title)}", "emoji: 📐", "sdk: static"]
    about = "a release"
    if model:
        matter += ["models:", f"- {model}"]
        about = f"[{model}](https://huggingface.co/{model})"
    front = "\n".join(matter)
    return (
        f"---\n{front}\n---\n\n# {title}\n\nThis page runs the ONNX model of {about} in"
        " your browser and holds its outputs against the float64 reference.\n"
    )
