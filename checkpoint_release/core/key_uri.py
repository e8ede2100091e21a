"""The address of a key on a token, such as a smart card or a hardware security module:
a pkcs11: URI (RFC 7512).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes

from checkpoint_release.core.errors import PublishError

SCHEME = "pkcs11:"
MODULE_VARIABLE = "PKCS11_MODULE_PATH"
"""The environment variable that names the token's library."""
PIN_VARIABLE = "PKCS11_PIN"
"""The environment variable that holds the token's PIN."""
CERTIFICATE = "cert"
"""The type of object that stands for a key together with its certificate."""
EXAMPLE = "pkcs11:token=releases;object=signing?module-path=/usr/lib/…/library.so"

_OF_THE_TOKEN = ("token", "serial", "manufacturer", "model")
_IN_THE_PATH = (*_OF_THE_TOKEN, "object", "id", "type")
_IN_THE_QUERY = ("module-path", "pin-source", "pin-value")
_TYPES = ("private", CERTIFICATE)
_FILE = "file:"


@dataclass(frozen=True)
class KeyUri:
    """Where a key is.

    Attributes:
        text: the URI, without its query, as messages name it.
        token: what the token must have: token (its label), serial, manufacturer, model.
        label, id: of the key; None: any.
        certified: whether the key's certificates on the token go with it.
        module: the token's library; None: the environment names it.
        pin_source: the file that holds the PIN; None: the environment holds it.
        option: that names the URI, for messages.
    """

    text: str
    option: str
    token: dict[str, str] = field(default_factory=dict)
    label: str | None = None
    id: bytes | None = None
    certified: bool = False
    module: str | None = None
    pin_source: Path | None = None

    def library(self) -> str:
        """The token's library: a file, or a name that the system's loader finds.

        Raises:
            PublishError: nothing names it.
        """
        named = self.module or os.environ.get(MODULE_VARIABLE)
        if not named:
            raise self.unusable(
                "names no library that speaks to the token",
                f"set the environment variable {MODULE_VARIABLE} to it, or add it:"
                f" {EXAMPLE}",
            )
        return named

    def pin(self) -> str | None:
        """The token's PIN; None: none is given.

        Raises:
            PublishError: the file that should hold it can't be read.
        """
        if self.pin_source is None:
            return os.environ.get(PIN_VARIABLE) or None
        try:
            text = self.pin_source.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it isn't text"
            raise self.unusable(
                f"takes its PIN from {self.pin_source}, which can't be read: {reason}",
                "put the PIN there, on a line of its own",
            ) from None
        return text.rstrip("\r\n")

    def unusable(self, what: str, remedy: str) -> PublishError:
        """An error about this key.

        Args:
            what: is wrong with it.
            remedy: what to do.
        """
        problem = f"{{{self.option}}}: {self.text} {what}"
        return PublishError(problem, remedy, options=[self.option])


def is_key_uri(text: str) -> bool:
    """Whether an option names a key on a token, and not a file."""
    return text.startswith(SCHEME)


def parse_key_uri(text: str, option: str) -> KeyUri:
    """Read a pkcs11: URI.

    Args:
        text: the URI.
        option: that has it, for messages.

    Raises:
        PublishError: it isn't one, holds a PIN, has something that could not be obeyed,
            or names no key.
    """
    path, _, query = text.removeprefix(SCHEME).partition("?")
    uri = KeyUri(SCHEME + path, option)
    stated = _attributes(uri, path.split(";"), _IN_THE_PATH)
    asked = _attributes(uri, query.split("&"), _IN_THE_QUERY)
    if "pin-value" in asked:
        # which params.yaml, dvc.lock and git would keep
        raise uri.unusable(
            "holds a PIN, for everybody to read who reads the option",
            f"leave pin-value out; set the environment variable {PIN_VARIABLE}, or name"
            " a file with pin-source=file:/path",
        )
    kind = stated.get("type", "private")
    if kind not in _TYPES:
        raise uri.unusable(
            f"has type={kind}", f"leave it out, or set type={CERTIFICATE}"
        )
    if "object" not in stated and "id" not in stated:
        raise uri.unusable("names no key", f"add its label or its id: {EXAMPLE}")
    source = asked.get("pin-source")
    return KeyUri(
        text=uri.text,
        option=option,
        token={name: unquote(stated[name]) for name in _OF_THE_TOKEN if name in stated},
        label=unquote(stated["object"]) if "object" in stated else None,
        id=unquote_to_bytes(stated["id"]) if "id" in stated else None,
        certified=kind == CERTIFICATE,
        module=unquote(asked["module-path"]) if "module-path" in asked else None,
        pin_source=_file(uri, unquote(source)) if source else None,
    )


def _attributes(
    uri: KeyUri, items: list[str], known: tuple[str, ...]
) -> dict[str, str]:
    """Name → value, still in percent-encoding.

    Raises:
        PublishError: one is unknown, and would be disregarded, or is there twice.
    """
    found: dict[str, str] = {}
    for item in filter(None, items):
        name, equals, value = item.partition("=")
        if name not in known or not equals:
            remedy = f"what it may have here is {', '.join(known)}"
            raise uri.unusable(f"has {name!r}, which isn't understood", remedy)
        if name in found:
            raise uri.unusable(f"has {name} twice", "leave one out")
        found[name] = value
    return found


def _file(uri: KeyUri, source: str) -> Path:
    """The file that pin-source names.

    Raises:
        PublishError: it names a program.
    """
    if source.startswith("|"):
        raise uri.unusable(
            "takes its PIN from a program, and none is run",
            "name a file: pin-source=file:/path",
        )
    path = source.removeprefix(_FILE)
    return Path(path.removeprefix("//") if source.startswith(_FILE) else path)
