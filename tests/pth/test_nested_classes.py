"""Classes within classes, which protocols below 4 name by getattr(Outer, "Inner").

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
    assert isinstance(mode, Inert) and (mode.name, mode.args) == (name, (1,))
    assert checkpoint.left_out["dangerous"] == {}
    assert checkpoint.left_out["unknown"][name] == 1


# An inner class that is taken in all honesty, and memorizes getattr on the way.
HONEST = Raw(
    opcodes(GETATTR) + PUT + opcodes((Name("theirs.config", "Config"), "Mode")) + b"R"
)
KEPT = Raw(GET)


@pytest.mark.parametrize(
    "value",
    [
        call(GETATTR, Name("theirs", "Config"), "run"),
        call(GETATTR, Name("theirs", "Config"), "__subclasses__"),
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
