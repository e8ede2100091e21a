"""The signature that can go with a release: OpenSSF Model Signing v1.0.

The signature is a function of the release and the key. model-signing's own signer draws
a nonce, so that each run would make another model.sig; a publication that was
interrupted could then not be finished, because the version on the Hub would hold
another file. So the release is hashed and verified by model-signing, and the envelope
around its digests is written here, by the specifications:

- https://github.com/ossf/model-signing-spec (the statement and its predicate)
- https://github.com/secure-systems-lab/dsse (the envelope, and what is signed of it)
- https://github.com/sigstore/protobuf-specs (the bundle, version 0.3)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoint_release.core.artifacts.attestation import STATEMENT_TYPE
from checkpoint_release.core.artifacts.release import SIGNATURE
from checkpoint_release.core.signing_keys import load_private_key
from checkpoint_release.release.envelopes import envelope

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from model_signing.manifest import Manifest

PREDICATE_TYPE = "https://model_signing/signature/v1.0"
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def sign(folder: Path, key: Path, ignored: Iterable[str] = ()) -> None:
    """Sign every file of a folder, in model.sig beside them.

    Verify with `model_signing verify key FOLDER --signature FOLDER/model.sig
    --public_key KEY.pub`.

    Args:
        folder: what to sign.
        key: private key in PEM: ECDSA over P-256, P-384 or P-521, without a password.
        ignored: files that the signature does not cover.

    Raises:
        PublishError: the key can't be used.
    """
    from model_signing import hashing

    private_key = load_private_key(key)
    config = hashing.Config().set_ignored_paths(  # type: ignore[no-untyped-call]
        paths=[SIGNATURE, *sorted(ignored)], ignore_git_paths=True
    )
    payload = json.dumps(_statement(config.hash(folder)), indent=2, sort_keys=True)
    bundle = _signed_bundle(payload.encode(), private_key)
    (folder / SIGNATURE).write_text(
        json.dumps(bundle, separators=(",", ":")), encoding="utf-8"
    )


def check_signature(folder: Path, key: Path) -> str | None:
    """Check model.sig with a public key.

    Args:
        folder: a release that is what its release.json lists.
        key: PEM file.

    Returns:
        What is wrong, or None.
    """
    from model_signing import hashing, verifying

    try:
        # Links to whole files, as in the Hub client's cache, are files, and what isn't
        # signed isn't this check's: `differences` holds all that is there against
        # release.json, which is signed.
        hashing_config = hashing.Config().set_ignored_paths(  # type: ignore[no-untyped-call]
            paths=[SIGNATURE], ignore_git_paths=True
        )
        hashing_config.set_allow_symlinks(True)
        config = verifying.Config()  # type: ignore[no-untyped-call]
        config.set_hashing_config(hashing_config)
        config.set_ignore_unsigned_files(True)
        verifier = config.use_elliptic_key_verifier(public_key=key)
        verifier.verify(folder, folder / SIGNATURE)
    except Exception as error:
        # the library raises whatever a broken bundle leads it to
        return f"{type(error).__name__}: {error}"
    return None


def _statement(manifest: Manifest) -> dict[str, Any]:
    """The in-toto statement to sign: the digest of every file, and one of all."""
    resources = []
    root = hashlib.sha256()
    for file in manifest.resource_descriptors():
        resources.append(
            {
                "name": file.identifier,
                "algorithm": file.digest.algorithm,
                "digest": file.digest.digest_hex,
            }
        )
        root.update(file.digest.digest_value)
    serialization = dict(manifest.serialization_type)
    serialization["ignore_paths"] = sorted(serialization["ignore_paths"])
    return {
        "_type": STATEMENT_TYPE,
        # not the folder's name, which is another on another machine
        "subject": [{"name": "release", "digest": {"sha256": root.hexdigest()}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {"serialization": serialization, "resources": resources},
    }


def _signed_bundle(payload: bytes, key: EllipticCurvePrivateKey) -> dict[str, Any]:
    """A sigstore bundle around the payload."""
    from cryptography.hazmat.primitives import serialization

    public_key = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return {
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": {
            "publicKey": {"hint": hashlib.sha256(public_key).hexdigest()},
            "tlogEntries": [],
        },
        "dsseEnvelope": envelope(payload, key),
    }
