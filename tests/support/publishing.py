"""A small set of artifacts with true manifests, and the publish stage driven against a
Hub on loopback.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save, save_file

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.manifest import Manifest, write_manifest
from checkpoint_release.core.artifacts.receipt import RECEIPT, Receipt, Statement
from checkpoint_release.core.artifacts.release import CARD as CARD_FILE
from checkpoint_release.core.artifacts.typed import read_record
from checkpoint_release.core.files import FileEntry
from checkpoint_release.core.params import PublishParams, parse_section
from checkpoint_release.core.signature import Signature, TensorSpec
from checkpoint_release.release.hub import Hub
from checkpoint_release.release.tokens import TokenSource
from pipeline.publish import publish
from tests.support.checkpoint_folder import write_checkpoint
from tests.support.hub_server import HubServer, Repo
from tests.support.parity_json import write_parity
from tests.support.project import tree

SENDING = "ignore:Use 'content=:DeprecationWarning"
"""huggingface_hub sends files in a way that its own HTTP library calls deprecated."""
TOKEN = "hf_aVerySecretTokenForTests"
REPO = "ada/stick"
PARAMS: dict[str, Any] = {
    "repo_id": REPO,
    "revision": "main",
    "private": True,
    "version": "v1.0.0",
    "create_pr": False,
    "dry_run": False,
    "card": "replace",
    "extra": "extra",
    "page": False,
    "space": None,
    "delete": [],
    "timeout": 20.0,
    "patience": 600.0,
    "transfer": "lfs",
    "sbom": False,
    "signing_key": None,
}
ARCHITECTURE = Architecture(
    "net:build",
    {},
    Signature((TensorSpec("x", shape=(1, 2)),), (TensorSpec("y", shape=(1, 2)),), {}),
)
CARD = "---\nlicense: mit\n---\n# A stick figure\n"


def write_artifact(
    folder: Path,
    format: str,
    files: dict[str, bytes],
    *,
    enabled: bool = True,
    facts: dict[str, Any] | None = None,
) -> Manifest:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    folder.mkdir(parents=True, exist_ok=True)
    return write_manifest(folder, format, enabled=enabled, facts=facts)


def weights_file(weights: bytes) -> bytes:
    """A safetensors file of one tensor, which holds these bytes."""
    return save({"weight": np.frombuffer(weights, np.uint8)})


def fake_artifacts(
    artifacts: Path,
    *,
    weights: bytes = b"weights",
    onnx: bool = True,
    card: str = CARD,
    more: dict[str, bytes] | None = None,
    facts: dict[str, Any] | None = None,
) -> Path:
    """Everything that publish takes, small and with true digests; no model in it.

    `more` are further files beside the weights, and `facts` those of the graph.
    """
    files = {"model.safetensors": weights_file(weights), "config.json": b"{}\n"}
    write_artifact(artifacts / "safetensors", "safetensors", files | (more or {}))
    graph = {"model.onnx": b"graph of " + weights, "config.json": b"{}\n"}
    write_artifact(
        artifacts / "onnx", "onnx", graph if onnx else {}, enabled=onnx, facts=facts
    )
    write_artifact(
        artifacts / "torchscript", "torchscript", {"model.pt": b"script of " + weights}
    )
    write_artifact(artifacts / "torch_export", "torch_export", {}, enabled=False)
    write_checkpoint(artifacts / "checkpoint", ARCHITECTURE, {"w": np.ones(2, "f4")})
    sample = artifacts / "parity/sample"
    sample.mkdir(parents=True, exist_ok=True)
    save_file({"x": np.zeros((1, 2), np.float32)}, sample / "inputs.safetensors")
    save_file({"y": np.ones((1, 2), np.float32)}, sample / "outputs.safetensors")
    write_manifest(artifacts / "parity", "parity")
    write_artifact(artifacts / "model-card", "model-card", {CARD_FILE: card.encode()})
    write_parity(artifacts)
    return artifacts


@dataclass
class Publisher:
    """Someone who publishes: artifacts, a Hub and params.yaml's publish section."""

    hub: HubServer
    artifacts: Path
    slept: list[float] = field(default_factory=list)
    deletable: list[str] = field(default_factory=list)

    def publish(
        self,
        *,
        token: str | TokenSource = TOKEN,
        hub: Callable[..., Hub] = Hub,
        dropped: Sequence[str] = (),
        **params: Any,
    ) -> None:
        """Run the stage; it leaves a receipt, or a statement that nothing happened."""

        def connect(asked: PublishParams) -> Hub:
            return hub(
                self.hub.url,
                token,
                timeout=asked.timeout,
                patience=asked.patience,
                sleep=self.slept.append,
            )

        publish(
            parse_section(PublishParams, PARAMS | {"delete": self.deletable} | params),
            self.artifacts,
            connect,
            dropped,
        )

    @property
    def receipt(self) -> Receipt:
        return read_record(self.receipt_path, Receipt)

    @property
    def statement(self) -> Statement:
        return read_record(self.receipt_path, Statement)

    @property
    def receipt_path(self) -> Path:
        return self.artifacts / RECEIPT

    @property
    def receipt_text(self) -> str | None:
        """The content of publish.json; None where there is none."""
        path = self.receipt_path
        return path.read_text() if path.exists() else None

    @property
    def repo(self) -> Repo:
        return self.hub.repo(REPO)

    @property
    def release(self) -> dict[str, bytes]:
        """The files of artifacts/release."""
        return tree(self.artifacts / "release")

    def on_hub(self, revision: str = "main") -> dict[str, bytes]:
        """The files on the Hub, without the one that the Hub makes itself."""
        return {
            name: content
            for name, content in self.repo.files(revision).items()
            if name != ".gitattributes"
        }

    def titles(self, revision: str = "main") -> list[str]:
        return [commit.title for commit in self.repo.history(revision)]

    def require_published(
        self, *, version: str | None = "v1.0.0", releases: int = 1
    ) -> None:
        """The Hub holds exactly the release, once, with one tag; and the receipt states
        exactly that.
        """
        assert self.on_hub() == self.release
        assert len(self.titles()) == releases + 1, self.titles()
        head = self.repo.branches["main"]
        if version:
            assert self.repo.tags[version] == head
        assert len(self.repo.tags) == (releases if version else 0)
        receipt = self.receipt
        assert receipt.published is True and receipt.pull_request is None
        assert (receipt.commit, receipt.tag) == (head, version)
        assert (receipt.repo, receipt.endpoint) == (REPO, self.hub.url)
        release = self.artifacts / "release"
        assert receipt.files == {
            name: FileEntry.of(release / name) for name in self.release
        }
