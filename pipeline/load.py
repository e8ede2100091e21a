"""Stage load: the .pth becomes weights and facts that no later stage has to be afraid
of.

Reads checkpoint.path (and checkpoint.adapter); writes artifacts/checkpoint:
weights.safetensors and checkpoint.json. Nothing that the file names is imported or
called, and torch isn't either.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from checkpoint_release.core import stage
from checkpoint_release.core.architecture import read_architecture
from checkpoint_release.core.artifacts.manifest import write_manifest
from checkpoint_release.core.dtypes import HALF
from checkpoint_release.core.files import artifact_folder, sha256, write_json
from checkpoint_release.core.params import CheckpointParams, Params, load_params
from checkpoint_release.pth import (
    Checkpoint,
    escape_surrogates,
    read_checkpoint,
    refuse_dangerous,
)
from checkpoint_release.pth.facts import training_facts_of
from checkpoint_release.state_dict.find import (
    StateDict,
    cast_half,
    find_adapter,
    find_state_dict,
    lora_alpha,
    merge_lora,
    refuse_adapter_beside,
    without_prefix,
)
from checkpoint_release.tensors.safetensors import write_safetensors
from checkpoint_release.tensors.statistics import tensor_statistics
from checkpoint_release.tensors.wrappers import Finite

OUT = stage.ARTIFACTS / "checkpoint"
# DVC watches checkpoint.path and this folder; a null adapter can't be a dependency in
# dvc.yaml.
ADAPTERS = Path("checkpoints/adapters")


def main() -> None:
    """Run the stage."""
    params = load_params()
    path = Path(params.checkpoint.path)
    checkpoint = _read(path, params.checkpoint)
    with ThreadPoolExecutor(1) as pool:
        # takes about as long as all the rest, and leaves the interpreter free
        digest = pool.submit(sha256, path)
        _write(params, path, checkpoint, digest)


def _write(
    params: Params, path: Path, checkpoint: Checkpoint, digest: Future[str]
) -> None:
    found = find_state_dict(checkpoint.value, params.checkpoint.state_dict)
    weights, prefix = without_prefix(found.weights)
    # Before adapters are merged: an update is finer than half precision's rounding of
    # the sum.
    weights = cast_half(weights, params.checkpoint.half_precision)
    weights, lora, adapter_origin = _adapt(
        weights, found.adapter_beside, checkpoint, params.checkpoint
    )
    shapes = {name: (tensor.dtype, tensor.shape) for name, tensor in weights.items()}
    architecture = read_architecture(params.model, shapes)
    if check_weights := architecture.hook("check_weights"):
        check_weights(architecture.kwargs, weights)

    facts = training_facts_of(
        checkpoint.value,
        leave=frozenset({found.key.partition(".")[0]} if found.key else weights),
    )
    key = escape_surrogates(found.key)
    with artifact_folder(OUT) as folder:
        checked: StateDict = {
            name: (
                tensor
                if params.checkpoint.non_finite == "keep"
                else Finite(name, tensor)
            )
            for name, tensor in weights.items()
        }
        written = write_safetensors(
            folder / "weights.safetensors", checked, {"format": "pt"}
        )
        adapter = {"adapter": adapter_origin} if adapter_origin else {}
        made_from = {"checkpoint": digest.result(), **adapter}
        origin = {
            "sha256": made_from["checkpoint"],
            "size": path.stat().st_size,
            "container": checkpoint.container,
            "state_dict": key,
            "prefix": prefix,
            "half_precision": params.checkpoint.half_precision,
            **adapter,
        }
        statistics = tensor_statistics(weights).to_json()
        write_json(
            folder / "checkpoint.json",
            {
                "model": architecture.to_json(),
                "tensors": statistics,
                "training": facts,
                "origin": origin,
                "lora": lora,
                "left_out": checkpoint.left_out,
            },
        )
        write_manifest(
            folder,
            "checkpoint",
            made_from=made_from,
            known={"weights.safetensors": written},
        )
    _report(path, statistics, key, checkpoint, lora)
    if lora and any(
        weights[f"{layer}.weight"].dtype in HALF for layer in lora["layers"]
    ):
        print(
            "note: LoRA's update is rounded to half precision;"
            " checkpoint.half_precision: cast keeps all of it"
        )


def _read(path: Path, params: CheckpointParams) -> Checkpoint:
    checkpoint = read_checkpoint(path)
    if not params.salvage:
        refuse_dangerous(checkpoint)
    return checkpoint


def _adapt(
    weights: StateDict, beside: str, checkpoint: Checkpoint, params: CheckpointParams
) -> tuple[StateDict, Any, str | None]:
    """Merge the LoRA factors that the checkpoint or checkpoint.adapter holds; the last
    is the adapter's sha256.
    """
    if params.adapter is None:
        refuse_adapter_beside(beside, params.path)
        alpha = lora_alpha(checkpoint.value, params.lora_alpha, weights)
        merged, done = merge_lora(weights, None, alpha)
        return merged, done, None
    path = Path(params.adapter)
    if not path.resolve().is_relative_to(ADAPTERS.resolve()) and path != Path(
        params.path
    ):
        print(
            f"note: DVC watches {ADAPTERS}/ and not {path}: after changing it, run dvc"
            " repro -f load",
            file=sys.stderr,
        )
    adapter_file = _read(path, params)
    adapter, _ = find_adapter(adapter_file.value)
    merged, done = merge_lora(
        weights, adapter, lora_alpha(adapter_file.value, params.lora_alpha, adapter)
    )
    return merged, done, sha256(path)


def _report(
    path: Path,
    statistics: Mapping[str, Any],
    key: str,
    checkpoint: Checkpoint,
    lora: Any,
) -> None:
    print(
        f"{path}: {checkpoint.container}, {key or 'a bare state dict'}:"
        f" {statistics['count']} tensors, {statistics['values']:,} values"
        f" ({statistics['bytes'] / 1e6:,.1f} MB)"
    )
    for note in checkpoint.notes:
        print(note)
    if lora:
        print(
            f"merged LoRA into {len(lora['layers'])} layers: alpha {lora['alpha']},"
            f" rank {lora['rank']}"
        )
    for verdict, names in checkpoint.left_out.items():
        if names:
            listed = ", ".join(f"{name} ×{count}" for name, count in names.items())
            print(f"left out, not run ({verdict}): {listed}")


if __name__ == "__main__":
    stage.run(main)
