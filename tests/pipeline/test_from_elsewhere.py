"""The recipes for checkpoints that lie elsewhere, against servers on loopback."""

from __future__ import annotations

import functools
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest
import torch
from huggingface_hub import save_torch_state_dict
from moto.server import ThreadedMotoServer
from safetensors.torch import load_file, save_file

from checkpoint_release.models.stick_figure import build
from tests.support.hub_server import HubServer
from tests.support.project import Project
from tests.support.stick_figure import MOTION_ONLY

pytestmark = pytest.mark.slow
WEIGHTS = "artifacts/checkpoint/weights.safetensors"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address under which a web server gives its files."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.fixture
def checkout(tmp_path: Path) -> Project:
    project = Project.checkout(tmp_path / "project")
    shutil.rmtree(project.path / "artifacts/checkpoint", ignore_errors=True)
    return project


def weights(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return dict(build(**MOTION_ONLY).state_dict())


def assert_released(project: Project, expected: dict[str, torch.Tensor]) -> None:
    written = load_file(project.path / WEIGHTS)
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], expected[name]) for name in expected)


def test_a_checkpoint_on_a_web_server_is_imported_and_updated(
    served: tuple[Path, str], checkout: Project
) -> None:
    folder, url = served
    torch.save(weights(0), folder / "mine.pth")
    checkout.dvc("import-url", f"{url}/mine.pth", "checkpoints/mine.pth")
    checkout.set(checkpoint__path="checkpoints/mine.pth")
    checkout.dvc("repro", "load")
    assert_released(checkout, weights(0))
    # what changed there is fetched when it is asked for, and released anew
    torch.save(weights(1), folder / "mine.pth")
    checkout.dvc("update", "checkpoints/mine.pth.dvc")
    assert checkout.ran(checkout.dvc("repro", "load").stdout) == ["load"]
    assert_released(checkout, weights(1))


def test_the_weights_of_a_repository_on_a_hub_are_imported(
    checkout: Project, tmp_path: Path
) -> None:
    save_file(weights(0), tmp_path / "model.safetensors")
    with HubServer() as hub:
        repo = hub.hub.create("ada/model", private=False)
        content = (tmp_path / "model.safetensors").read_bytes()
        repo.edit({"model.safetensors": content})
        revision = repo.history()[0].oid
        url = f"{hub.url}/ada/model/resolve/{revision}/model.safetensors"
        checkout.dvc("import-url", url, "checkpoints/mine.safetensors")
    checkout.set(checkpoint__path="checkpoints/mine.safetensors")
    checkout.dvc("repro", "load")
    assert_released(checkout, weights(0))


def test_a_folder_in_an_object_store_is_imported(
    checkout: Project, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    save_torch_state_dict(weights(0), folder, max_shard_size=30_000)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    secrets = {
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    store = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id="nobody",
        aws_secret_access_key="nothing",
        region_name="us-east-1",
    )
    try:
        store.create_bucket(Bucket="runs")
        for file in folder.iterdir():
            store.upload_file(str(file), "runs", f"mine/{file.name}")
        checkout.dvc("remote", "add", "store", "s3://runs")
        checkout.dvc("remote", "modify", "store", "endpointurl", endpoint)
        checkout.dvc(
            "import-url", "remote://store/mine", "checkpoints/run", environment=secrets
        )
    finally:
        server.stop()
    checkout.set(checkpoint__path="checkpoints/run")
    checkout.dvc("repro", "load")
    assert_released(checkout, weights(0))
