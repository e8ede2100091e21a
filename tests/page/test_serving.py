"""What `checkpoint-release page` serves, to whom, and where its runtime comes from."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from checkpoint_release.__main__ import main
from checkpoint_release.core.artifacts.release import read_release
from checkpoint_release.core.errors import ArtifactError, PublishError
from checkpoint_release.core.files import FileEntry
from checkpoint_release.page import npm
from checkpoint_release.page.files import page_files
from checkpoint_release.page.npm import Package, cache_folder, unpacked
from checkpoint_release.page.server import page_server
from checkpoint_release.page.space import write_space
from checkpoint_release.release.assemble import assemble
from tests.support import page_serving
from tests.support.project import ROOT, tree
from tests.support.publishing import (
    REPO,
    SENDING,
    TOKEN,
    Publisher,
    fake_artifacts,
    write_artifact,
)

Printed = pytest.CaptureFixture[str]
PACKAGE = "checkpoint_release"


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    return fake_artifacts(tmp_path / "artifacts")


@pytest.fixture
def release(artifacts: Path) -> Path:
    return assemble(artifacts, page=True)


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """A runtime's folder; no runtime is in it."""
    folder = tmp_path / "runtime"
    folder.mkdir()
    (folder / "ort.wasm").write_bytes(b"a runtime")
    return folder


# In the release


def test_the_page_is_a_part_of_what_is_built(release: Path) -> None:
    listed = read_release(release).built.files
    for name, path in page_files().items():
        assert listed[f"page/{name}"] == FileEntry.of(path)
        assert (release / "page" / name).read_bytes() == path.read_bytes()


def test_a_release_has_no_page_where_it_is_not_asked_for(artifacts: Path) -> None:
    assert not (assemble(artifacts) / "page").exists()


def test_a_release_without_an_onnx_model_has_no_page(tmp_path: Path) -> None:
    artifacts = fake_artifacts(tmp_path / "artifacts", onnx=False)
    assert not (assemble(artifacts, page=True) / "page").exists()


def test_an_artifact_in_the_place_of_the_page_is_an_error(artifacts: Path) -> None:
    files = {"model.safetensors": b"weights", "page/index.html": b"<script>"}
    write_artifact(artifacts / "safetensors", "safetensors", files)
    with pytest.raises((PublishError, ArtifactError)):
        assemble(artifacts, page=True)


def test_the_page_holds_nothing_of_this_machine() -> None:
    for path in page_files().values():
        assert str(ROOT) not in path.read_text()


def test_page_and_server_allow_browsers_the_same_but_the_cdn(
    release: Path, runtime: Path
) -> None:
    html = page_files()["index.html"].read_text()
    stated = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)
    assert stated
    # beside the page's own host: the runtime's CDN, and where the Hub keeps large files
    hosts = " https://cdn.jsdelivr.net https://*.hf.co https://*.huggingface.co"
    assert hosts in stated[1]
    own = set(stated[1].replace(hosts, "").split("; "))
    with serving(release, runtime) as port:
        _, headers, _ = get(port, "/page/")
    sent = set(headers["Content-Security-Policy"].split("; "))
    assert sent - own == {"frame-ancestors 'none'"}  # which pages can't state
    assert own <= sent


# Served


@contextmanager
def serving(release: Path, runtime: Path) -> Iterator[int]:
    """Gives the port."""
    with page_serving.serving(release, runtime) as server:
        yield server.server_port


def get(
    port: int, path: str, method: str = "GET", host: str | None = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers, content


def test_files_of_the_release_and_the_runtime_are_served(
    release: Path, runtime: Path
) -> None:
    with serving(release, runtime) as port:
        assert get(port, "/")[1]["Location"] == "/page/"
        assert b"<!doctype html>" in get(port, "/page/")[2]
        assert get(port, "/release.json")[2] == (release / "release.json").read_bytes()
        assert get(port, "/onnx/model.onnx")[2] == b"graph of weights"
        assert get(port, "/page/runtime/ort.wasm")[2] == b"a runtime"
        status, headers, content = get(port, "/onnx/model.onnx", "HEAD")
        assert (status, headers["Content-Length"], content) == (200, "16", b"")


@pytest.mark.parametrize(
    "path",
    [
        "/../secret",
        "/%2e%2e/secret",
        "/page/../../secret",
        "/onnx/",
        "/notes.txt",
        "//etc/passwd",
        "/page/runtime/../../notes.txt",
    ],
)
def test_nothing_else_is_served(path: str, release: Path, runtime: Path) -> None:
    (release.parent / "secret").write_text("secret")
    (release / "notes.txt").write_text("secret")
    with serving(release, runtime) as port:
        assert get(port, path)[0] == 404


def test_the_page_of_the_release_is_code_from_elsewhere_and_never_served(
    release: Path, runtime: Path
) -> None:
    for name in ("index.html", "main.js"):
        (release / "page" / name).write_text("alert(1)")
    with serving(release, runtime) as port:
        assert get(port, "/page/main.js")[2] == page_files()["main.js"].read_bytes()
        assert b"alert" not in get(port, "/page/")[2]


def test_a_name_that_points_to_loopback_reads_nothing(
    release: Path, runtime: Path
) -> None:
    with serving(release, runtime) as port:
        assert get(port, "/release.json", host=f"localhost:{port}")[0] == 200
        assert get(port, "/release.json", host="evil.example")[0] == 421


def test_code_of_the_release_is_sent_as_bytes(release: Path, runtime: Path) -> None:
    with serving(release, runtime) as port:
        _, headers, _ = get(port, "/README.md")
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_release_without_an_onnx_model_is_one_clear_error(
    tmp_path: Path, runtime: Path
) -> None:
    release = assemble(fake_artifacts(tmp_path / "artifacts", onnx=False))
    with pytest.raises(ArtifactError, match="holds no ONNX model"):
        page_server(release, runtime)


def test_a_port_that_is_taken_is_one_clear_error(release: Path, runtime: Path) -> None:
    with (
        serving(release, runtime) as port,
        pytest.raises(ArtifactError, match="can't be had"),
    ):
        page_server(release, runtime, port)


# As a Space of the Hub


def test_a_space_holds_the_page_and_what_it_reads(
    release: Path, tmp_path: Path, capsys: Printed
) -> None:
    space = tmp_path / "space"
    asked = ["--space", str(space), "--model", "ada/stick"]
    assert main(["page", str(release), *asked]) == 0
    assert "--repo-type space" in capsys.readouterr().out
    pages = {f"release/page/{name}" for name in page_files()}
    assert tree(space).keys() - pages == {
        *("README.md", "index.html"),
        *("release/release.json", "release/parity.json", "release/README.md"),
        *("release/onnx/model.onnx", "release/config.json"),
        *("release/sample/inputs.safetensors", "release/sample/outputs.safetensors"),
    }
    assert pages <= tree(space).keys()
    _, matter, text = (space / "README.md").read_text().split("---\n")
    assert YAML(typ="safe").load(matter) == {
        "title": "A stick figure",
        "emoji": "📐",
        "sdk": "static",
        "models": ["ada/stick"],
    }
    assert "https://huggingface.co/ada/stick" in text


@pytest.mark.slow
@pytest.mark.filterwarnings(SENDING)
def test_a_release_on_the_hub_is_taken_from_there(
    publisher: Publisher, tmp_path: Path
) -> None:
    publisher.publish(page=True)
    space = tmp_path / "space"
    command = [sys.executable, "-m", "checkpoint_release", "page", REPO]
    environment = os.environ | {
        "HF_ENDPOINT": publisher.hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": TOKEN,
    }
    asked = ["--revision", "v1.0.0", "--space", str(space)]
    subprocess.run([*command, *asked], env=environment, cwd=ROOT, check=True)
    files = tree(space / "release")
    assert files["onnx/model.onnx"] == publisher.release["onnx/model.onnx"]


def test_what_is_neither_a_folder_nor_a_repository_is_one_clear_error(
    capsys: Printed,
) -> None:
    assert main(["page", "no/such/folder"]) == 1
    assert "neither a folder nor organisation/name" in capsys.readouterr().err


def test_a_changed_file_makes_no_space(release: Path, tmp_path: Path) -> None:
    (release / "onnx/model.onnx").write_bytes(b"another graph")
    with pytest.raises(ArtifactError, match="is not what"):
        write_space(release, tmp_path / "space")
    assert not (tmp_path / "space").exists()


def test_a_folder_that_holds_something_is_left_alone(
    release: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="is no empty folder"):
        write_space(release, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


# The runtime


def make_archive(files: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return target.getvalue()


def entry(content: bytes) -> FileEntry:
    return FileEntry(len(content), hashlib.sha256(content).hexdigest())


def pinned(archive: bytes, files: dict[str, bytes]) -> Package:
    digest = base64.b64encode(hashlib.sha512(archive).digest()).decode()
    return Package(
        name="runtime",
        version="1.0.0",
        integrity=f"sha512-{digest}",
        folder="dist",
        files={name: entry(content) for name, content in files.items()},
    )


FILES = {"run.mjs": b"export {}", "run.wasm": b"\0asm"}
ARCHIVE = make_archive({**FILES, "../../escaped": b"never", "unused.js": b"never"})


def test_only_the_pinned_files_of_an_archive_are_unpacked(tmp_path: Path) -> None:
    archive = tmp_path / "runtime-1.0.0.tgz"
    archive.write_bytes(ARCHIVE)
    folder = unpacked(pinned(ARCHIVE, FILES), tmp_path / "cache", archive)
    assert tree(folder) == FILES
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [folder.name]


def test_an_archive_with_another_digest_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "runtime-1.0.0.tgz"
    archive.write_bytes(ARCHIVE + b"\0")
    with pytest.raises(ArtifactError, match="has the integrity"):
        unpacked(pinned(ARCHIVE, FILES), tmp_path / "cache", archive)
    assert not (tmp_path / "cache").exists()


def test_a_cached_file_that_was_changed_is_unpacked_again(tmp_path: Path) -> None:
    archive = tmp_path / "runtime-1.0.0.tgz"
    archive.write_bytes(ARCHIVE)
    package = pinned(ARCHIVE, FILES)
    folder = unpacked(package, tmp_path / "cache", archive)
    (folder / "run.mjs").write_bytes(b"export 1;")
    assert tree(unpacked(package, tmp_path / "cache", archive)) == FILES


def test_the_registry_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetch(package: Package) -> bytes:
        asked.append(package.archive)
        return ARCHIVE

    monkeypatch.setattr(npm, "_fetch", fetch)
    for _ in range(2):
        unpacked(pinned(ARCHIVE, FILES), tmp_path / "cache")
    assert asked == ["runtime-1.0.0.tgz"]


def closed_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


def test_without_a_registry_the_message_names_the_archive_and_the_option(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["page", str(release)]) == 1
    message = capsys.readouterr().err
    assert "onnxruntime-web-" in message
    assert "--runtime" in message


def test_the_cache_is_where_the_user_keeps_caches(tmp_path: Path) -> None:
    given = {"XDG_CACHE_HOME": str(tmp_path)}
    assert cache_folder(given) == tmp_path / "checkpoint-release"
    assert cache_folder({}) == Path("~/.cache/checkpoint-release").expanduser()


def test_what_is_no_release_is_one_clear_error(tmp_path: Path, capsys: Printed) -> None:
    assert main(["page", str(tmp_path)]) == 1
    assert "holds no release.json" in capsys.readouterr().err


# The whole command


@pytest.mark.slow
def test_the_command_prints_its_address_serves_and_ends_with_an_interrupt(
    release: Path,
) -> None:
    command = [sys.executable, "-m", "checkpoint_release", "page", str(release)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # a job in a shell's background ignores interrupts, and so would this one
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            address = re.search(r"http://127\.0\.0\.1:(\d+)/page/", line)
            assert address, line
            pins = json.loads(get(int(address[1]), "/page/runtime.json")[2])
            for name, file in pins["package"]["files"].items():
                content = get(int(address[1]), f"/page/runtime/{name}")[2]
                assert entry(content) == FileEntry(**file)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
        finally:
            process.kill()


def test_the_wheel_holds_every_file_of_the_page() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packaged: set[Path] = set()
    for pattern in pyproject["tool"]["setuptools"]["package-data"][PACKAGE]:
        packaged.update((ROOT / PACKAGE).glob(pattern))
    assert set(page_files().values()) <= packaged
