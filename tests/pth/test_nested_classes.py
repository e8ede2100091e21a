"""Classes within classes, which protocols below 4 name by getattr(Outer, "Inner"), and
members of Enums, which Python 3.11.0 to 3.11.3 name so.

They are judged as the one global with a dot in its name that protocol 4 writes. Any
other use of getattr counts as what it is: a way to code.
"""

from __future__ import annotations

import enum
import pickle
from pathlib import Path
from typing import Any

import pytest

from checkpoint_release.pth import Inert
from checkpoint_release.pth.reader import read_checkpoint
from tests.support.containers import Call, Name, Raw, opcodes, pickled, tensor, zipped

GETATTR = Name("builtins", "getattr")
PUT, GET = b"q\x05", b"h\x05"


class Config:
    class Mode(enum.Enum):
        FAST = 1


BY_NAME = Config.Mode.FAST.__reduce_ex__(2)[0] is getattr
"""Whether this Python pickles a member of an Enum by its name."""


def call(function: Any, *args: Any) -> Raw:
    return Raw(opcodes(function) + opcodes(args) + b"R")


def read(path: Path, value: Any) -> Any:
    path.write_bytes(zipped(pickled({"weight": tensor(), "value": value})))
    return read_checkpoint(path)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_class_within_a_class_is_known_by_its_whole_name(
    tmp_path: Path, protocol: int
) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(zipped(pickle.dumps({"mode": Config.Mode.FAST}, protocol)))
    checkpoint = read_checkpoint(path)
    name = f"{__name__}.Config.Mode"
    mode = checkpoint.value["mode"]
    assert isinstance(mode, Inert)
    expected = (f"{name}.FAST", None) if BY_NAME else (name, (1,))
    assert (mode.name, mode.args) == expected
    assert checkpoint.left_out["dangerous"] == {}
    assert checkpoint.left_out["unknown"][mode.name] == 1


@pytest.mark.parametrize("member", ["FAST", "weights", "optimizer_states"])
def test_a_member_of_an_enum_may_be_stated_by_its_name(
    tmp_path: Path, member: str
) -> None:
    checkpoint = read(
        tmp_path / "model.pth", call(GETATTR, Name("theirs", "Mode"), member)
    )
    found = checkpoint.value["value"]
    assert isinstance(found, Inert)
    assert (found.name, found.args) == (f"theirs.Mode.{member}", None)
    assert checkpoint.left_out["dangerous"] == {}


# An inner class that is taken in all honesty, and memorizes getattr on the way.
HONEST = Raw(
    opcodes(GETATTR) + PUT + opcodes((Name("theirs.config", "Config"), "Mode")) + b"R"
)
KEPT = Raw(GET)


@pytest.mark.parametrize(
    "value",
    [
        call(GETATTR, Name("theirs", "Config"), "system"),
        call(GETATTR, Name("theirs", "Config"), "__subclasses__"),
        call(GETATTR, Name("theirs", "Config"), "_load"),
        call(GETATTR, Name("torch.serialization", "os"), "system"),
        call(GETATTR, Name("argparse", "Namespace"), "Mode"),
        call(GETATTR, Name("theirs.os", "Popen"), "Mode"),
        call(GETATTR, Call("theirs.Config"), "Mode"),
        [HONEST, call(KEPT, Call("pathlib.Path", "x"), "unlink")],
        [HONEST, Call("functools.partial", KEPT)],
        [HONEST, Call("collections.defaultdict", KEPT)],
        [HONEST, KEPT],
        [HONEST, Raw(GET + b"0" + opcodes(1))],
        [HONEST, Raw(GET + b"2" + b"\x86")],
    ],
)
def test_any_other_use_of_getattr_is_dangerous(tmp_path: Path, value: Any) -> None:
    found = read(tmp_path / "model.pth", value).left_out["dangerous"]
    assert found["builtins.getattr"] >= 1


def test_an_honest_use_alone_is_not_dangerous(tmp_path: Path) -> None:
    found = read(tmp_path / "model.pth", [HONEST, HONEST]).left_out
    assert found["dangerous"] == {}
    assert found["unknown"]["theirs.config.Config.Mode"] == 2
