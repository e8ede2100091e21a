"""Nothing in a checkpoint is ever executed, and none takes more memory or time than its
size explains.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from checkpoint_release.core.errors import UnsafeCheckpointError
from checkpoint_release.pth import read_checkpoint, refuse_dangerous
from checkpoint_release.pth.unsafe_globals import is_dangerous
from tests.support.containers import Call, pickled, tensor, zipped
from tests.support.hostile import bombs, disguises, hiding_places, payloads

ROOT = Path(__file__).parents[2]


def watch(reader: str, files: dict[str, bytes], folder: Path) -> dict[str, Any]:
    """Write the files and read them in one watched process."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    command = [
        sys.executable,
        "-m",
        "tests.support.watched",
        reader,
        *(str(folder / name) for name in files),
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def canaries(folder: Path) -> Path:
    (folder / "canaries").mkdir()
    return folder / "canaries"


def problems(report: dict[str, Any]) -> dict[str, Any]:
    return {
        name: result
        for name, result in report["files"].items()
        if result["violations"]
        or result["error"].startswith("CRASH")
        or result["seconds"] > 20
    }


def test_payloads_are_named_as_dangerous_and_none_runs(tmp_path: Path) -> None:
    nest = canaries(tmp_path)
    files = {
        name: zipped(pickled({"weight": tensor(), "x": payload}))
        for name in payloads("")
        for payload in [payloads(str(nest / name))[name]]
    }
    assert len(files) >= 60
    report = watch("ours", files, tmp_path)
    assert not problems(report)
    assert not list(nest.iterdir())
    missed = {
        name: r
        for name, r in report["files"].items()
        if not r["outcome"].get("dangerous")
    }
    assert not missed
    assert all(result["outcome"]["tensors"] == 1 for result in report["files"].values())


def test_payloads_are_inert_wherever_they_hide(tmp_path: Path) -> None:
    nest = canaries(tmp_path)
    files = {
        name: zipped(pickled(place(payloads(str(nest / name))["os_mkdir"])))
        for name, place in hiding_places().items()
    }
    report = watch("ours", files, tmp_path)
    assert not problems(report)
    assert not list(nest.iterdir())
    for name, result in report["files"].items():
        assert result["error"] or "os.mkdir" in result["outcome"]["dangerous"], name


def test_payloads_are_inert_however_they_are_disguised(tmp_path: Path) -> None:
    nest = canaries(tmp_path)
    files = {name: disguises(str(nest / name))[name] for name in disguises("")}
    assert len(files) >= 40
    report = watch("ours", files, tmp_path)
    assert not problems(report)
    assert not list(nest.iterdir())
    silent = {
        name
        for name, result in report["files"].items()
        if not result["error"] and not result["outcome"]["dangerous"]
    }
    # Behind the end of a pickle nothing is read, by torch neither; a backslash is no
    # separator in a zip archive.
    assert silent == {"tail_second_pickle", "backslash_root"}


def test_bombs_end_in_one_error_or_a_right_result_within_bounds(tmp_path: Path) -> None:
    report = watch("ours", bombs(), tmp_path)
    assert not problems(report)
    assert report["peak"] < 700, "MiB"
    read = {name for name, result in report["files"].items() if not result["error"]}
    assert read == {
        "many_sets",
        "many_short_lines",
        "deep_calls",
        "deep_states",
        "deep_new_objects",
        "instance_in_itself",
        "memo_of_four_billion",
    }


def test_the_watch_sees_what_a_careless_reader_does(tmp_path: Path) -> None:
    """The control: the same files, unpickled by Python, do run; so the tests above can
    fail.
    """
    nest = canaries(tmp_path)
    names = [
        "os_mkdir",
        "os_system",
        "eval",
        "exec",
        "compiled",
        "dotted_name",
        "partial",
        "pickle_in_pickle",
    ]
    files = {name: zipped(pickled(payloads(str(nest / name))[name])) for name in names}
    disguised = [
        "inst_opcode",
        "obj_opcode",
        "memo_overwritten",
        "result_popped",
        "tail_missing",
        "legacy_system",
    ]
    files |= {name: disguises(str(nest / name))[name] for name in disguised}
    report = watch("pickle", files, tmp_path)
    assert {path.name for path in nest.iterdir()} == set(files)
    assert all(result["violations"] for result in report["files"].values())


def test_dangerous_names_stop_the_load_with_the_list(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    path.write_bytes(
        zipped(
            pickled(
                {
                    "weight": tensor(),
                    "x": [Call("os.system", "true"), Call("os.system", "x")],
                }
            )
        )
    )
    checkpoint = read_checkpoint(path)
    with pytest.raises(UnsafeCheckpointError, match=r"os\.system \(2×\)") as error:
        refuse_dangerous(checkpoint)
    assert "checkpoint.salvage" in error.value.remedy
    assert checkpoint.value["weight"].numpy().tolist() == [1, 2, 3, 4]


def test_config_classes_are_unknown_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "config.pth"
    config = Call("project.config.TrainConfig", state={"lr": 0.1})
    path.write_bytes(
        zipped(pickled({"weight": tensor(), "config": config, "older": config}))
    )
    checkpoint = read_checkpoint(path)
    refuse_dangerous(checkpoint)
    assert checkpoint.left_out == {
        "harmless": {},
        "unknown": {"project.config.TrainConfig": 2},
        "dangerous": {},
    }


@pytest.mark.parametrize(
    ("name", "dangerous"),
    [
        ("project.Config", False),
        ("__main__.Config", False),
        ("train.__main__.Config", False),
        ("numpy.dtype", False),
        ("torch.optim.adam.Adam", False),
        ("torch.nn.modules.linear.Linear", False),
        ("typing.Any", False),
        ("collections.OrderedDict", False),
        ("omegaconf.dictconfig.DictConfig", False),
        ("builtins.ValueError", False),
        ("torch.device", False),
        ("numpy.random._pickle.__randomstate_ctor", False),
        ("builtins.type", False),
        ("_io.BytesIO", False),
        ("torch.nn.functional.gelu", False),
        ("collections.abc.Callable", False),
        ("torch._C._nn.gelu", False),
        ("torch.cuda.FloatStorage", False),
        ("typing.get_type_hints", True),
        ("typing.sys", True),
        ("enum.sys", True),
        ("datetime.sys.modules", True),
        ("project.os.system", True),
        ("project.system.Net", False),
        ("project.x.eval", True),
        ("project.Config.__init__.__globals__", True),
        ("torch.ops.load_library", True),
        ("torch.utils.data.datapipes.utils.decoder.basichandlers", True),
        ("operator.attrgetter", True),
        ("itertools.starmap", True),
        ("numpy.f2py.crackfortran.myeval", True),
    ],
)
def test_names_are_judged(name: str, dangerous: bool) -> None:
    assert is_dangerous(*name.rsplit(".", 1)) is dangerous


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(3_000, id="thousands"),
        pytest.param(100_000, id="100,000", marks=pytest.mark.slow),
    ],
)
def test_mutated_checkpoints_are_read_or_refused_within_bounds(
    count: int, tmp_path: Path
) -> None:
    """Never an execution, a crash, a second of time or a gigabyte of memory: the
    process would end in an error.
    """
    command = [
        sys.executable,
        "-m",
        "tests.support.fuzz",
        str(count),
        str(count),
        str(tmp_path),
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    came = json.loads(done.stdout)
    assert came["read"] + came["refused"] == count
    assert min(came["read"], came["refused"]) > count / 20, (
        "mutations are neither too weak nor too strong"
    )
    assert came["peak"] < 300, "MiB"
