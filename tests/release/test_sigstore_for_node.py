"""Sigstore's verifier for Node accepts a release's signature and attestations.

The packages come from the npm registry, each as its digest pins it; Node is the one
that playwright brings.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import tarfile
import urllib.request
from pathlib import Path

import pytest

from checkpoint_release.core.artifacts.attestation import PROOF, PROVENANCE
from checkpoint_release.core.artifacts.release import SIGNATURE
from checkpoint_release.page.npm import REGISTRY
from checkpoint_release.release.assemble import assemble
from tests.release.test_assemble import make_keys
from tests.release.test_attestations import made
from tests.support.publishing import fake_artifacts

PACKAGES = {
    "bundle-5.0.1": "7q8DOObFzN+/eQrvL2O0cylDp95ssgBCAomQxSYfGAMO9+q4xceRbg0L3L0G2/8NyideoYCs7HuVxWKCdn/maQ==",  # noqa: E501
    "core-4.0.1": "9v5hRjujn5NXq8o7XFEUgLyAtdr5Iisb4pzM05u3K61IS5q3hP3luWAndk0RkPPLTUFoTbg7Vb84UQ1ZQeajWQ==",  # noqa: E501
    "protobuf-specs-0.5.2": "SQqvFMt4V78fdjcDdYX6HbiVSOR4QK3ZgwCa2KOsopAgPIHy1rU5UDUmzLl02r5oyyaYcYHR1hpwDRk/yUe+Mw==",  # noqa: E501
    "verify-4.1.3": "V2ik+fLz2YTZOV4USVnjvLJWDjmBMWi7XhFR8CNp1tj7y09OrogDxPZZdbSWXIA7IpenJTyGukIgF2CFtH/8rA==",  # noqa: E501
}
"""Name and version, below @sigstore → sha512 of the archive in base64."""

SCRIPT = """
const { readFileSync } = require("fs");
const { createPublicKey } = require("crypto");
const { bundleFromJSON } = require("@sigstore/bundle");
const { Verifier, toSignedEntity } = require("@sigstore/verify");
const [path, key] = process.argv.slice(2);
const publicKey = createPublicKey(readFileSync(key));
const known = () => ({ publicKey, validFor: () => true });
const none = { certificateAuthorities: [], timestampAuthorities: [], tlogs: [],
               ctlogs: [], publicKey: known };
const noLog = { tlogThreshold: 0, ctlogThreshold: 0, timestampThreshold: 0 };
const bundle = bundleFromJSON(JSON.parse(readFileSync(path)));
try {
  new Verifier(none, noLog).verify(toSignedEntity(bundle));
  console.log("accepted");
} catch (error) {
  console.log(error.code);
}
"""
VARIABLE = "npm_config_registry"  # npm's own
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A script of Node's, and the packages that it needs beside it."""
    folder = tmp_path_factory.mktemp("node")
    registry = os.environ.get(VARIABLE, REGISTRY).rstrip("/")
    for archive, digest in PACKAGES.items():
        name = archive.rpartition("-")[0]
        address = f"{registry}/@sigstore/{name}/-/{archive}.tgz"
        with urllib.request.urlopen(address, timeout=60) as answer:
            content = answer.read()
        assert base64.b64encode(hashlib.sha512(content).digest()).decode() == digest
        with tarfile.open(fileobj=io.BytesIO(content)) as members:
            members.extractall(folder / archive, filter="data")
        place = folder / "node_modules/@sigstore" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        (folder / archive / "package").rename(place)
    (folder / "verify.js").write_text(SCRIPT)
    return folder / "verify.js"


def verdict(verifier: Path, path: Path, public: Path) -> str:
    """What Sigstore's verifier finds: accepted, or the code of its error."""
    from playwright._impl._driver import compute_driver_executable

    node, _ = compute_driver_executable()
    done = subprocess.run(
        [node, verifier, path, public], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def as_bundle(path: Path) -> dict[str, object]:
    """An envelope in the bundle that Sigstore's tools read; model.sig is one."""
    content = json.loads(path.read_text())
    if path.name == SIGNATURE:
        return dict(content)
    hint = content["signatures"][0]["keyid"]
    material = {"publicKey": {"hint": hint}, "tlogEntries": []}
    return {
        "mediaType": BUNDLE,
        "verificationMaterial": material,
        "dsseEnvelope": content,
    }


@pytest.mark.slow
def test_it_accepts_what_the_key_signed_and_nothing_else(
    verifier: Path, tmp_path: Path
) -> None:
    private, public = make_keys(tmp_path)
    (tmp_path / "other").mkdir()
    _, other = make_keys(tmp_path / "other")
    artifacts = fake_artifacts(tmp_path / "artifacts")
    release = assemble(artifacts, signing_key=private, making=made)
    path = tmp_path / "bundle.json"
    for name in (PROVENANCE, PROOF, SIGNATURE):
        bundle = as_bundle(release / name)
        path.write_text(json.dumps(bundle))
        assert verdict(verifier, path, public) == "accepted", name
        assert verdict(verifier, path, other) == "SIGNATURE_ERROR", name
        envelope = bundle["dsseEnvelope"]
        assert isinstance(envelope, dict)
        payload = base64.b64decode(envelope["payload"]).replace(b"sha256", b"sha255")
        envelope["payload"] = base64.b64encode(payload).decode()
        path.write_text(json.dumps(bundle))
        assert verdict(verifier, path, public) == "SIGNATURE_ERROR", name
