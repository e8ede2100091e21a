"""Keys that sign a release, in a file (PEM) or on a token (PKCS#11): ECDSA over P-256,
P-384 or P-521.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from checkpoint_release.core.ecdsa import CURVES, algorithm
from checkpoint_release.core.errors import PublishError, one_line
from checkpoint_release.core.key_uri import is_key_uri, parse_key_uri
from checkpoint_release.core.token_keys import open_token_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )
    from cryptography.x509 import Certificate

SIGNING_KEY = "publish.signing_key"
"""The option that names the private key."""
_LINE = "sha256 of the public key (DER): "
_PRIVATE_HINT = (
    "name an ECDSA private key in PEM without a password: openssl ecparam -name"
    " prime256v1 -genkey -noout -out key.pem"
)
_PUBLIC_HINT = (
    "name the publisher's ECDSA public key in PEM, as openssl ec -in key.pem -pubout"
    " writes it"
)


_KEYLESS = ("keyless", "sigstore")
"""What the option may mean that names no key."""


class SigningKey(Protocol):
    """A private key that signs.

    Attributes:
        public_key: which goes with it.
        certificates: the key's own, then those that vouch for it; often none.
        repeats: whether the same data has the same signature.
    """

    @property
    def public_key(self) -> EllipticCurvePublicKey:
        """See above."""

    @property
    def certificates(self) -> Sequence[Certificate]:
        """See above."""

    @property
    def repeats(self) -> bool:
        """See above."""

    def sign(self, data: bytes) -> bytes:
        """The signature, in DER.

        Raises:
            PublishError: the key can't be used.
        """


@dataclass(frozen=True)
class FileKey:
    """A private key that was read from a file; see SigningKey."""

    private_key: EllipticCurvePrivateKey
    certificates: Sequence[Certificate]

    repeats = True

    @property
    def public_key(self) -> EllipticCurvePublicKey:
        """Which goes with it."""
        return self.private_key.public_key()

    def sign(self, data: bytes) -> bytes:
        """The signature, in DER."""
        return self.private_key.sign(data, algorithm(self.private_key.curve))


def load_signing_key(named: str | Path, option: str = SIGNING_KEY) -> SigningKey:
    """Read a private key, or find it on a token.

    Args:
        named: a PEM file without a password, or a pkcs11: URI. Certificates in the
            file go with the key, its own first.
        option: that names it, for messages.

    Raises:
        PublishError: it is missing, or no such key; or its certificate is another
            key's.
        MissingLibraryError: a token needs python-pkcs11.
    """
    text = str(named)
    if text in _KEYLESS and not Path(text).exists():
        raise PublishError(
            f"{{{option}}} asks for a signature without a key (Sigstore), which isn't"
            " offered: it needs Sigstore's log in reach, and a key of its own for each"
            " run, so that a publication that was interrupted could not be finished",
            f"{_PRIVATE_HINT}; what else can sign a release is in docs/trust.md",
            options=[option],
        )
    if not is_key_uri(text):
        return _load_file(Path(named), option)
    uri = parse_key_uri(text, option)
    key = open_token_key(uri)
    if key.public_key.curve.name not in CURVES:
        problem = f"is a key over {key.public_key.curve.name}"
        raise uri.unusable(problem, f"name one over {', '.join(CURVES)}")
    return key


def _load_file(path: Path, option: str) -> FileKey:
    """Read a private key and its certificates; see load_signing_key."""
    private_key = _load_private_key(path, option)
    key = FileKey(private_key, load_certificates(path))
    if key.certificates and key.certificates[0].public_key() != key.public_key:
        problem = "begins its certificates with that of another key"
        remedy = "put the key's own first, and then those that vouch for it"
        raise _unusable(path, option, problem, remedy)
    return key


def _load_private_key(path: Path, option: str) -> EllipticCurvePrivateKey:
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

    content = b""
    try:
        content = path.read_bytes()
        key = load_pem_private_key(content, password=None)
    except FileNotFoundError:
        remedy = "name a private key, or null"
        raise _unusable(path, option, "is missing", remedy) from None
    except OSError as error:
        raise _unusable(path, option, f"can't be read: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        problem = f"can't be used: {one_line(error)}"
        if b"PUBLIC KEY-----" in content:
            problem = "is a public key, which can't sign"
        raise _unusable(path, option, problem) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _unusable(path, option, "is not an ECDSA key")
    if key.curve.name not in CURVES:
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
        content = path.read_bytes()
        key = load_pem_public_key(content)
    except OSError as error:
        problem = f"{path} can't be read: {error.strerror}"
        raise PublishError(problem, _PUBLIC_HINT) from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        is_private = b"PRIVATE KEY-----" in content
        what = "a private key" if is_private else "no public key in PEM"
        raise PublishError(f"{path} is {what}", _PUBLIC_HINT) from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise PublishError(f"{path} is not an ECDSA key", _PUBLIC_HINT)
    if key.curve.name not in CURVES:
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
    def of(cls, named: str | Path) -> Self:
        """Who signs with a private key; see load_signing_key."""
        key = load_signing_key(named)
        return cls(fingerprint(key.public_key), bool(key.certificates))


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
