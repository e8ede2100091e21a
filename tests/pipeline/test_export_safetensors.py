"""The Hugging Face folder: the checkpoint's bytes, or exactly the cast and the shards
that were asked for.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.manifest import read_manifest
from checkpoint_release.core.errors import ArtifactError, ExportError
from checkpoint_release.core.signature import Signature, TensorSpec
from checkpoint_release.tensors.safetensors import open_sharded
from pipeline.export_safetensors import main
from tests.support.checkpoint_folder import state_dict, write_checkpoint
from tests.support.project import ROOT, Project, tree
from tests.support.stick_figure import stick_figure

CHECKPOINT = Path("artifacts/checkpoint")
OUT = Path("artifacts/safetensors")
ANY = Architecture(
    "torch.nn:Linear",
    {"in_features": 3, "out_features": 2},
    Signature((TensorSpec("input", shape=(1, 3)),), (TensorSpec("output"),), {}),
)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A folder with params.yaml, in which the stage runs."""
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


def weights(**arrays: Any) -> None:
    write_checkpoint(
        CHECKPOINT,
        ANY,
        {name: np.asarray(array) for name, array in arrays.items()},
        {"epoch": 3},
    )


def read(name: str = "model.safetensors") -> dict[str, np.ndarray[Any, Any]]:
    return load_file(OUT / name)


def test_weights_that_stay_as_they_are_are_the_checkpoint_s_bytes() -> None:
    weights(weight=np.ones((2, 3), np.float32), bias=np.zeros(2, np.float16))
    main()
    copy, original = OUT / "model.safetensors", CHECKPOINT / "weights.safetensors"
    assert copy.read_bytes() == original.read_bytes()
    assert copy.stat().st_ino != original.stat().st_ino
    with safe_open(copy, "numpy") as file:
        assert file.metadata() == {"format": "pt"}
    assert read_manifest(OUT).made_from == {
        name: entry.sha256 for name, entry in read_manifest(CHECKPOINT).files.items()
    }
    read_manifest(OUT).verify(OUT)


def test_a_model_that_nobody_described_gets_no_invented_facts() -> None:
    weights(weight=np.ones((2, 3), np.float32), bias=np.zeros(2, np.float32))
    main()
    assert {path.name for path in OUT.iterdir()} == {
        *("model.safetensors", "config.json", "training_args.json", "manifest.json")
    }
    assert json.loads((OUT / "training_args.json").read_text()) == {"epoch": 3}
    config = json.loads((OUT / "config.json").read_text())
    assert config["architectures"] == ["Linear"]
    assert config["model_type"] == ANY.factory.replace(":", ".")
    assert (config["in_features"], config["dtype"]) == (3, "float32")
    assert (
        config["kwargs"] == ANY.kwargs
        and config["signature"] == ANY.signature.to_json()
    )


def test_the_family_adds_its_frame_rate_and_its_code() -> None:
    architecture = stick_figure()
    write_checkpoint(CHECKPOINT, architecture, state_dict(architecture))
    main()
    config = json.loads((OUT / "config.json").read_text())
    assert config["model_type"] == "stick_figure" and config["d_model"] == 24
    assert json.loads((OUT / "generation_config.json").read_text()) == {
        "fps": 25,
        "sequence_length": 250,
    }
    for reference in config["auto_map"].values():
        module, _, name = reference.partition(".")
        assert f"class {name}" in (OUT / f"{module}.py").read_text()


@pytest.mark.parametrize(
    ("dtype", "numpy"), [("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16)]
)
def test_a_cast_rounds_each_float_to_nearest_and_leaves_integers_alone(
    project: Project, dtype: str, numpy: Any
) -> None:
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    weights(
        floats=values,
        doubles=values.astype(np.float64) / 3,
        steps=np.array([7], np.int64),
    )
    project.set(safetensors__dtype=dtype)
    main()
    found = open_sharded(OUT)
    assert np.array_equal(found["floats"].numpy(), values.astype(numpy))
    assert np.array_equal(
        found["doubles"].numpy(), (values.astype(np.float64) / 3).astype(numpy)
    )
    assert found["steps"].dtype == "I64" and found["steps"].numpy() == 7
    assert json.loads((OUT / "config.json").read_text())["dtype"] == dtype
    cast = read_manifest(OUT).facts["cast"]
    assert (cast["tensors"], cast["left_alone"]) == (2, [])


def test_widening_half_precision_is_exact(project: Project) -> None:
    values = np.array([1.5, -2.25, 6e-8], np.float16)
    weights(weight=values)
    project.set(safetensors__dtype="float32")
    main()
    assert read()["weight"].dtype == np.float32
    assert np.array_equal(read()["weight"].astype(np.float16), values)


def test_a_value_that_a_cast_can_t_hold_is_one_clear_error_and_nothing_is_lost(
    project: Project,
) -> None:
    weights(weight=np.ones(3, np.float32))
    main()
    before = tree(OUT)
    weights(**{"layer.weight": np.array([1.0, 70000.0], np.float32)})
    project.set(safetensors__dtype="float16")
    with pytest.raises(ExportError, match=r"layer\.weight \[2\] holds 70000\.0.*F16"):
        main()
    assert tree(OUT) == before
    project.set(safetensors__dtype="bfloat16")
    main()


def test_rotary_frequencies_are_not_rounded_with_the_rest(project: Project) -> None:
    architecture = stick_figure()
    original = state_dict(architecture)
    write_checkpoint(CHECKPOINT, architecture, original)
    project.set(safetensors__dtype="bfloat16")
    main()
    found = open_sharded(OUT)
    names = [name for name in found if name.endswith("inv_freq")]
    assert names == read_manifest(OUT).facts["cast"]["left_alone"]
    assert all(np.array_equal(found[name].numpy(), original[name]) for name in names)
    assert {tensor.dtype for name, tensor in found.items() if name not in names} == {
        "BF16"
    }


def test_large_weights_become_shards_and_an_index(project: Project) -> None:
    arrays = {f"layer{i}": np.full(300, i, np.float32) for i in range(5)}
    weights(**arrays)
    project.set(safetensors__max_shard_size="3KB")
    main()
    index = json.loads((OUT / "model.safetensors.index.json").read_text())
    shards = sorted(set(index["weight_map"].values()))
    assert len(shards) == 3 and not (OUT / "model.safetensors").exists()
    assert index["metadata"]["total_size"] == 5 * 1200
    assert all(
        np.array_equal(read(index["weight_map"][name])[name], array)
        for name, array in arrays.items()
    )
    assert read_manifest(OUT).facts["shards"] == 3


def test_switched_off_it_leaves_a_manifest_that_says_so(project: Project) -> None:
    weights(weight=np.ones(3, np.float32))
    main()
    project.set(formats__safetensors=False)
    main()
    assert [path.name for path in OUT.iterdir()] == ["manifest.json"]
    assert read_manifest(OUT).enabled is False


def test_weights_that_were_edited_after_load_are_not_passed_on() -> None:
    weights(weight=np.ones(3, np.float32))
    file = CHECKPOINT / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x40")
    with pytest.raises(ArtifactError, match="changed after it was written"):
        main()
    assert not OUT.exists()


def test_two_runs_give_the_same_bytes(project: Project) -> None:
    architecture = stick_figure()
    write_checkpoint(
        CHECKPOINT, architecture, state_dict(architecture), {"train_loss": 0.25}
    )
    project.set(safetensors__dtype="float16", safetensors__max_shard_size="20KB")
    main()
    before = tree(OUT)
    main()
    assert tree(OUT) == before


@pytest.mark.skipif(
    sys.platform != "linux", reason="reads Linux's own account of memory"
)
def test_memory_stays_flat_in_a_cast_of_a_large_tensor(project: Project) -> None:
    weights(weight=np.ones(48 << 20, np.float32))  # 192 MiB in one tensor
    project.set(safetensors__dtype="bfloat16")
    code = (
        "import re, pathlib, pipeline.export_safetensors as stage\n"
        # Not ru_maxrss, which a process inherits from the one that started it.
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)',"
        " pathlib.Path('/proc/self/status').read_text())[1]) >> 10\nbefore = peak();"
        " stage.main(); print(peak() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(done.stdout.split()[-1]) < 48  # MiB
