"""Stage load: the checkpoint becomes weights and facts that no later stage distrusts.

Reads checkpoint.path (and checkpoint.adapter); writes artifacts/checkpoint:
weights.safetensors and checkpoint.json. Nothing that the file names is imported or
called, and torch isn't either.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from checkpoint_release.core import stage
from checkpoint_release.core.architecture import Architecture, read_architecture
from checkpoint_release.core.artifacts.checkpoint import (
    CHECKPOINT,
    FACTS_FILE,
    WEIGHTS_FILE,
    CheckpointFacts,
    Origin,
)
from checkpoint_release.core.artifacts.manifest import write_manifest
from checkpoint_release.core.errors import ParamsError
from checkpoint_release.core.files import FileEntry, artifact_folder, joint_sha256
from checkpoint_release.core.params import CheckpointParams, Params, load_params
from checkpoint_release.core.parity_sizes import possible_sizes
from checkpoint_release.core.selection import Selection
from checkpoint_release.core.sources import make_importable, require_watched
from checkpoint_release.pth import (
    Checkpoint,
    escape_surrogates,
    refuse_dangerous,
)
from checkpoint_release.pth.facts import training_facts
from checkpoint_release.state_dict.buffers import (
    recomputed,
    rounded_buffers,
    rounding_note,
)
from checkpoint_release.state_dict.candidates import StateDict
from checkpoint_release.state_dict.model_weights import (
    AdapterFile,
    ModelWeights,
    read_model_weights,
)
from checkpoint_release.state_dict.near_miss import with_advice
from checkpoint_release.state_dict.shards import INDEX_SUFFIX
from checkpoint_release.state_dict.sources import read_source
from checkpoint_release.tensors.safetensors import write_safetensors
from checkpoint_release.tensors.statistics import tensor_statistics
from checkpoint_release.tensors.wrappers import Finite

OUT = stage.ARTIFACTS / CHECKPOINT
# DVC watches checkpoint.path and this folder; a null adapter can't be a dependency in
# dvc.yaml.
ADAPTERS = Path("checkpoints/adapters")


@dataclass(frozen=True)
class _Model:
    """What the checkpoint holds.

    Attributes:
        architecture: the model, without its weights.
        tensors: its weights, by its own names.
        found: how they were found in the file.
        recomputed: names of the buffers that aren't the file's.
    """

    architecture: Architecture
    tensors: StateDict
    found: ModelWeights
    recomputed: list[str]


def main() -> None:
    """Run the stage."""
    params = load_params()
    require_watched(params.model)
    make_importable(params.model)
    checkpoint = _read(params.checkpoint.path, params.checkpoint)
    adapters = _read_adapters(params.checkpoint)
    with ThreadPoolExecutor(1) as pool:
        # takes about as long as all the rest, and leaves the interpreter free
        digest = pool.submit(checkpoint.sha256)
        model = _find_model(checkpoint, adapters, params)
        with artifact_folder(OUT) as folder:
            entry = _write_weights(folder, model.tensors, params.checkpoint)
            origin = _origin(checkpoint, digest.result(), adapters, model, params)
            facts = _facts(checkpoint, origin, model)
            facts.write(folder / FACTS_FILE)
            made_from = {"checkpoint": origin.sha256}
            if origin.adapter:
                made_from["adapter"] = origin.adapter
            write_manifest(
                folder, CHECKPOINT, made_from=made_from, known={WEIGHTS_FILE: entry}
            )
    for line in (*facts.describe(), *checkpoint.notes):
        print(f"{checkpoint.path}: {line}")
    for note in _notes(model, params):
        print(f"note: {note}")


def _find_model(
    checkpoint: Checkpoint, adapters: list[AdapterFile], params: Params
) -> _Model:
    """Find the weights, and the model that they are of."""
    options = params.checkpoint
    found = read_model_weights(
        checkpoint,
        adapters,
        state_dict=options.state_dict,
        alpha=options.lora_alpha,
        dequantise=options.dequantise,
        half_precision=options.half_precision,
        selection=Selection(tuple(options.leave_out), options.prefix),
    )
    shapes = {name: (each.dtype, each.shape) for name, each in found.tensors.items()}
    architecture = with_advice(partial(read_architecture, params.model), shapes)
    tensors = _under_own_names(architecture, found.tensors)
    tensors, buffers = _recompute(architecture, tensors, options)
    check_weights = architecture.hook("check_weights")
    if check_weights:
        check_weights(architecture.kwargs, tensors)
    return _Model(architecture, tensors, found, buffers)


def _write_weights(
    folder: Path, tensors: StateDict, options: CheckpointParams
) -> FileEntry:
    """Write the weights, looking for NaN and infinity as they go by."""
    checked = tensors
    if options.non_finite == "refuse":
        checked = {name: Finite(name, each) for name, each in tensors.items()}
    return write_safetensors(folder / WEIGHTS_FILE, checked, {"format": "pt"})


def _origin(
    checkpoint: Checkpoint,
    digest: str,
    adapters: list[AdapterFile],
    model: _Model,
    params: Params,
) -> Origin:
    """Where the weights are from."""
    found = model.found
    return Origin(
        sha256=digest,
        size=checkpoint.size,
        container=checkpoint.container,
        state_dict=escape_surrogates(found.key),
        prefix=found.prefix,
        left_out=[escape_surrogates(name) for name in found.left_out],
        half_precision=params.checkpoint.half_precision,
        adapter=_digest_of(adapters),
        recomputed_buffers=model.recomputed,
        quantised=found.quantised,
    )


def _facts(checkpoint: Checkpoint, origin: Origin, model: _Model) -> CheckpointFacts:
    """What is known about the weights."""
    found = model.found
    return CheckpointFacts(
        model=model.architecture.to_json(),
        tensors=tensor_statistics(model.tensors),
        training=training_facts(checkpoint.entries, leave_out=found.top_keys),
        origin=origin,
        lora=found.lora,
        left_out=checkpoint.left_out,
    )


def _notes(model: _Model, params: Params) -> Iterator[str]:
    """What a user might not expect, and may want to change."""
    yield from possible_sizes(model.architecture.signature, params.parity.sizes)[1]
    if model.found.rounds_lora:
        yield (
            "LoRA's update is rounded to half precision;"
            " checkpoint.half_precision: cast keeps all of it"
        )


def _under_own_names(architecture: Architecture, tensors: StateDict) -> StateDict:
    """The weights by the model's own names, where its library saves them by others."""
    own_names = architecture.hook("own_names")
    if own_names is None:
        return tensors
    names = own_names(architecture.kwargs, list(tensors))
    return {own: tensors[name] for own, name in names.items()}


def _recompute(
    architecture: Architecture, tensors: StateDict, options: CheckpointParams
) -> tuple[StateDict, list[str]]:
    """Compute rounded buffers anew where that is asked for; otherwise note them.

    Returns:
        The weights, and the names of those that were computed.
    """
    hook = architecture.hook("computed_buffers")
    if hook is None and options.recompute_buffers:
        raise ParamsError(
            "checkpoint.recompute_buffers is true, and"
            f" {architecture.factory.partition(':')[0]} has no computed_buffers",
            "set it to false, or add that function to the module",
        )
    exact = hook(architecture.kwargs) if hook else {}
    rounded = rounded_buffers(tensors, exact)
    if not rounded:
        return tensors, []
    if not options.recompute_buffers:
        print(f"note: {rounding_note(rounded)}")
        return tensors, []
    wanted = {name: exact[name] for name in rounded}
    return recomputed(tensors, wanted), sorted(rounded)


def _read(path: str, options: CheckpointParams) -> Checkpoint:
    checkpoint = read_source(Path(path))
    if path.endswith(INDEX_SUFFIX):
        print(
            f"note: DVC watches {path} and not its shards: give the folder instead",
            file=sys.stderr,
        )
    if not options.salvage:
        refuse_dangerous(checkpoint)
    return checkpoint


def _read_adapters(options: CheckpointParams) -> list[AdapterFile]:
    """Read the adapters, each by its path."""
    stated = options.adapter or {}
    weights = {stated: 1.0} if isinstance(stated, str) else stated
    adapters = []
    for path, weight in weights.items():
        watched = Path(path).resolve().is_relative_to(ADAPTERS.resolve())
        if not watched and Path(path) != Path(options.path):
            print(
                f"note: DVC watches {ADAPTERS}/ and not {path}: after changing it, run"
                " dvc repro -f load",
                file=sys.stderr,
            )
        adapters.append(AdapterFile(_read(path, options), weight))
    return adapters


def _digest_of(adapters: list[AdapterFile]) -> str | None:
    """The sha256 of the adapter's files; of several adapters together."""
    digests = [each.checkpoint.sha256() for each in adapters]
    if len(digests) > 1:
        return joint_sha256({str(at): digest for at, digest in enumerate(digests)})
    return digests[0] if digests else None


if __name__ == "__main__":
    stage.run(main)
