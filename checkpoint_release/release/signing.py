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

import base64
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoint_release.core.artifacts.release import SIGNATURE
from checkpoint_release.core.errors import PublishError, one_line

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from model_signing.manifest import Manifest

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"

_KEY_HINT = (
    "name an ECDSA private key in PEM without a password: openssl ecparam -name"
    " prime256v1 -genkey -noout -out key.pem"
)


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

    private_key = _load_key(key)
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


def _load_key(path: Path) -> EllipticCurvePrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError:
        raise _unusable(path, "is missing", "name a private key, or null") from None
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _unusable(path, f"can't be used: {one_line(error)}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _unusable(path, "is not an ECDSA key")
    if key.curve.name not in ("secp256r1", "secp384r1", "secp521r1"):
        raise _unusable(path, f"is a key over {key.curve.name}")
    return key


def _unusable(path: Path, what: str, remedy: str = _KEY_HINT) -> PublishError:
    return PublishError(
        f"{{publish.signing_key}}: {path} {what}",
        remedy,
        options=["publish.signing_key"],
    )


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
    """A sigstore bundle around the payload, with a nonce derived by RFC 6979."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    digests = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
    algorithm = ec.ECDSA(digests[key.curve.key_size], deterministic_signing=True)
    preamble = f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} "
    signature = key.sign(preamble.encode() + payload, algorithm)
    public_key = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return {
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": {
            "publicKey": {"hint": hashlib.sha256(public_key).hexdigest()},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
