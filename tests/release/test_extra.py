"""Files of one's own in a release: they are shipped as they are, listed and verified,
and replace nothing of the release or of other people.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from checkpoint_release.core.artifacts.release import Listing, digest_of, read_release
from checkpoint_release.core.errors import ArtifactError, PublishError
from checkpoint_release.release.assemble import assemble
from checkpoint_release.release.differences import differences
from tests.support.project import tree
from tests.support.publishing import (
    CARD,
    SENDING,
    Publisher,
    fake_artifacts,
)

pytestmark = pytest.mark.filterwarnings(SENDING)

LINKED = (
    "---\nlicense: other\nlicense_name: ours\nlicense_link: LICENSE\n---\n# Model\n"
)


def put(folder: Path, **files: str) -> Path:
    """A folder with these files; `__` in a name stands for a slash, `_` for a dot."""
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    return fake_artifacts(tmp_path / "artifacts")


@pytest.fixture
def extra(tmp_path: Path) -> Path:
    folder = tmp_path / "extra"
    folder.mkdir(exist_ok=True)
    return folder


def test_files_of_a_folder_go_along_and_are_listed_as_the_authors(
    artifacts: Path, extra: Path
) -> None:
    put(extra, LICENSE="ours", tokenizer_json="{}", docs__pose_svg="<svg/>")
    without = tree(assemble(artifacts)).keys()
    folder = assemble(artifacts, extra=extra)
    added = {"LICENSE", "tokenizer.json", "docs/pose.svg"}
    assert tree(folder).keys() == without | added
    release = read_release(folder)
    assert release.extra.files.keys() == added
    assert not added & (release.built.files.keys() | release.evidence.files.keys())
    found = differences(folder, release)
    assert (found.problems, found.people_files) == ([], [])


def test_one_of_them_that_was_changed_afterwards_is_caught(
    artifacts: Path, extra: Path
) -> None:
    folder = assemble(artifacts, extra=put(extra, LICENSE="ours"))
    (folder / "LICENSE").write_text("everybody's")
    (problem,) = differences(folder, read_release(folder)).problems
    assert "LICENSE is not what was released" in problem


def test_a_release_json_that_lists_a_file_twice_is_refused(
    artifacts: Path, extra: Path
) -> None:
    folder = assemble(artifacts, extra=put(extra, LICENSE="ours"))
    release = read_release(folder)
    listed_twice = {"config.json": release.extra.files["LICENSE"]}
    extra_files = Listing(sha256=digest_of(listed_twice), files=listed_twice)
    changed = msgspec.structs.replace(release, extra=extra_files)
    changed.write(folder / "release.json")
    with pytest.raises(ArtifactError, match=r"config\.json as built and as extra"):
        read_release(folder)


def test_what_systems_leave_in_folders_stays_home(artifacts: Path, extra: Path) -> None:
    for name in (".gitkeep", ".gitignore", ".DS_Store", "photo.png.dvc"):
        (extra / name).write_text("x")
    assert assemble(artifacts, extra=extra)
    assert read_release(artifacts / "release").extra.files == {}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("README.md", "and so would"),
        ("readme.md", "and so would"),
        ("parity.json", "and so would"),
        ("onnx/model.onnx", "may be taken for a model"),
        ("pytorch_model.bin", "may be taken for a model"),
        ("config.json", "which model the release holds"),
        ("release.json", "a file of the release itself"),
        ("sha256sums", "a file of the release itself"),
        (".gitattributes", "the Hub writes"),
        ("two\nlines.txt", "not every system"),
    ],
)
def test_none_replaces_a_file_of_the_release_or_passes_for_one(
    artifacts: Path, extra: Path, name: str, reason: str
) -> None:
    (extra / name).parent.mkdir(parents=True, exist_ok=True)
    (extra / name).write_text("mine")
    before = tree(assemble(artifacts))
    with pytest.raises(PublishError, match=reason) as caught:
        assemble(artifacts, extra=extra)
    assert caught.value.remedy
    assert tree(artifacts / "release") == before


def test_a_folder_that_is_not_there_is_one_clear_error(artifacts: Path) -> None:
    with pytest.raises(PublishError, match=r"publish\.extra is nowhere"):
        assemble(artifacts, extra=Path("nowhere"))


# A licence of one's own


def test_a_licence_that_the_card_links_goes_along(
    tmp_path: Path, artifacts: Path, extra: Path
) -> None:
    fake_artifacts(artifacts, card=LINKED)
    with pytest.raises(PublishError, match=r"license_link is LICENSE") as caught:
        assemble(artifacts, extra=extra)
    assert "put LICENSE into the folder that publish.extra names" in caught.value.remedy
    assert "LICENSE" in tree(assemble(artifacts, extra=put(extra, LICENSE="ours")))


@pytest.mark.parametrize("link", ["https://example.org/licence", "null"])
def test_a_licence_elsewhere_needs_no_file(artifacts: Path, link: str) -> None:
    fake_artifacts(artifacts, card=LINKED.replace("LICENSE", link))
    assert assemble(artifacts)


# On the Hub


@pytest.mark.slow
def test_they_are_published_and_leave_with_the_version_that_drops_them(
    publisher: Publisher, extra: Path
) -> None:
    put(extra, LICENSE="ours", notes_txt="old")
    publisher.publish()
    publisher.require_published()
    assert publisher.on_hub()["LICENSE"] == b"ours"
    (extra / "notes.txt").unlink()
    publisher.publish(version="v1.1.0")
    publisher.require_published(version="v1.1.0", releases=2)


def test_a_licence_that_people_put_there_is_not_replaced_without_consent(
    publisher: Publisher, extra: Path
) -> None:
    publisher.publish()
    publisher.repo.edit({"LICENSE": b"theirs"})
    put(extra, LICENSE="ours")
    with pytest.raises(PublishError, match="LICENSE of ada/stick would be replaced"):
        publisher.publish(version="v1.1.0")
    assert publisher.on_hub()["LICENSE"] == b"theirs"
    publisher.publish(version="v1.1.0", delete=["LICENSE"])
    assert publisher.on_hub()["LICENSE"] == b"ours"


@pytest.mark.slow
def test_a_release_json_of_another_version_still_tells_whose_files_are_whose(
    publisher: Publisher,
) -> None:
    """SHA256SUMS lists the same files, in a form that doesn't change."""
    publisher.publish()
    publisher.repo.edit({"release.json": b'{"format": 0}', "LICENSE": b"theirs"})
    fake_artifacts(publisher.artifacts, weights=b"other", card=CARD + "More.\n")
    publisher.publish(version="v1.1.0")
    held = publisher.on_hub()
    assert held.pop("LICENSE") == b"theirs"
    assert held == publisher.release
