"""Signed envelopes around in-toto statements (DSSE), and files of them.

A signature is a function of the statement and the key: its nonce is derived by RFC
6979. A random one would make another file on each run, and a publication that was
interrupted could then not be finished. A token draws one all the same; see
earlier_signatures.py.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoint_release.core.artifacts.attestation import STATEMENT_TYPE, Statement
from checkpoint_release.core.artifacts.typed import Record, as_record
from checkpoint_release.core.ecdsa import is_signed
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import REMAKE
from checkpoint_release.core.json_text import MAX_SIZE, JsonError, parse_json
from checkpoint_release.core.signing_keys import SigningKey, fingerprint

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
_IN_A_BUNDLE = "dsseEnvelope"


class _Signature(Record, frozen=True, kw_only=True):
    sig: str
    keyid: str = ""


class _Envelope(Record, frozen=True, kw_only=True):
    payload: str
    payloadType: str  # noqa: N815, the specification's own name
    signatures: list[_Signature]


@dataclass(frozen=True)
class Opened:
    """An envelope that was opened.

    Attributes:
        statement: what it holds.
        signers: fingerprints of the given keys that signed it; without keys, none.
    """

    statement: Statement
    signers: frozenset[str]


def envelope(payload: bytes, key: SigningKey, key_id: str = "") -> dict[str, Any]:
    """A signed envelope around the bytes of a statement.

    Args:
        payload: JSON of an in-toto statement.
        key: what to sign with.
        key_id: which key it is, as a hint; nobody may trust it.

    Raises:
        PublishError: the key can't be used.
    """
    signature = key.sign(signed_bytes(PAYLOAD_TYPE, payload))
    encoded = base64.b64encode(signature).decode()
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"sig": encoded, "keyid": key_id}],
    }


def write_attestation(path: Path, statement: Statement, key: SigningKey) -> None:
    """Sign a statement, and write its envelope on a line of its own.

    Raises:
        PublishError: the key can't be used.
        OSError: the file can't be written.
    """
    payload = json.dumps(statement.to_json(), separators=(",", ":"), sort_keys=True)
    key_id = fingerprint(key.public_key)
    line = json.dumps(
        envelope(payload.encode(), key, key_id), separators=(",", ":"), sort_keys=True
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line + "\n", encoding="utf-8", newline="\n")


def read_attestation(path: Path, keys: Sequence[EllipticCurvePublicKey] = ()) -> Opened:
    """Read the statement in a file of one envelope, and which keys signed it.

    Args:
        path: of the file.
        keys: to check the signatures with.

    Raises:
        ArtifactError: it is missing, or holds no envelope of an in-toto statement.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_SIZE + 1)
    except OSError as error:
        problem = f"{path} can't be read: {error.strerror}"
        raise ArtifactError(problem, REMAKE) from None
    try:
        read = as_record(parse_json(text), _Envelope, str(path))
        payload = base64.b64decode(read.payload, validate=True)
        value = parse_json(payload)
    except JsonError as error:
        raise ArtifactError(f"{path} is {error}", REMAKE) from None
    except (binascii.Error, ValueError):
        raise ArtifactError(f"{path} holds a payload in no base64", REMAKE) from None
    if read.payloadType != PAYLOAD_TYPE:
        problem = f"{path} holds {read.payloadType!r}, not an in-toto statement"
        raise ArtifactError(problem, REMAKE)
    statement = as_record(value, Statement, str(path))
    if statement.type != STATEMENT_TYPE:
        problem = f"{path} holds a statement of the type {statement.type!r}"
        raise ArtifactError(problem, REMAKE)
    signed = signed_bytes(read.payloadType, payload)
    signers = [fingerprint(key) for key in keys if _is_signed(read, signed, key)]
    return Opened(statement, frozenset(signers))


def signatures_in(content: bytes) -> list[tuple[bytes, bytes]]:
    """What was signed, and the signature, of each in an envelope or in a bundle of one.

    Args:
        content: of a file; of one that holds something else, there are none.
    """
    try:
        value = parse_json(content)
        if isinstance(value, dict):
            value = value.get(_IN_A_BUNDLE, value)
        read = as_record(value, _Envelope, "an envelope")
        payload = base64.b64decode(read.payload, validate=True)
        signed = signed_bytes(read.payloadType, payload)
        return [
            (signed, base64.b64decode(each.sig, validate=True))
            for each in read.signatures
        ]
    except (JsonError, ArtifactError, ValueError):
        return []


def _is_signed(read: _Envelope, signed: bytes, key: EllipticCurvePublicKey) -> bool:
    """Whether one of an envelope's signatures is by a key, whatever it says of keys."""
    for each in read.signatures:
        try:
            signature = base64.b64decode(each.sig, validate=True)
        except (binascii.Error, ValueError):
            continue
        if is_signed(signed, signature, key):
            return True
    return False


def signed_bytes(payload_type: str, payload: bytes) -> bytes:
    """What is signed of an envelope: DSSE's pre-authentication encoding."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
