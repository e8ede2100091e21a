"""Small files that ask for much get one clear error, and take no more than their size
explains: 64 MB and four times the file.

Time isn't tested, but what it follows from: everything that reading does is charged
before. `tests.bench.hostile` measures it.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from _pytest.mark import ParameterSet

from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.pth import read_checkpoint
from checkpoint_release.pth.budget import BASE, GROWTH, Budget
from checkpoint_release.state_dict.inspection import inspect
from tests.support import metered
from tests.support.containers import (
    STORAGE,
    Call,
    opcodes,
    pickled,
    storage,
    tensor,
    zipped,
)
from tests.support.metered import Metered
from tests.support.tricks import READ, Trick, tricks

ROOT = Path(__file__).parents[2]
TRICKS = tricks()
LARGE = 300_000  # bytes from which a trick takes a good part of a second
LONG = {"keywords_again_and_again"}  # takes seconds, though it isn't large


def parameters() -> list[ParameterSet]:
    """The names of the tricks; the large ones are slow."""
    found = []
    for name, (content, _) in TRICKS.items():
        is_slow = len(content) >= LARGE or name in LONG
        marks = [pytest.mark.slow] if is_slow else []
        found.append(pytest.param(name, marks=marks))
    return found


def measure(act: str, files: dict[str, Trick], folder: Path) -> dict[str, Metered]:
    """Write the files, and have an act of `metered` done to each."""
    for name, (content, _) in files.items():
        (folder / name).write_bytes(content)
    command = [
        sys.executable,
        "-m",
        "tests.support.metered",
        act,
        *(str(folder / name) for name in files),
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    results: dict[str, Any] = json.loads(done.stdout)
    return {name: Metered(**result) for name, result in results.items()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Metered]:
    """What came of the small tricks on their way to a release."""
    tricks = {name: trick for name, trick in TRICKS.items() if len(trick[0]) < LARGE}
    return measure("release", tricks, tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Metered]:
    """What came of the large ones."""
    tricks = {name: trick for name, trick in TRICKS.items() if len(trick[0]) >= LARGE}
    return measure("release", tricks, tmp_path_factory.mktemp("large"))


@pytest.mark.parametrize("name", parameters())
def test_a_trick_ends_in_its_result_or_one_clear_error(
    name: str, request: pytest.FixtureRequest
) -> None:
    content, expected = TRICKS[name]
    fixture = "small" if len(content) < LARGE else "large"
    came = request.getfixturevalue(fixture)[name]
    assert not came.crash
    assert not came.violations
    if expected == READ:
        assert came.error == ""
    else:
        assert expected in came.error
    assert len(came.error) < 3000, "a message that somebody can read"
    for line in came.error.split("\n"):
        assert line.isprintable()


def test_no_small_trick_takes_more_memory_than_its_size_explains(
    small: dict[str, Metered],
) -> None:
    shares = {name: came.memory_share for name, came in small.items()}
    assert len(shares) >= 100
    assert {name for name, share in shares.items() if share > 1} == set()


@pytest.mark.slow
def test_no_large_trick_takes_more_memory_than_its_size_explains(
    large: dict[str, Metered],
) -> None:
    shares = {name: came.memory_share for name, came in large.items()}
    assert len(shares) >= 15
    assert {name for name, share in shares.items() if share > 1} == set()


@pytest.mark.slow
def test_inspecting_what_can_be_read_takes_no_more_either(tmp_path: Path) -> None:
    """Those that the reader refuses are refused here by the same code."""
    readable = {name: trick for name, trick in TRICKS.items() if trick[1] == READ}
    for name, came in measure("report", readable, tmp_path).items():
        assert not came.crash, name
        assert not came.violations, name
        assert came.memory_share < 1, name


def test_the_meter_sees_memory_crashes_and_imports(tmp_path: Path) -> None:
    """The control: the same meter around careless acts."""
    path = tmp_path / "file"
    path.write_bytes(b"")

    def greedy(path: Path) -> None:
        bytearray(200 << 20)

    def crashing(path: Path) -> None:
        raise OverflowError

    def curious(path: Path) -> None:
        (path.parent / "another").exists()
        (path.parent / "another").write_bytes(b"")

    assert metered.metered(path, greedy).memory_share > 1
    assert "OverflowError" in metered.metered(path, crashing).crash
    assert metered.metered(path, curious).violations


def test_the_budget_follows_the_files_size(tmp_path: Path) -> None:
    """The same list is too much for a small file, and not beside a large tensor."""
    numbers = b"](" + b"M\x00\x10" * 1_500_000 + b"e"
    listed = opcodes("numbers") + numbers
    small = zipped(b"\x80\x04}(" + listed + b"u.", {})
    weights = opcodes("weight") + opcodes(tensor(shape=(1 << 22,), size=1 << 22))
    large = zipped(b"\x80\x04}(" + listed + weights + b"u.", {"0": bytes(4 << 22)})
    (tmp_path / "small.pth").write_bytes(small)
    (tmp_path / "large.pth").write_bytes(large)
    with pytest.raises(CheckpointError, match="memory budget is exceeded") as error:
        read_checkpoint(tmp_path / "small.pth")
    assert f"{BASE >> 20} MiB and {GROWTH} times the file" in str(error.value)
    assert len(read_checkpoint(tmp_path / "large.pth").value["numbers"]) == 1_500_000


def test_a_budget_is_spent_before_what_it_pays_for() -> None:
    budget = Budget(1000)
    budget.charge(BASE + int(GROWTH * 1000))
    with pytest.raises(CheckpointError, match="1,000 bytes"):
        budget.charge(1)


def test_memory_that_the_machine_lacks_is_not_taken_for_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_: Any) -> None:
        raise MemoryError

    path = tmp_path / "a.pth"
    path.write_bytes(zipped(pickled({"w": tensor()})))
    monkeypatch.setattr("checkpoint_release.pth.reader.resolve", out_of_memory)
    with pytest.raises(CheckpointError, match="not enough memory"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["a\0b.pth", "\ud800.pth", "x" * 5000])
def test_a_path_that_no_file_can_have_is_one_clear_error(name: str) -> None:
    for read in (read_checkpoint, inspect):
        with pytest.raises(CheckpointError, match="can't be read"):
            read(Path(name))


def test_a_wrong_bit_in_a_storage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    whole = zipped(pickled({"w": tensor()}))
    path.write_bytes(whole.replace(STORAGE, STORAGE[:-1] + b"\x41"))
    weight = read_checkpoint(path).value["w"]
    with pytest.raises(CheckpointError, match=r"storage archive/data/0 is damaged"):
        list(weight.chunks())
    with pytest.raises(CheckpointError, match=r"storage archive/data/0 is damaged"):
        weight.numpy()


def test_a_wrong_bit_outside_of_a_view_is_seen_as_well(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    whole = zipped(pickled({"w": tensor(shape=(2,))}))
    path.write_bytes(whole.replace(STORAGE, STORAGE[:-1] + b"\x41"))
    pieces = read_checkpoint(path).value["w"].chunks()
    with pytest.raises(CheckpointError, match="is damaged"):
        next(pieces)


def test_a_file_without_checksums_is_read_with_a_note(tmp_path: Path) -> None:
    """torch writes one where it is set not to compute checksums."""
    import torch
    from torch import serialization

    path = tmp_path / "a.pth"
    serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.arange(4.0)}, path)
    finally:
        serialization.set_crc32_options(True)
    checkpoint = read_checkpoint(path)
    assert checkpoint.value["w"].numpy().tolist() == [0, 1, 2, 3]
    assert any("no checksums" in note for note in checkpoint.notes)


def test_calls_that_share_keywords_keep_them(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    keywords = opcodes({"lr": 0.1})
    path.write_bytes(zipped(b"\x80\x04cx\ny\n)" + keywords + b"\x92.", {}))
    assert read_checkpoint(path).value.entries == {"lr": 0.1}


def test_signs_are_changed_only_where_torch_does(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    rebuild = "torch._utils._rebuild_tensor_v2"
    parts = tensor().args[:4]
    hooks = Call("collections.OrderedDict")
    negative = Call(rebuild, *parts, False, hooks, {"neg": True})
    path.write_bytes(zipped(pickled({"w": negative})))
    assert read_checkpoint(path).value["w"].numpy().tolist() == [-1, -2, -3, -4]
    conjugate = Call(rebuild, *parts, False, hooks, {"conj": True})
    path.write_bytes(zipped(pickled({"w": conjugate})))
    with pytest.raises(CheckpointError, match="complex conjugate"):
        read_checkpoint(path)


def test_integer_keys_of_real_training_are_cheap(tmp_path: Path) -> None:
    """The control of the colliding keys: steps in hundreds, and large step numbers."""
    path = tmp_path / "a.pth"
    steps = {100 * number: 0.5 for number in range(15_000)}
    late = {10_000_000 + number: 0.5 for number in range(10_000)}
    path.write_bytes(zipped(pickled({"losses": steps, "late": late})))
    value = read_checkpoint(path).value
    assert value == {"losses": steps, "late": late}


def test_a_lone_element_of_a_complex_tensor_of_64_dimensions_is_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.pth"
    shape = (1,) * 64
    value = Call(
        "torch._utils._rebuild_tensor_v2",
        storage("0", "ComplexFloatStorage", 1),
        0,
        shape,
        shape,
        False,
        Call("collections.OrderedDict"),
        {"conj": True},
    )
    path.write_bytes(zipped(pickled({"w": value}), {"0": struct.pack("<2f", 1, 2)}))
    read = read_checkpoint(path).value["w"]
    assert read.numpy().reshape(-1).tolist() == [1 - 2j]
    assert read.numpy().shape == shape


@pytest.mark.slow
def test_mutations_guided_by_coverage_are_read_or_refused(tmp_path: Path) -> None:
    """For two minutes. libFuzzer's first finding is its last line and a file."""
    pytest.importorskip("atheris")
    command = [sys.executable, "-m", "tests.support.guided", "-1", "120", str(tmp_path)]
    # A process starts with the peak memory of the one that forked it, which libFuzzer
    # holds against its limit; a shell in between is small.
    slim = ["sh", "-c", '"$@"; exit $?', "sh", *command]
    done = subprocess.run(slim, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "number_of_executed_units" in done.stderr
