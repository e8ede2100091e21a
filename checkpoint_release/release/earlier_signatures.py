"""Signatures that were given before, for keys that never give the same one twice.

A token draws a random number for each signature. A release that is assembled again, to
finish a publication that was interrupted, must have the same bytes; so the signatures
of the last run, and of what a Hub holds, are used again. Each is checked: it must be
this key's, over exactly what would be signed now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from checkpoint_release.core.artifacts.attestation import PROOF, PROVENANCE
from checkpoint_release.core.artifacts.release import SIGNATURE
from checkpoint_release.core.ecdsa import is_signed
from checkpoint_release.core.signing_keys import SigningKey
from checkpoint_release.release.envelopes import signatures_in

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.x509 import Certificate

SIGNED = (PROVENANCE, PROOF, SIGNATURE)
"""The files of a release that hold signatures."""


class Elsewhere(Protocol):
    """Where else signatures may be."""

    def signed_files(self) -> Iterable[bytes]:
        """The contents of files that hold signatures."""


@dataclass(frozen=True)
class RememberingKey:
    """A key that gives a signature again which it gave before; see SigningKey.

    Attributes:
        key: that signs what is new.
        given: what was signed → its signatures, whoever's they are.
    """

    key: SigningKey
    given: Mapping[bytes, Sequence[bytes]]

    repeats = True

    @property
    def public_key(self) -> EllipticCurvePublicKey:
        """Which goes with it."""
        return self.key.public_key

    @property
    def certificates(self) -> Sequence[Certificate]:
        """The key's own, then those that vouch for it; often none."""
        return self.key.certificates

    def sign(self, data: bytes) -> bytes:
        """The signature, in DER.

        Raises:
            PublishError: the key can't be used.
        """
        for signature in self.given.get(data, ()):
            if is_signed(data, signature, self.public_key):
                return signature
        return self.key.sign(data)


def remembering(
    key: SigningKey, folder: Path, elsewhere: Elsewhere | None
) -> SigningKey:
    """A key that gives the same signature for the same data.

    Args:
        key: that signs.
        folder: of the release that was assembled last, if there is one.
        elsewhere: is asked where the key doesn't do that by itself. None: nobody is.

    Raises:
        PublishError: the Hub can't be asked.
    """
    if key.repeats:
        return key
    contents = [
        (folder / name).read_bytes() for name in SIGNED if (folder / name).is_file()
    ]
    if elsewhere:
        contents += elsewhere.signed_files()
    given: dict[bytes, list[bytes]] = {}
    for content in contents:
        for data, signature in signatures_in(content):
            given.setdefault(data, []).append(signature)
    return RememberingKey(key, given)
