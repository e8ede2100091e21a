"""Folders of ranks and adapters whose files were changed at random: each gives a value
or one error of this library's, and never takes long.
"""

from __future__ import annotations

import json
import pickle
import random
import shutil
import time
import warnings
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.distributed.checkpoint.state_dict_saver import save

from checkpoint_release.core.errors import CheckpointError, CheckpointReleaseError
from checkpoint_release.state_dict.model_weights import AdapterFile, read_model_weights
from checkpoint_release.state_dict.sources import read_source
from tests.support.fuzz import mutated
from tests.support.zero_files import save_zero

SECONDS = 2.0  # of processor time for one of them; thousands of times what it takes
STRANGE: tuple[Any, ...] = (
    None,
    -1,
    1 << 62,
    1 << 80,
    2.5,
    "text",
    b"bytes",
    [],
    {},
    (),
    (1, -1),
    torch.ones(2, 2),
    torch.empty(0),
    torch.ones(1).expand(1 << 20),
)


@pytest.fixture
def distributed(tmp_path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(
            {"model": {"w": torch.ones(3, 2), "b": torch.ones(2)}, "step": 1},
            checkpoint_id=tmp_path / "saved",
            no_dist=True,
        )
    return tmp_path / "saved"


def consequences(read: Callable[[], Any]) -> str:
    """What reading comes to: "value" or "error"; anything else fails."""
    begun = time.process_time()
    try:
        read()
        came = "value"
    except CheckpointReleaseError as error:
        came = "error"
        assert str(error).replace("\n", "").isprintable()
    assert time.process_time() - begun < SECONDS
    return came


def read_all(path: Path) -> None:
    """Read a source and every byte of its weights."""
    for tensor in read_model_weights(read_source(path)).tensors.values():
        for piece in tensor.chunks():
            bytes(piece[:1])


def changed(value: Any, rng: random.Random) -> Any:
    """The same nest, one of its parts replaced by something strange, or gone."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        rest = {name: each for name, each in value.items() if name != key}
        if rng.random() < 0.1:
            return rest
        return type(value)({**rest, key: changed(value[key], rng)})
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return [*value[:at], changed(value[at], rng), *value[at + 1 :]]
    return rng.choice(STRANGE)


def vars_of(value: Any) -> dict[str, Any]:
    """The attributes of an object of torch's metadata; of other values, none."""
    own = type(value).__module__.startswith("torch.distributed.checkpoint")
    own = own and not isinstance(value, Enum)  # one object for all tests
    return vars(value) if own and hasattr(value, "__dict__") else {}


def test_changed_bytes_of_the_metadata(distributed: Path) -> None:
    path = distributed / ".metadata"
    whole = path.read_bytes()
    rng = random.Random(0)
    came = set()
    for _ in range(300):
        path.write_bytes(mutated(whole, [whole], rng))
        came.add(consequences(lambda: read_all(distributed)))
    assert came == {"value", "error"}


def test_changed_fields_of_the_metadata(distributed: Path) -> None:
    path = distributed / ".metadata"
    whole = path.read_bytes()
    rng = random.Random(1)
    came = set()
    for _ in range(200):
        metadata = pickle.loads(whole)
        record = metadata
        while True:  # go down to some object, and change one of its fields
            fields = record if isinstance(record, dict) else vars_of(record)
            key = rng.choice(list(fields))
            below = fields[key]
            inside = below if isinstance(below, dict) else vars_of(below)
            if not inside or rng.random() < 0.3:
                strange = rng.choice(STRANGE[:11])
                if isinstance(record, dict):
                    record[key] = strange
                else:
                    object.__setattr__(record, key, strange)
                break
            record = below
        path.write_bytes(pickle.dumps(metadata))
        came.add(consequences(lambda: read_all(distributed)))
    assert "error" in came


@pytest.mark.parametrize("stage", [2, 3])
def test_changed_states_of_zero(tmp_path: Path, stage: int) -> None:
    trained = {"w": torch.randn(7, 3), "b": torch.randn(5)}
    frozen, buffers = {"f": torch.randn(3)}, {"seen": torch.ones(2).half()}
    step = save_zero(
        tmp_path / "run", stage, 2, trained, frozen=frozen, buffers=buffers
    )
    kept = shutil.copytree(step, tmp_path / "kept")
    rng = random.Random(2)
    came = set()
    for _ in range(120):
        path = rng.choice(sorted(step.iterdir()))
        state = torch.load(kept / path.name, weights_only=False, pickle_module=Stubs)
        torch.save(changed(state, rng), path)
        came.add(consequences(lambda: read_all(step)))
        shutil.copy(kept / path.name, path)
    assert came == {"value", "error"}


class Stage:
    """A number in the place of DeepSpeed's Enum, which is called or asked by name."""

    optimizer_states, gradients, weights = 1, 2, 3

    def __new__(cls, number: int) -> int:  # type: ignore[misc]
        return number


class Stubs:
    """pickle, without DeepSpeed."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if name == "ZeroStageEnum":
                return Stage
            return super().find_class(module, name)

    load, loads = pickle.load, pickle.loads


def test_changed_configurations_of_adapters(tmp_path: Path) -> None:
    base, folder = tmp_path / "base.pth", tmp_path / "adapter"
    torch.save({"layer.weight": torch.ones(4, 3)}, base)
    folder.mkdir()
    factors = {
        "base_model.model.layer.lora_A.weight": torch.ones(2, 3),
        "base_model.model.layer.lora_B.weight": torch.ones(4, 2),
    }
    save_file(factors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 8,
        "alpha_pattern": {"layer": 2},
        "rank_pattern": {},
        "modules_to_save": None,
        "bias": "none",
        "use_rslora": False,
    }
    rng = random.Random(3)
    came = set()

    def read() -> None:
        adapters = [AdapterFile(read_source(folder))]
        merged = read_model_weights(read_source(base), adapters)
        for tensor in merged.tensors.values():
            tensor.numpy()

    strange = [each for each in STRANGE if not isinstance(each, bytes | torch.Tensor)]
    patterns = [{"(a|aa)+$": 1}, {".*.*.*.*x": 1}, {"[": 1}, {"\\": 1}, {"^layer$": 3}]
    for number in range(200):
        key = rng.choice(list(config))
        value = rng.choice([*strange, *patterns])
        text = json.dumps({**config, key: value})
        if number % 3 == 0:
            text = mutated(text.encode(), [b"{}"], rng).decode("latin-1")
        (folder / "adapter_config.json").write_text(text, encoding="utf-8")
        came.add(consequences(read))
    assert came == {"value", "error"}


def test_many_blocks_at_one_place_are_paid_for(distributed: Path) -> None:
    """A name costs some bytes in the metadata, and what it leads to is read once."""
    path = distributed / ".metadata"
    metadata = pickle.loads(path.read_bytes())
    index = next(i for i in metadata.storage_data if i.fqn == "model.w")
    place, described = metadata.storage_data[index], metadata.state_dict_metadata
    for number in range(20_000):
        name = f"w{number}"
        described[name] = described["model.w"]
        metadata.storage_data[type(index)(name, index.offset)] = place
    path.write_bytes(pickle.dumps(metadata))
    begun = time.process_time()
    try:
        read_model_weights(read_source(distributed))
    except CheckpointError as error:
        assert "budget" in str(error) or "holds" in str(error)
    assert time.process_time() - begun < 20
