"""Folders that name code of their author's choice as the code of their model.

The module `canary` leaves the file of the variable MARK when it is imported; so does
every other code that is named here, if it is called.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from checkpoint_release.core.artifacts.checkpoint import CheckpointFolder
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.exporting.config_json import model_config
from tests.support.checkpoint_folder import state_dict, write_checkpoint
from tests.support.hostile_names import CANARY
from tests.support.stick_figure import stick_figure

CANARY_CODE = """\
import os
from pathlib import Path

Path(os.environ["MARK"]).touch()


class Deeper:
    pass


def build(*args, **kwargs):
    return None
"""


def write_modules(folder: Path) -> Path:
    """Write the package `canary`, and return the folder that it lies in."""
    package = folder / "canary"
    package.mkdir(parents=True)
    for name in ("__init__", "__main__", "deeper", "hubconf"):
        (package / f"{name}.py").write_text(CANARY_CODE)
    return folder


def write_honest_model(folder: Path) -> Path:
    """A model of the library's own as a folder, a checkpoint and a .pth."""
    import torch

    architecture = stick_figure()
    weights = state_dict(architecture)
    checkpoint = write_checkpoint(folder / "checkpoint", architecture, weights)
    model_config(CheckpointFolder.open(checkpoint, OWN_ARTIFACTS)).write(folder)
    shutil.copy(checkpoint / "weights.safetensors", folder / "model.safetensors")
    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    torch.save(tensors, folder / "checkpoint.pth")
    return folder


def filled_in(value: Any, **paths: Path) -> Any:
    """A JSON value with the paths that it stands for."""
    text = json.dumps(value)
    for name, path in paths.items():
        text = text.replace(f"{{{name}}}", str(path))
    return json.loads(text)


KINDS = {"folder": "", "checkpoint": "checkpoint", "pth": "checkpoint.pth"}
"""A kind of model → where it lies in a folder of write_honest_model."""


def change_models(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what both files of a model's folder say about its code."""
    for path in (folder / "config.json", folder / "checkpoint/checkpoint.json"):
        value = json.loads(path.read_text())
        change(value.get("model", value))
        path.write_text(json.dumps(value))


def name_code(path: Path, factory: str = CANARY, **changes: Any) -> None:
    """Have a config.json or a checkpoint.json name a factory."""
    value = json.loads(path.read_text())
    model = value.get("model", value)
    model.update({"factory": factory, "kwargs": {}, "described": True, **changes})
    path.write_text(json.dumps(value))


# Places that can name code. Each gets a copy of the honest model, and gives the path to
# load; the folder's parent is free for more.


def in_a_linked_config(folder: Path) -> Path:
    name_code(folder / "config.json")
    (folder / "config.json").rename(folder.parent / "other.json")
    (folder / "config.json").symlink_to(folder.parent / "other.json")
    return folder


def in_linked_facts(folder: Path) -> Path:
    facts = folder / "checkpoint/checkpoint.json"
    name_code(facts)
    facts.rename(folder / "facts.json")
    facts.symlink_to("../facts.json")
    return folder / "checkpoint"


def behind_a_link_to_the_folder(folder: Path) -> Path:
    name_code(folder / "config.json")
    link = folder.parent / "link"
    link.symlink_to(folder)
    return link


def beside_a_link_to_honest_weights(folder: Path) -> Path:
    own = folder.parent / "own"
    own.mkdir()
    (own / "weights.bin").symlink_to(folder / "model.safetensors")
    shutil.copy(folder / "config.json", own)
    name_code(own / "config.json")
    return own / "weights.bin"


def in_a_nested_folder(folder: Path) -> Path:
    nested = folder / "onnx/torchscript/checkpoint"
    nested.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder / name, nested)
    name_code(nested / "config.json")
    return nested


def in_facts_beside_a_nested_file(folder: Path) -> Path:
    nested = folder / "a/b"
    nested.mkdir(parents=True)
    shutil.copy(folder / "model.safetensors", nested / "model.onnx")
    shutil.copy(folder / "checkpoint/weights.safetensors", nested)
    shutil.copy(folder / "checkpoint/checkpoint.json", nested)
    name_code(nested / "checkpoint.json")
    return nested / "model.onnx"


def in_facts_of_a_folder_that_is_no_checkpoint(folder: Path) -> Path:
    for name in ("checkpoint.json", "weights.safetensors"):
        shutil.move(folder / "checkpoint" / name, folder / name)
    (folder / "model.safetensors").unlink()
    name_code(folder / "checkpoint.json")
    return folder


def in_a_config_without_a_model_beside_facts(folder: Path) -> Path:
    name_code(folder / "checkpoint/checkpoint.json")
    shutil.copy(folder / "config.json", folder / "checkpoint")
    return folder / "checkpoint"


def beside_two_shards(folder: Path) -> Path:
    from safetensors.numpy import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards: list[dict[str, Any]] = [{}, {}]
    shard_of = {}
    for number, (name, array) in enumerate(weights.items()):
        shards[number % 2][name] = array
        shard_of[name] = f"shard-{number % 2}.safetensors"
    for number, shard in enumerate(shards):
        save_file(shard, folder / f"shard-{number}.safetensors")
    index = {"metadata": {}, "weight_map": shard_of}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    name_code(folder / "config.json")
    return folder


def beside_a_pth_called_safetensors(folder: Path) -> Path:
    name_code(folder / "config.json")
    return (folder / "checkpoint.pth").rename(folder / "model.safetensors")


def beside_a_pth_in_a_checkpoint(folder: Path) -> Path:
    shutil.move(folder / "checkpoint.pth", folder / "checkpoint/pytorch_model.bin")
    shutil.copy(folder / "config.json", folder / "checkpoint/config.json")
    name_code(folder / "checkpoint/config.json")
    return folder / "checkpoint/pytorch_model.bin"


def beside_a_linked_pth(folder: Path) -> Path:
    own = folder.parent / "own"
    own.mkdir()
    (own / "mine.pth").symlink_to(folder / "checkpoint.pth")
    shutil.copy(folder / "config.json", own)
    name_code(own / "config.json")
    return own / "mine.pth"


def with_auto_map(folder: Path) -> Path:
    name_code(folder / "config.json")
    value = json.loads((folder / "config.json").read_text())
    value["auto_map"] = {"AutoModel": "canary.Deeper", "AutoConfig": "canary.Deeper"}
    (folder / "config.json").write_text(json.dumps(value))
    return folder


def given_twice(folder: Path) -> Path:
    """A check and a reader might not take the same one."""
    text = (folder / "config.json").read_text().rstrip().removesuffix("}")
    (folder / "config.json").write_text(f'{text}, "factory": {json.dumps(CANARY)}}}')
    return folder


def escaped(folder: Path) -> Path:
    name_code(folder / "config.json")
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace("canary", r"\u0063anary"))
    return folder


def stated_as(**changes: Any) -> Callable[[Path], Path]:
    """The canary with other keys of the config.json changed."""

    def state(folder: Path) -> Path:
        name_code(folder / "config.json", **changes)
        return folder

    return state


PLACES: dict[str, Callable[[Path], Path]] = {
    place.__name__.replace("_", " "): place
    for place in (
        in_a_linked_config,
        in_linked_facts,
        behind_a_link_to_the_folder,
        beside_a_link_to_honest_weights,
        in_a_nested_folder,
        in_facts_beside_a_nested_file,
        in_facts_of_a_folder_that_is_no_checkpoint,
        in_a_config_without_a_model_beside_facts,
        beside_two_shards,
        beside_a_pth_called_safetensors,
        beside_a_pth_in_a_checkpoint,
        beside_a_linked_pth,
        with_auto_map,
        escaped,
    )
} | {
    "described": stated_as(described=True),
    "not described": stated_as(described=False),
    "with a huge number": stated_as(kwargs={"layers": 1 << 3000}),
    "with dunder arguments": stated_as(kwargs={"__class__": 1, "__globals__": {}}),
}


# Files that are refused for what they are, trusted or not
UNREADABLE: dict[str, Callable[[Path], Path]] = {
    "given twice": given_twice,
    "described by a text": stated_as(described="yes"),
    "with infinity": stated_as(kwargs={"scale": float("inf")}),
    "with a deep argument": stated_as(kwargs={"a": json.loads("[" * 200 + "]" * 200)}),
}


# Places where code lies and nothing of the library looks, so that the model loads


def under_the_names_of_models_code(folder: Path) -> Path:
    for name in ("model", "modeling_stick_figure", "hubconf", "conftest", "__init__"):
        (folder / f"{name}.py").write_text(CANARY_CODE)
    return folder


def beside_the_target_of_a_link(folder: Path) -> Path:
    name_code(folder / "config.json")
    own = write_honest_model(folder.parent / "own")
    (own / "model.safetensors").unlink()
    (own / "model.safetensors").symlink_to(folder / "model.safetensors")
    return own


def in_the_folder_above(folder: Path) -> Path:
    inner = write_honest_model(folder / "inner")
    name_code(folder / "config.json")
    name_code(folder / "checkpoint/checkpoint.json")
    return inner


def in_keys_for_other_libraries(folder: Path) -> Path:
    value = json.loads((folder / "config.json").read_text())
    value["auto_map"] = {"AutoModel": "canary.Deeper"}
    value["model"] = {"factory": CANARY}
    (folder / "config.json").write_text(json.dumps(value))
    return folder


IGNORED: dict[str, Callable[[Path], Path]] = {
    place.__name__.replace("_", " "): place
    for place in (
        under_the_names_of_models_code,
        beside_the_target_of_a_link,
        in_the_folder_above,
        in_keys_for_other_libraries,
    )
}
