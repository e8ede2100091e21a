"""Two papers that can go with a release: a bill of materials (CycloneDX) and a
signature (OpenSSF model signing).

Both are written by the libraries made for it, and both are the same bytes for the same
release: those libraries would put in the time, random numbers and the order of a hash
table.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checkpoint_release.core.errors import PublishError
from checkpoint_release.core.files import FileEntry

SIGNATURE = "model.sig"
SBOM = "sbom.cdx.json"

_NAMESPACE = uuid.UUID("d6c3ab2e-6d0f-5a55-8f0b-6f1f6f0f9a61")
"""Of the serial numbers, which are made from the release's digest."""


def write_sbom(
    path: Path, files: Mapping[str, FileEntry], packages: Mapping[str, str]
) -> None:
    """Write a CycloneDX 1.6 bill of materials: the model's files, and the packages that
    made them.

    Args:
        path: where to.
        files: path in the release → size and sha256.
        packages: name of a Python package → version.
    """
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    digest = "".join(
        f"{entry.sha256}  {name}\n" for name, entry in sorted(files.items())
    )
    bom = Bom(serial_number=uuid.uuid5(_NAMESPACE, digest))
    bom.metadata.timestamp = None  # type: ignore[assignment]
    bom.metadata.component = Component(
        name="release", type=ComponentType.MACHINE_LEARNING_MODEL, bom_ref="release"
    )
    for name, entry in sorted(files.items()):
        bom.components.add(
            Component(
                name=name,
                type=ComponentType.FILE,
                bom_ref=f"file:{name}",
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=entry.sha256)],
                properties=[Property(name="size", value=str(entry.size))],
            )
        )
    for name, version in sorted(packages.items()):
        url = PackageURL("pypi", name=name, version=version)
        bom.components.add(
            Component(
                name=name,
                version=version,
                type=ComponentType.LIBRARY,
                bom_ref=str(url),
                purl=url,
            )
        )
    bom.register_dependency(
        bom.metadata.component, [part for part in bom.components if part.purl]
    )
    path.write_text(JsonV1Dot6(bom).output_as_string(indent=2) + "\n", encoding="utf-8")


def sign(folder: Path, key: Path, ignored: frozenset[str] = frozenset()) -> None:
    """Sign every file of a folder, in model.sig beside them (OpenSSF Model Signing
    v1.0, a sigstore bundle).

    Verify with `model_signing verify key FOLDER --signature FOLDER/model.sig
    --public_key KEY.pub`.

    Args:
        folder: what to sign.
        key: private key in PEM: ECDSA over P-256, P-384 or P-521, without a password.
        ignored: files that the signature doesn't speak for.

    Raises:
        PublishError: the key can't be used.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from google.protobuf import json_format  # type: ignore[import-untyped]
    from model_signing import hashing
    from model_signing._signing import sign_ec_key, sign_sigstore_pb, signing
    from sigstore_models import intoto
    from sigstore_models.bundle import v1 as bundle

    class ReproducibleSigner(sign_ec_key.Signer):
        """model-signing's signer, but with sorted JSON and the nonce of RFC 6979: the
        same release, the same bytes.
        """

        def sign(self, payload: signing.Payload) -> signing.Signature:
            value: dict[str, Any] = json_format.MessageToDict(payload.statement.pb)
            value["subject"][0]["name"] = "release"  # otherwise the name of the folder
            value["predicate"]["serialization"]["ignore_paths"].sort()
            raw = json.dumps(value, indent=2, sort_keys=True).encode()
            key: Any = self._private_key
            algorithm = ec.ECDSA(
                sign_ec_key.get_ec_key_hash(key.public_key()),
                deterministic_signing=True,
            )
            signed = key.sign(sign_sigstore_pb.pae(raw), algorithm)
            envelope = intoto.Envelope(
                payload=base64.b64encode(raw),
                payload_type=signing._IN_TOTO_JSON_PAYLOAD_TYPE,
                signatures=[intoto.Signature(sig=base64.b64encode(signed), keyid="")],
            )
            return sign_sigstore_pb.Signature(
                bundle.Bundle(
                    media_type=sign_sigstore_pb._BUNDLE_MEDIA_TYPE,  # type: ignore[arg-type]
                    verification_material=self._get_verification_material(),
                    dsse_envelope=envelope,
                )
            )

    try:
        signer = ReproducibleSigner(key)
    except FileNotFoundError:
        raise PublishError(
            f"publish.signing_key: {key} is missing",
            "name a private key, or set it to null",
        ) from None
    except (ValueError, TypeError, AttributeError) as error:
        raise PublishError(
            f"publish.signing_key: {key} can't be used: {error}",
            "name an ECDSA private key in PEM without a password: "
            "openssl ecparam -name prime256v1 -genkey -noout -out key.pem",
        ) from None
    paths = [SIGNATURE, *sorted(ignored)]
    config = hashing.Config().set_ignored_paths(paths=paths, ignore_git_paths=True)  # type: ignore[no-untyped-call]
    signer.sign(signing.Payload(config.hash(folder))).write(folder / SIGNATURE)


def check_signature(folder: Path, key: Path) -> str | None:
    """Check model.sig with a public key; returns what is wrong, or None."""
    from model_signing import verifying

    try:
        config = verifying.Config()  # type: ignore[no-untyped-call]
        verifier = config.use_elliptic_key_verifier(public_key=key)
        verifier.verify(folder, folder / SIGNATURE)
    except Exception as error:
        # the library raises whatever a broken bundle leads it to
        return f"{type(error).__name__}: {error}"
    return None
