"""The signature scheme of releases: ECDSA over P-256, P-384 or P-521, each with the
hash that goes with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        ECDSA,
        EllipticCurve,
        EllipticCurvePublicKey,
    )
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

CURVES = ("secp256r1", "secp384r1", "secp521r1")


def algorithm(curve: EllipticCurve) -> ECDSA:
    """ECDSA with the hash that goes with a curve.

    A private key in memory derives its nonce (RFC 6979), so that the same data has the
    same signature.

    Args:
        curve: one of CURVES.
    """
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.ECDSA(hash_of(curve), deterministic_signing=True)


def hash_of(curve: EllipticCurve) -> HashAlgorithm:
    """The hash that goes with a curve, one of CURVES."""
    from cryptography.hazmat.primitives import hashes

    digests = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
    return digests[curve.key_size]


def is_signed(data: bytes, signature: bytes, key: EllipticCurvePublicKey) -> bool:
    """Whether a key gave a signature, in DER, over data."""
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, data, algorithm(key.curve))
    except (InvalidSignature, ValueError):
        return False
    return True
