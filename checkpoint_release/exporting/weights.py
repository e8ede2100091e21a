"""The weights of a Hugging Face folder: the checkpoint's bytes, or a cast of them.

Weights that stay as they are are shared with the checkpoint's file where that is safe,
and otherwise copied byte for byte; casts and shards are streamed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from checkpoint_release.core.artifacts.checkpoint import CheckpointFolder
from checkpoint_release.core.artifacts.formats import SAFETENSORS
from checkpoint_release.core.dtypes import BY_TORCH_NAME, FLOATS
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.file_sharing import share_file
from checkpoint_release.core.files import REMAKE, FileEntry, write_json
from checkpoint_release.tensors.safetensors import (
    find_weight_files,
    nbytes,
    open_safetensors,
    open_sharded,
    write_shards,
)
from checkpoint_release.tensors.tensor import TensorLike
from checkpoint_release.tensors.wrappers import Cast


@dataclass(frozen=True)
class CastFacts:
    """What a cast did.

    Attributes:
        to: safetensors' name of the dtype that was asked for.
        tensors: how many were cast.
        left_alone: the names, sorted, of floats that kept another dtype.
    """

    to: str
    tensors: int
    left_alone: list[str]


@dataclass(frozen=True)
class WrittenWeights:
    """What was written.

    Attributes:
        files: name → size and digest.
        tensors: how many there are.
        bytes: the size of their data.
        dtypes: safetensors' name of a dtype → tensors that have it, sorted.
        shards: how many files hold the tensors; 0: one, without an index.
        cast: None: no cast was asked for.
    """

    files: dict[str, FileEntry]
    tensors: int
    bytes: int
    dtypes: dict[str, int]
    shards: int
    cast: CastFacts | None

    def facts(self) -> dict[str, Any]:
        """All but the files, for the folder's manifest."""
        facts = asdict(self)
        del facts["files"]
        return facts

    def __str__(self) -> str:
        """One line for people: "9 tensors (8 F32, 1 I64), 2.1 MB in one file"."""
        files = f"{self.shards} shards" if self.shards else "one file"
        dtypes = ", ".join(f"{count} {name}" for name, count in self.dtypes.items())
        return (
            f"{self.tensors} tensors ({dtypes}), {self.bytes / 1e6:,.1f} MB in {files}"
        )


def write_weights(
    folder: Path,
    checkpoint: CheckpointFolder,
    dtype: str | None,
    max_shard_bytes: int,
) -> WrittenWeights:
    """Write model.safetensors, or its shards and their index.

    Args:
        folder: where the files go.
        checkpoint: whose weights are written.
        dtype: torch's name of the dtype that floats are cast to; None: each keeps its
            own.
        max_shard_bytes: the largest size of a file's tensors.

    Returns:
        What was written, for the folder's manifest and for people.

    Raises:
        ExportError: a finite value doesn't fit into the dtype.
        ArtifactError: the checkpoint's weights are missing, or were changed.
    """
    weights = open_safetensors(checkpoint.weights)
    tensors: dict[str, TensorLike] = dict(weights)
    cast = None
    if dtype is not None:
        target = BY_TORCH_NAME[dtype].name
        keep_float32 = checkpoint.architecture.hook("KEEP_FLOAT32", ())
        tensors = cast_floats(weights, target, keep_float32)
        cast = _cast_facts(tensors, target)
    size = sum(nbytes(tensor) for tensor in tensors.values())
    changed = cast is not None and cast.tensors > 0
    if changed or size > max_shard_bytes:
        files = write_shards(folder, tensors, max_shard_bytes, weights.metadata)
    else:
        files = {SAFETENSORS.file: _copy(checkpoint, folder / SAFETENSORS.file)}
    dtypes = Counter(tensor.dtype for tensor in tensors.values())
    shards = len(files) - 1  # the index is one of them
    return WrittenWeights(
        files, len(tensors), size, dict(sorted(dtypes.items())), shards, cast
    )


def write_index(folder: Path, name: str) -> None:
    """Write which file holds which weight, where a library looks for that.

    Args:
        folder: that holds the weights.
        name: of the index.
    """
    tensors = open_sharded(folder)
    weight_map = find_weight_files(folder).shard_of
    if weight_map is None:
        weight_map = dict.fromkeys(tensors, SAFETENSORS.file)
    size = sum(nbytes(tensor) for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    write_json(folder / name, index)


def cast_floats(
    tensors: Mapping[str, TensorLike], target: str, keep_float32: Collection[str]
) -> dict[str, TensorLike]:
    """The tensors, with floats of 16 to 64 bits cast when they are written.

    Args:
        tensors: name → tensor.
        target: safetensors' name of the dtype.
        keep_float32: last parts of the names of tensors that are never narrowed, such
            as inv_freq; a cast to float32 casts them too.

    Returns:
        Name → tensor, in the same order; what isn't cast is the same object.
    """
    result: dict[str, TensorLike] = {}
    for name, tensor in tensors.items():
        result[name] = tensor
        if tensor.dtype not in FLOATS or tensor.dtype == target:
            continue
        leaf = name.rpartition(".")[2]
        if target == "F32" or leaf not in keep_float32:
            result[name] = Cast(name, tensor, target)
    return result


def _cast_facts(tensors: Mapping[str, TensorLike], target: str) -> CastFacts:
    """What cast_floats did.

    Args:
        tensors: what it returned.
        target: safetensors' name of the dtype that was asked for.
    """
    count = 0
    left_alone = []
    for name, tensor in sorted(tensors.items()):
        if isinstance(tensor, Cast):
            count += 1
        elif tensor.dtype in FLOATS and tensor.dtype != target:
            left_alone.append(name)
    return CastFacts(target, count, left_alone)


def _copy(checkpoint: CheckpointFolder, path: Path) -> FileEntry:
    """Copy the checkpoint's weights, or share them where that is safe.

    Args:
        checkpoint: whose weights file is copied.
        path: of the copy.

    Returns:
        The copy's size and sha256.

    Raises:
        ArtifactError: the sha256 isn't that of the checkpoint's manifest.
    """
    copied = share_file(checkpoint.weights, path)
    expected = checkpoint.manifest().sha256s[checkpoint.weights.name]
    if copied.sha256 != expected:
        raise ArtifactError(
            f"{checkpoint.weights} was changed after it was written: its sha256 is"
            f" {copied.sha256[:12]}…, and the manifest beside it says {expected[:12]}…",
            REMAKE,
        )
    return copied
