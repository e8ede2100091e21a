"""Keys that never leave a token (PKCS#11): a smart card, a hardware security module.

The token signs digests. It draws a random number for each, so that no two signatures
are the same; release.earlier_signatures uses one again that was given before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from checkpoint_release.core.ecdsa import hash_of, is_signed
from checkpoint_release.core.errors import MissingLibraryError, PublishError, one_line
from checkpoint_release.core.key_uri import PIN_VARIABLE, KeyUri

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.x509 import Certificate
    from pkcs11 import Session, Token

_LIST = "pkcs11-tool --module LIBRARY --list-objects prints what is there"


@dataclass(frozen=True)
class TokenKey:
    """A private key on a token; see signing_keys.SigningKey.

    Attributes:
        uri: where it is.
        public_key: which goes with it.
        certificates: the key's own, then those that vouch for it; often none.
        object_id: of the key on the token; empty: it has none.
    """

    uri: KeyUri
    public_key: EllipticCurvePublicKey
    certificates: Sequence[Certificate]
    object_id: bytes

    repeats = False
    """Whether the same data has the same signature."""

    def sign(self, data: bytes) -> bytes:
        """An ECDSA signature, in DER.

        Raises:
            PublishError: there is no PIN, or it is wrong, the token lacks the key, or
                fails, or what it gives isn't this key's signature.
        """
        from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

        pin = self.uri.pin()
        if pin is None:
            raise self.uri.unusable(
                "needs its PIN to sign",
                f"set the environment variable {PIN_VARIABLE}, or name a file that"
                " holds it with pin-source=file:/path",
            )
        name = hash_of(self.public_key.curve).name
        digest = hashlib.new(name, data).digest()
        with _errors(self.uri):
            numbers = self._signed(digest, pin)
        half = len(numbers) // 2
        r, s = int.from_bytes(numbers[:half]), int.from_bytes(numbers[half:])
        signature = encode_dss_signature(r, s)
        if not is_signed(data, signature, self.public_key):
            raise self.uri.unusable(
                "has a private key and a public one that don't belong together",
                f"name another; {_LIST}",
            )
        return signature

    def _signed(self, digest: bytes, pin: str) -> bytes:
        """The two numbers of a signature, one after the other."""
        from pkcs11 import Attribute, Mechanism, ObjectClass

        wanted: dict[Any, Any] = {Attribute.CLASS: ObjectClass.PRIVATE_KEY}
        if self.object_id:
            wanted[Attribute.ID] = self.object_id
        else:
            wanted[Attribute.LABEL] = self.uri.label
        with _token(self.uri).open(user_pin=pin) as session:
            key = _only(self.uri, session, wanted, "private key")
            if key is None:
                raise _missing(self.uri, "private key")
            each_time = {"pin": pin} if key[Attribute.ALWAYS_AUTHENTICATE] else {}
            numbers: bytes = key.sign(digest, mechanism=Mechanism.ECDSA, **each_time)
        return numbers


def open_token_key(uri: KeyUri) -> TokenKey:
    """Find a key on a token. Its PIN is used only where the public part is hidden.

    Raises:
        PublishError: the library, the token or the key isn't there, or it isn't one for
            ECDSA.
        MissingLibraryError: python-pkcs11 isn't installed.
    """
    with _errors(uri):
        token = _token(uri)
        with token.open() as session:
            found = _found(uri, session)
        if found is None and (pin := uri.pin()):
            with token.open(user_pin=pin) as session:
                found = _found(uri, session)
    if found is None:
        what = "certificate" if uri.certified else "public key or certificate"
        raise _missing(uri, what)
    return found


def _token(uri: KeyUri) -> Token:
    """The token that a URI names.

    Raises:
        PublishError: there is none, or there are several.
    """
    import pkcs11

    library = uri.library()
    try:
        loaded = pkcs11.lib(library)
    except pkcs11.PKCS11Error as error:
        raise uri.unusable(
            f"needs the library {library}, which can't be loaded: {one_line(error)}",
            "install what the token's maker offers, and name its library",
        ) from None
    tokens = [slot.get_token() for slot in loaded.get_slots(token_present=True)]
    fitting = [token for token in tokens if _fits(token, uri.token)]
    if len(fitting) == 1:
        return fitting[0]
    labels = ", ".join(sorted(repr(token.label) for token in tokens)) or "none"
    count = f"{len(fitting)} tokens" if fitting else "no token"
    raise uri.unusable(
        f"fits {count}; {library} has {labels}",
        "name one by token=, or by serial= where labels are the same",
    )


def _fits(token: Token, wanted: Mapping[str, str]) -> bool:
    """Whether a token is what a URI says of it."""
    serial = token.serial
    found = {
        "token": token.label,
        "serial": serial.decode(errors="replace").strip(),
        "manufacturer": token.manufacturer_id,
        "model": token.model,
    }
    return all(found[name] == value for name, value in wanted.items())


def _found(uri: KeyUri, session: Session) -> TokenKey | None:
    """The key that a URI names, as far as a session shows it; None: it doesn't.

    Raises:
        PublishError: there are several, or it isn't one for ECDSA.
    """
    from cryptography.hazmat.primitives.serialization import load_der_public_key
    from pkcs11 import Attribute, ObjectClass
    from pkcs11.util.ec import encode_ec_public_key

    public = None
    if not uri.certified:
        public = _only(uri, session, _named(uri, ObjectClass.PUBLIC_KEY), "public key")
    if public is not None:
        _require_ec(uri, public)
        key: Any = load_der_public_key(encode_ec_public_key(public))
        return TokenKey(uri, key, (), public[Attribute.ID])
    wanted = _named(uri, ObjectClass.CERTIFICATE)
    certificate = _only(uri, session, wanted, "certificate")
    if certificate is None:
        return None
    chain = _chain(session, _read(uri, certificate))
    certificates = chain if uri.certified else ()
    key = chain[0].public_key()
    return TokenKey(uri, key, certificates, certificate[Attribute.ID])


def _named(uri: KeyUri, kind: Any) -> dict[Any, Any]:
    """What an object of a kind must have to be the one that a URI names."""
    from pkcs11 import Attribute

    wanted = {Attribute.CLASS: kind}
    if uri.label is not None:
        wanted[Attribute.LABEL] = uri.label
    if uri.id is not None:
        wanted[Attribute.ID] = uri.id
    return wanted


def _only(uri: KeyUri, session: Session, wanted: dict[Any, Any], what: str) -> Any:
    """The one object that has what is wanted; None: there is none.

    Raises:
        PublishError: there are several.
    """
    found = list(session.get_objects(wanted))
    if len(found) > 1:
        raise uri.unusable(
            f"fits {len(found)} objects of the kind {what}",
            f"name one by its id=; {_LIST}",
        )
    return found[0] if found else None


def _require_ec(uri: KeyUri, public: Any) -> None:
    """Require a key for ECDSA.

    Raises:
        PublishError: it is another.
    """
    from pkcs11 import Attribute, KeyType

    if public[Attribute.KEY_TYPE] != KeyType.EC:
        raise uri.unusable("is not an ECDSA key", f"name one that is; {_LIST}")


def _read(uri: KeyUri, certificate: Any) -> Certificate:
    """A certificate on the token.

    Raises:
        PublishError: it is broken.
    """
    from cryptography import x509
    from pkcs11 import Attribute

    try:
        return x509.load_der_x509_certificate(certificate[Attribute.VALUE])
    except ValueError as error:
        problem = f"has a broken certificate: {one_line(error)}"
        raise uri.unusable(problem, "write a whole one to the token") from None


def _chain(session: Session, own: Certificate) -> tuple[Certificate, ...]:
    """A certificate, and those on the token that vouch for it, without the root."""
    from cryptography import x509
    from pkcs11 import Attribute, ObjectClass

    issuers = {}
    for each in session.get_objects({Attribute.CLASS: ObjectClass.CERTIFICATE}):
        try:
            read = x509.load_der_x509_certificate(each[Attribute.VALUE])
        except ValueError:
            continue  # nobody named it
        if read.issuer != read.subject:
            issuers[read.subject] = read
    chain = [own]
    while (issuer := issuers.pop(chain[-1].issuer, None)) is not None:
        chain.append(issuer)
    return tuple(chain)


def _missing(uri: KeyUri, what: str) -> PublishError:
    return uri.unusable(
        f"names a {what} that the token doesn't show",
        f"correct object= or id=; {_LIST}, with --login what needs the PIN",
    )


_REASONS = {
    "PinIncorrect": "has another PIN",
    "PinInvalid": "has another PIN",
    "PinLenRange": "has a PIN of another length",
    "PinLocked": "has a PIN that is locked",
    "PinExpired": "has a PIN that has expired",
    "MechanismInvalid": "doesn't sign with ECDSA",
    "DeviceRemoved": "was removed",
    "TokenNotPresent": "was removed",
}
"""The library's error → what it means of the key."""


@contextmanager
def _errors(uri: KeyUri) -> Iterator[None]:
    """Report the library's errors as ours; the PIN is in none.

    Raises:
        PublishError: the token failed.
        MissingLibraryError: python-pkcs11 isn't installed.
    """
    try:
        from pkcs11 import PKCS11Error
    except ModuleNotFoundError:
        raise MissingLibraryError(
            f"{{{uri.option}}} names a key on a token, and python-pkcs11 is not"
            " installed",
            "run pip install 'checkpoint-release[pkcs11]'",
            options=[uri.option],
        ) from None
    try:
        yield
    except PKCS11Error as error:
        name = type(error).__name__
        reason = _REASONS.get(name, f"can't be used: the token reports {name}")
        remedy = "see to the token, and run it again"
        if "Pin" in name:
            remedy = f"correct {PIN_VARIABLE}, or the file of pin-source; a token locks"
            remedy += " itself after a few wrong PINs, and this was one try"
        raise uri.unusable(reason, remedy) from None
