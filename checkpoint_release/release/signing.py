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
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoint_release.core.artifacts.attestation import STATEMENT_TYPE
from checkpoint_release.core.artifacts.release import SIGNATURE
from checkpoint_release.core.errors import (
    ArtifactError,
    CheckpointReleaseError,
    PublishError,
    one_line,
)
from checkpoint_release.core.files import read_json
from checkpoint_release.core.signing_keys import (
    SigningKey,
    load_certificates,
    load_public_key,
)
from checkpoint_release.release.envelopes import envelope

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from model_signing.manifest import Manifest

PREDICATE_TYPE = "https://model_signing/signature/v1.0"
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def sign(folder: Path, key: SigningKey, ignored: Iterable[str] = ()) -> None:
    """Sign every file of a folder, in model.sig beside them.

    Verify with `model_signing verify key FOLDER --signature FOLDER/model.sig
    --public_key KEY.pub`.

    Args:
        folder: what to sign.
        key: to sign with; its certificates go into the signature.
        ignored: files that the signature does not cover.

    Raises:
        PublishError: the key can't be used.
    """
    from model_signing import hashing

    config = hashing.Config().set_ignored_paths(  # type: ignore[no-untyped-call]
        paths=[SIGNATURE, *sorted(ignored)], ignore_git_paths=True
    )
    payload = json.dumps(_statement(config.hash(folder)), indent=2, sort_keys=True)
    bundle = _signed_bundle(payload.encode(), key)
    (folder / SIGNATURE).write_text(
        json.dumps(bundle, separators=(",", ":")), encoding="utf-8"
    )


def check_signature(folder: Path, key: Path) -> str | None:
    """Check model.sig with a public key, or with certificates that vouch for its own.

    Args:
        folder: a release that is what its release.json lists.
        key: PEM file, of a public key or of root certificates.

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
        certified = bool(_chain(folder))
        if load_certificates(key):
            if not certified:
                return f"it holds no certificate that {key.name} could vouch for"
            verifier = config.use_certificate_verifier(certificate_chain=[key])
        elif certified:
            return "it is by a certificate; name the root certificate in place of a key"
        elif _is_by_another(folder, load_public_key(key)):
            return f"it is by another key than {key.name}"
        else:
            verifier = config.use_elliptic_key_verifier(public_key=key)
        verifier.verify(folder, folder / SIGNATURE)
    except CheckpointReleaseError as error:
        return error.problem
    except Exception as error:
        # the library raises whatever a broken bundle leads it to
        return one_line(error) or f"it can't be checked ({type(error).__name__})"
    return None


def require_public(key: Path) -> None:
    """Require a file that signatures can be checked with.

    Args:
        key: PEM file, of a public key or of root certificates.

    Raises:
        PublishError: it is none.
    """
    if not load_certificates(key):
        load_public_key(key)


def signer_key(folder: Path, key: Path) -> EllipticCurvePublicKey:
    """The public key that signed a release.

    Args:
        folder: a release, whose signature holds by check_signature.
        key: PEM file, of a public key or of root certificates.

    Raises:
        PublishError: it can't be read.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    if not load_certificates(key):
        return load_public_key(key)
    chain = _chain(folder)
    public_key = (
        x509.load_der_x509_certificate(chain[0]).public_key() if chain else None
    )
    if not isinstance(public_key, ec.EllipticCurvePublicKey):
        raise PublishError(f"{folder / SIGNATURE} holds no certificate of an ECDSA key")
    return public_key


def _chain(folder: Path) -> list[bytes]:
    """The certificates in a release's signature, in DER, the signer's own first.

    Raises:
        PublishError: the signature isn't a bundle.
    """
    with _reading_bundle():
        chain = _material(folder).get("x509CertificateChain") or {}
        listed = chain.get("certificates") or []
        return [base64.b64decode(each["rawBytes"]) for each in listed]


def _is_by_another(folder: Path, key: EllipticCurvePublicKey) -> bool:
    """Whether a release's signature hints at another key; without a hint, it doesn't.

    Raises:
        PublishError: the signature isn't a bundle.
    """
    with _reading_bundle():
        public_key = _material(folder).get("publicKey") or {}
        hint = public_key.get("hint")
    return bool(hint) and hint != _hint(key)


def _material(folder: Path) -> dict[str, Any]:
    """What a release's signature says of the key that it is by."""
    material: dict[str, Any] = read_json(folder / SIGNATURE)["verificationMaterial"]
    return material


@contextmanager
def _reading_bundle() -> Iterator[None]:
    """Report what can't be read in a signature.

    Raises:
        PublishError: it isn't a bundle.
    """
    try:
        yield
    except (ArtifactError, KeyError, TypeError, AttributeError, ValueError) as error:
        problem = f"{SIGNATURE} is no signature: {one_line(error)}"
        raise PublishError(problem) from None


def _hint(key: EllipticCurvePublicKey) -> str:
    """What a signature names a key by: the sha256 of its PEM."""
    from cryptography.hazmat.primitives import serialization

    pem = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(pem).hexdigest()


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


def _signed_bundle(payload: bytes, key: SigningKey) -> dict[str, Any]:
    """A sigstore bundle around the payload, with the certificates that go with the key,
    or a hint which key it is.
    """
    from cryptography.hazmat.primitives import serialization

    material: dict[str, Any] = {"tlogEntries": []}
    if key.certificates:
        chain = []
        for certificate in key.certificates:
            der = certificate.public_bytes(serialization.Encoding.DER)
            chain.append({"rawBytes": base64.b64encode(der).decode()})
        material["x509CertificateChain"] = {"certificates": chain}
    else:
        material["publicKey"] = {"hint": _hint(key.public_key)}
    return {
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": material,
        "dsseEnvelope": envelope(payload, key),
    }
