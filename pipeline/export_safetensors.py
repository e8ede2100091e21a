"""Stage export-safetensors: the folder that Hugging Face's libraries load.

Reads artifacts/checkpoint; writes artifacts/safetensors: the weights (one file, or
shards and their index), config.json, training_args.json (what the checkpoint says of
its training, and nothing else), and what the model's family adds:
generation_config.json, and the code that lets transformers load the folder. Weights
that stay as they are are copied byte for byte; a cast streams them. Torch isn't
imported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checkpoint_release.core import stage
from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.checkpoint import (
    CheckpointFacts,
    CheckpointFolder,
)
from checkpoint_release.core.artifacts.manifest import write_manifest
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import (
    FileEntry,
    artifact_folder,
    copy_file,
    write_json,
)
from checkpoint_release.core.params import SafetensorsParams, load_params
from checkpoint_release.exporting.config_json import model_config
from checkpoint_release.tensors.safetensors import (
    nbytes,
    open_safetensors,
    write_shards,
)
from checkpoint_release.tensors.tensor import TensorLike
from checkpoint_release.tensors.wrappers import Cast

CHECKPOINT = stage.ARTIFACTS / "checkpoint"
OUT = stage.ARTIFACTS / "safetensors"
WEIGHTS = CHECKPOINT / "weights.safetensors"

# torch's name → safetensors'
_CASTS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_FLOATS = frozenset({"F64", *_CASTS.values()})


def main() -> None:
    """Run the stage."""
    params = load_params()
    with artifact_folder(OUT) as folder:
        if not params.formats.safetensors:
            write_manifest(folder, "safetensors", enabled=False)
            return
        checkpoint = CheckpointFolder.open(CHECKPOINT)
        source = checkpoint.manifest()
        architecture = checkpoint.architecture
        written, facts = _write_weights(folder, params.safetensors, architecture)
        if not facts["cast"] and not facts["shards"]:
            _check_copy(
                written["model.safetensors"].sha256, source.sha256s[WEIGHTS.name]
            )
        dtype = None if params.safetensors.dtype == "keep" else params.safetensors.dtype
        _write_configs(folder, checkpoint.facts, architecture, dtype)
        write_manifest(
            folder, "safetensors", made_from=source.sha256s, facts=facts, known=written
        )
    _report(facts)


def _write_weights(
    folder: Path, params: SafetensorsParams, architecture: Architecture
) -> tuple[dict[str, FileEntry], dict[str, Any]]:
    """Write model.safetensors or its shards; returns the files and what was done, for
    the manifest.
    """
    weights = open_safetensors(WEIGHTS)
    target = _CASTS.get(params.dtype)
    kept = tuple(architecture.hook("KEEP_FLOAT32", ()))
    tensors: dict[str, TensorLike] = {
        name: (
            Cast(name, tensor, target)
            if target and _is_cast(name, tensor, target, kept)
            else tensor
        )
        for name, tensor in weights.items()
    }
    cast = [name for name, tensor in tensors.items() if isinstance(tensor, Cast)]
    total = sum(nbytes(tensor) for tensor in tensors.values())
    if cast or total > params.max_shard_bytes:
        files = write_shards(folder, tensors, params.max_shard_bytes, weights.metadata)
    else:
        # A copy rather than a hard link: an edit of one must not change the other.
        files = {"model.safetensors": copy_file(WEIGHTS, folder / "model.safetensors")}
    dtypes = Counter(tensor.dtype for tensor in tensors.values())
    uncast = [
        name
        for name, tensor in tensors.items()
        if target and tensor.dtype in _FLOATS - {target}
    ]
    facts = {
        "tensors": len(tensors),
        "bytes": total,
        "dtypes": dict(sorted(dtypes.items())),
        "shards": len(files) - 1 if len(files) > 1 else 0,
        "cast": (
            {"to": target, "tensors": len(cast), "left_alone": sorted(uncast)}
            if target
            else None
        ),
    }
    return files, facts


def _write_configs(
    folder: Path,
    facts: CheckpointFacts,
    architecture: Architecture,
    dtype: str | None,
) -> None:
    """Write config.json, training_args.json and what the model's family adds to them."""
    config = model_config(facts, dtype)
    config.write(folder)
    write_json(folder / "training_args.json", facts.training)
    if generation_config := architecture.hook("generation_config"):
        write_json(
            folder / "generation_config.json", generation_config(architecture.kwargs)
        )
    if huggingface_files := architecture.hook("huggingface_files"):
        for name, text in huggingface_files(
            architecture.kwargs, config.to_json()
        ).items():
            (folder / name).write_text(text, encoding="utf-8", newline="\n")


def _is_cast(name: str, tensor: TensorLike, target: str, kept: tuple[str, ...]) -> bool:
    """Whether a tensor is cast: every float of 16 to 64 bits, but for those that the
    family keeps from narrowing.
    """
    if tensor.dtype not in _FLOATS or tensor.dtype == target:
        return False
    return target == "F32" or name.rpartition(".")[2] not in kept


def _check_copy(copied: str, expected: str) -> None:
    if copied != expected:
        raise ArtifactError(
            f"{WEIGHTS} was changed after load wrote it: its sha256 is {copied[:12]}…,"
            f" and the manifest beside it says {expected[:12]}…",
            "run `dvc repro -f load`",
        )


def _report(facts: Mapping[str, Any]) -> None:
    files = f"{facts['shards']} shards" if facts["shards"] else "one file"
    dtypes = ", ".join(f"{count} {name}" for name, count in facts["dtypes"].items())
    print(
        f"{OUT}: {facts['tensors']} tensors ({dtypes}), {facts['bytes'] / 1e6:,.1f} MB"
        f" in {files}"
    )


if __name__ == "__main__":
    stage.run(main)
