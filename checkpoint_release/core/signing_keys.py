"""Keys that sign a release: ECDSA over P-256, P-384 or P-521, in PEM."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from checkpoint_release.core.errors import PublishError, one_line

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )
    from cryptography.x509 import Certificate

SIGNING_KEY = "publish.signing_key"
"""The option that names the private key."""
_LINE = "sha256 of the public key (DER): "
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_PRIVATE_HINT = (
    "name an ECDSA private key in PEM without a password: openssl ecparam -name"
    " prime256v1 -genkey -noout -out key.pem"
)
_PUBLIC_HINT = (
    "name the publisher's ECDSA public key in PEM, as openssl ec -in key.pem -pubout"
    " writes it"
)


_NO_FILES = {
    "pkcs11:": "a key in hardware (PKCS#11)",
    "keyless": "a signature without a key (Sigstore)",
    "sigstore": "a signature without a key (Sigstore)",
}
"""What the option may mean that names no file."""


def _require_file(path: Path, option: str) -> None:
    """Refuse what is no file, and isn't offered.

    Raises:
        PublishError: it is such a thing.
    """
    for prefix, what in _NO_FILES.items():
        if str(path).startswith(prefix) and not path.exists():
            raise PublishError(
                f"{{{option}}} asks for {what}, which isn't offered: its random part"
                " would make another file on each run, and a publication that was"
                " interrupted could not be finished",
                f"{_PRIVATE_HINT}; what else can sign a release is in docs/trust.md",
                options=[option],
            )


def load_private_key(path: Path, option: str = SIGNING_KEY) -> EllipticCurvePrivateKey:
    """Read a private key.

    Args:
        path: PEM file, without a password.
        option: that names it, for messages.

    Raises:
        PublishError: it is missing, or no such key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    _require_file(path, option)
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError:
        remedy = "name a private key, or null"
        raise _unusable(path, option, "is missing", remedy) from None
    except OSError as error:
        raise _unusable(path, option, f"can't be read: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        problem = f"can't be used: {one_line(error)}"
        raise _unusable(path, option, problem) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _unusable(path, option, "is not an ECDSA key")
    if key.curve.name not in _CURVES:
        raise _unusable(path, option, f"is a key over {key.curve.name}")
    return key


def load_public_key(path: Path) -> EllipticCurvePublicKey:
    """Read a public key.

    Args:
        path: PEM file.

    Raises:
        PublishError: it is missing, or no such key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        problem = f"{path} can't be read: {error.strerror}"
        raise PublishError(problem, _PUBLIC_HINT) from None
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        problem = f"{path} is no public key: {one_line(error)}"
        raise PublishError(problem, _PUBLIC_HINT) from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise PublishError(f"{path} is not an ECDSA key", _PUBLIC_HINT)
    if key.curve.name not in _CURVES:
        problem = f"{path} is a key over {key.curve.name}"
        raise PublishError(problem, _PUBLIC_HINT)
    return key


def fingerprint(key: EllipticCurvePublicKey) -> str:
    """The sha256 of a public key's DER, in lower-case hex.

    `openssl pkey -pubin -in KEY -outform DER | sha256sum` prints the same.
    """
    from cryptography.hazmat.primitives import serialization

    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()


def fingerprint_line(digest: str) -> str:
    """The line in which a model card names the key that signs its release.

    Args:
        digest: as fingerprint returns it.
    """
    return f"{_LINE}`{digest}`"


def named_fingerprint(card: str) -> str | None:
    """The fingerprint of the key that a model card names; None: it names none.

    Args:
        card: its text.
    """
    for line in card.splitlines():
        if line.startswith(_LINE):
            return line.removeprefix(_LINE).strip("`")
    return None


@dataclass(frozen=True)
class Signer:
    """Who will sign a release.

    Attributes:
        fingerprint: of the public key.
        certified: whether certificates go with the key.
    """

    fingerprint: str
    certified: bool

    @classmethod
    def of(cls, path: Path) -> Self:
        """Who signs with a private key.

        Raises:
            PublishError: the key is missing, or no such key; or the first certificate
                with it is another key's.
        """
        key = load_private_key(path).public_key()
        certificates = load_certificates(path)
        if certificates and certificates[0].public_key() != key:
            problem = "begins its certificates with that of another key"
            remedy = "put the key's own first, and then those that vouch for it"
            raise _unusable(path, SIGNING_KEY, problem, remedy)
        return cls(fingerprint(key), bool(certificates))


def load_certificates(path: Path) -> list[Certificate]:
    """The certificates in a PEM file, beside keys or alone; none where it has none.

    Raises:
        PublishError: the file can't be read, or a certificate in it.
    """
    from cryptography import x509

    try:
        content = path.read_bytes()
    except OSError as error:
        problem = f"{path} can't be read: {error.strerror}"
        raise PublishError(problem, _PUBLIC_HINT) from None
    if b"-----BEGIN CERTIFICATE-----" not in content:
        return []
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        problem = f"{path} holds a broken certificate: {one_line(error)}"
        raise PublishError(problem, "name a PEM file with whole ones") from None


def _unusable(
    path: Path, option: str, what: str, remedy: str = _PRIVATE_HINT
) -> PublishError:
    return PublishError(f"{{{option}}}: {path} {what}", remedy, options=[option])
