"""A checkpoint in whatever wrapping it comes: one file, shards, or a folder of them.

Each is read without torch, and nothing that a file names is imported or called.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from checkpoint_release.core.errors import (
    ArtifactError,
    CheckpointError,
    first_few,
)
from checkpoint_release.core.files import read_json
from checkpoint_release.pth import Checkpoint, read_checkpoint
from checkpoint_release.pth.distributed import is_distributed, read_distributed
from checkpoint_release.pth.file_kind import identify_bytes, is_zip
from checkpoint_release.pth.kinds import Kind
from checkpoint_release.pth.rank_files import rank_files, read_rank_files
from checkpoint_release.pth.zero import is_zero, newest_step, read_zero
from checkpoint_release.state_dict.adapter_config import ADAPTER_CONFIG
from checkpoint_release.state_dict.dequantise import QUANTISATION_CONFIG
from checkpoint_release.state_dict.folder_without_weights import no_weights
from checkpoint_release.state_dict.framework_layouts import refuse_megatron_folder
from checkpoint_release.state_dict.shards import (
    INDEX_SUFFIX,
    ShardName,
    ShardSet,
    indexed_set,
    join_shards,
    named_set,
    refuse_single_shard,
)
from checkpoint_release.tensors.safetensors import open_safetensors
from checkpoint_release.tensors.tensor import MappedFile

_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")
"""Of files with weights, the preferred first: a folder may hold the same weights in
several formats.
"""
_MODEL_STEMS = ("model", "pytorch_model", "diffusion_pytorch_model", "adapter_model")
"""What libraries call the weights of a folder."""
_NOT_WEIGHTS = frozenset(
    {"training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt"}
)
"""What transformers' and accelerate's trainers save beside the weights."""
_CUT_OVER_RANKS = "DCP_SHARDING_INFO"
_BLOCKS_OF_A_RANK = re.compile(r"shard-\d{5}-.+\.safetensors")
"""What torch.distributed.checkpoint puts into the metadata of safetensors files that
hold blocks of tensors, and what it calls them.
"""
_CONFIGS = ("config.json", f"{QUANTISATION_CONFIG}.json", f"{ADAPTER_CONFIG}.json")
"""What libraries say of a model or an adapter beside its weights; kept as facts."""


def read_source(path: Path) -> Checkpoint:
    """Read a checkpoint: a file of torch.save or safetensors, an index of shards, or a
    folder with one of these.

    Of a folder, config.json, quantize_config.json and adapter_config.json are kept as
    facts.

    Raises:
        ArtifactError: a safetensors file or an index is damaged.
        CheckpointError: it can't be read, is one shard of several, an incomplete set,
            or a folder whose weights can't be told apart or are of another kind.
    """
    try:
        if path.is_dir():
            return _read_folder(path)
        is_index = path.name.endswith(INDEX_SUFFIX) and path.is_file()
    except OSError:  # such as a name that is too long; the reader says what is wrong
        is_index = False
    if is_index:
        return _read_shards(indexed_set(path))
    refuse_single_shard(path)
    if is_distributed({path.name}):
        raise CheckpointError(
            f"{path} is one file of a distributed checkpoint, which is a folder",
            f"give the folder {path.parent} in {{checkpoint.path}}",
            options=["checkpoint.path"],
        )
    return _noting_masters(read_file(path))


def _noting_masters(checkpoint: Checkpoint) -> Checkpoint:
    """Note that float32 weights lie beside a file of DeepSpeed's half weights.

    Raises:
        CheckpointError: it is one rank's part of the weights.
    """
    path = checkpoint.path
    if not is_zero([path.name]):
        return checkpoint
    if path.name.endswith("_optim_states.pt") or "zero_pp_rank_" in path.name:
        raise CheckpointError(
            f"{path} is one rank's file of a run with DeepSpeed ZeRO",
            f"give the folder {path.parent} in {{checkpoint.path}}",
            options=["checkpoint.path"],
        )
    masters = path.parent.glob("*zero_pp_rank_*_optim_states.pt")
    if next(masters, None) is None:
        return checkpoint
    note = (
        "the float32 weights that were trained lie beside this file: give the folder"
        f" {path.parent} to release them"
    )
    return replace(checkpoint, notes=(*checkpoint.notes, note))


def read_file(path: Path) -> Checkpoint:
    """Read one file of torch.save or safetensors, whole or a shard.

    What is neither goes to the reader of checkpoints, whose error says what it is.

    Raises:
        ArtifactError: a safetensors file is damaged.
        CheckpointError: it can't be read, or is something else.
    """
    if _is_safetensors(path):
        file = open_safetensors(path)
        if _CUT_OVER_RANKS in file.metadata:
            raise _cut_over_ranks(path)
        return Checkpoint(
            path=path,
            value=dict(file),
            container=str(Kind.SAFETENSORS),
            left_out={},
            facts=dict(file.metadata),
        )
    return read_checkpoint(path)


def _cut_over_ranks(path: Path) -> CheckpointError:
    """The error for a rank's blocks, whose files don't say how many ranks there are.

    So a set that lacks the last rank would look like a whole one of smaller tensors.
    """
    return CheckpointError(
        f"{path} holds one rank's blocks of tensors, as the HuggingFaceStorageWriter of"
        " torch.distributed.checkpoint writes them, and not how many ranks there are",
        "save it with enable_consolidation=True; or have consolidate_safetensors_files"
        " of torch.distributed.checkpoint._consolidate_hf_safetensors join them, with"
        " each tensor's name mapped to 1, and give its folder in {checkpoint.path}",
        options=["checkpoint.path"],
    )


def _refuse_blocks_of_ranks(weights: list[Path]) -> None:
    """Refuse files that are named as those of several ranks, before one is read."""
    blocks = [file for file in weights if _BLOCKS_OF_A_RANK.fullmatch(file.name)]
    if len(blocks) > 1:
        raise _cut_over_ranks(blocks[0])


def _is_safetensors(path: Path) -> bool:
    try:
        file = MappedFile.of_file(path)
    except OSError:
        return False  # the reader of checkpoints says what is wrong
    return not is_zip(file) and identify_bytes(file.view).kind is Kind.SAFETENSORS


def _read_shards(shards: ShardSet) -> Checkpoint:
    return join_shards(shards, {file: read_file(file) for file in shards.files})


def _read_folder(folder: Path) -> Checkpoint:
    """The weights of a folder, and what is stated beside them as facts."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise CheckpointError(
            f"{folder} can't be read: {error.strerror}",
            "check {checkpoint.path}",
            options=["checkpoint.path"],
        ) from None
    files = [entry for entry in entries if entry.is_file()]
    names = {entry.name for entry in entries}
    if is_distributed(names):
        return read_distributed(folder)
    step = folder if is_zero(names) else newest_step(folder)
    if step is not None:
        return replace(read_zero(step), path=folder)
    ranks = rank_files(file.name for file in files)
    if ranks:
        return read_rank_files(folder, ranks)
    refuse_megatron_folder(folder, [each for each in entries if each.is_dir()])
    _refuse_other_folders(folder, names)
    return _with_configs(folder, _read_weights(folder, files))


def _with_configs(folder: Path, checkpoint: Checkpoint) -> Checkpoint:
    """The weights of a folder, with what is stated beside them as facts.

    Raises:
        ArtifactError: what is stated of an adapter can't be read.
    """
    facts: dict[str, Any] = dict(checkpoint.facts)
    notes = checkpoint.notes
    for name in _CONFIGS:
        if not (folder / name).is_file():
            continue
        try:
            facts[Path(name).stem] = read_json(folder / name)
        except ArtifactError as error:
            if name != _CONFIGS[0]:
                raise  # without it an adapter means nothing
            notes = (*notes, f"left out of the facts: {error.problem}")
    own = checkpoint.files or (checkpoint.path,)
    return replace(checkpoint, path=folder, notes=notes, files=own, facts=facts)


def _read_weights(folder: Path, files: list[Path]) -> Checkpoint:
    """The weights among a folder's files: an index, a set of shards, or one file.

    Args:
        folder: for messages.
        files: all files of the folder.

    Raises:
        CheckpointError: there are none, or several.
    """
    for suffix in _SUFFIXES:
        found = _read_weights_of_kind(folder, files, suffix)
        if found is not None:
            return found
    raise no_weights(folder, files)


def _read_weights_of_kind(
    folder: Path, files: Iterable[Path], suffix: str
) -> Checkpoint | None:
    """The weights in the files of one suffix; None where there are none.

    Args:
        folder: for messages.
        files: all files of the folder.
        suffix: one of _SUFFIXES.

    Raises:
        CheckpointError: there are several, or one for each rank of a training.
    """
    indexes, weights = [], []
    for file in files:
        if file.name.endswith(suffix + INDEX_SUFFIX):
            indexes.append(file)
        elif file.suffix == suffix and file.name not in _NOT_WEIGHTS:
            weights.append(file)
    _refuse_blocks_of_ranks(weights)
    index = _only(folder, indexes)
    if index is not None:
        return _read_shards(indexed_set(index))
    shards = [file for file in weights if _is_shard(file)]
    if shards:
        return _read_shards(named_set(shards))
    single = _only(folder, weights)
    return None if single is None else read_file(single)


def _is_shard(file: Path) -> bool:
    name = ShardName.of(file)
    return name is not None and name.count > 1


def _only(folder: Path, files: Iterable[Path]) -> Path | None:
    """The only file, or the only one with a usual name; None where there is none.

    Raises:
        CheckpointError: it can't be known which one is meant.
    """
    found = list(files)
    if len(found) > 1:
        usual = [file for file in found if file.name.partition(".")[0] in _MODEL_STEMS]
        if len(usual) != 1:
            names = first_few([file.name for file in found], 5)
            raise CheckpointError(
                f"{folder} holds {len(found)} files of weights: {names}",
                "name the one to release in {checkpoint.path}",
                options=["checkpoint.path"],
            )
        found = usual
    return found[0] if found else None


def _refuse_other_folders(folder: Path, names: set[str]) -> None:
    """Name the folders of other tools that hold no weights themselves.

    Args:
        folder: for messages.
        names: of all that lies in it.

    Raises:
        CheckpointError: it is one of those.
    """
    if "zero_to_fp32.py" in names:
        raise CheckpointError(
            f"{folder} is the folder of a run with DeepSpeed ZeRO, and its file latest"
            " names no step in it",
            "give the folder of the step, such as global_step1000, in"
            " {checkpoint.path}",
            options=["checkpoint.path"],
        )
