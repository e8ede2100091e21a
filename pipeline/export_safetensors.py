"""Stage export-safetensors: the folder that Hugging Face's libraries load.

    python -m pipeline.export_safetensors

Reads artifacts/checkpoint; writes artifacts/safetensors: the weights (one file, or
shards and their index), config.json, training_args.json (what the checkpoint says of
its training, and nothing else), and what the model's family adds:
generation_config.json, and the code that lets transformers load the folder. torch isn't
imported.
"""

from __future__ import annotations

from pathlib import Path

from checkpoint_release.core import stage
from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.checkpoint import CHECKPOINT, CheckpointFolder
from checkpoint_release.core.artifacts.config import ModelConfig
from checkpoint_release.core.artifacts.formats import SAFETENSORS
from checkpoint_release.core.artifacts.manifest import write_manifest
from checkpoint_release.core.files import artifact_folder, copy_file, write_json
from checkpoint_release.core.params import ModelParams, load_params
from checkpoint_release.core.sources import import_roots, make_importable, source_paths
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.exporting.config_json import model_config
from checkpoint_release.exporting.model_code import code_files, with_code
from checkpoint_release.exporting.weights import write_index, write_weights

OUT = stage.ARTIFACTS / SAFETENSORS.name


def main() -> None:
    """Write artifacts/safetensors."""
    params = load_params()
    make_importable(params.model)
    with artifact_folder(OUT) as folder:
        if not params.formats.safetensors:
            write_manifest(folder, SAFETENSORS.name, enabled=False)
            return
        checkpoint = CheckpointFolder.open(stage.ARTIFACTS / CHECKPOINT, OWN_ARTIFACTS)
        dtype = None if params.safetensors.dtype == "keep" else params.safetensors.dtype
        max_shard_bytes = params.safetensors.max_shard_bytes
        weights = write_weights(folder, checkpoint, dtype, max_shard_bytes)
        if index := checkpoint.architecture.hook("WEIGHTS_INDEX"):
            write_index(folder, index)
        config = model_config(checkpoint, dtype)
        if params.safetensors.code:
            config = _write_code(folder, config, params.model)
        config.write(folder)
        write_json(folder / "training_args.json", checkpoint.facts.training)
        _write_family_files(folder, checkpoint.architecture, config)
        _copy_companions(folder, checkpoint.architecture, source_paths(params.model))
        write_manifest(
            folder,
            SAFETENSORS.name,
            made_from=checkpoint.manifest().sha256s,
            facts=weights.facts(),
            known=weights.files,
        )
    print(f"{OUT}: {weights}")


def _write_code(folder: Path, config: ModelConfig, model: ModelParams) -> ModelConfig:
    """Write the model's own modules; the configuration says where they are.

    A family that brings its own files for transformers needs no others.
    """
    if config.has_transformers_code or config.library_class:
        return config
    files = code_files(config.factory, config.signature, import_roots(model))
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return ModelConfig(config.architecture, with_code(config.others))


def _write_family_files(
    folder: Path, architecture: Architecture, config: ModelConfig
) -> None:
    """Write what the model's family adds: generation_config.json and model code."""
    if generation_config := architecture.hook("generation_config"):
        write_json(
            folder / "generation_config.json", generation_config(architecture.kwargs)
        )
    if huggingface_files := architecture.hook("huggingface_files"):
        files = huggingface_files(architecture.kwargs, config.to_json())
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8", newline="\n")


def _copy_companions(
    folder: Path, architecture: Architecture, sources: list[str]
) -> None:
    """Copy what belongs to the model beside its weights, such as a tokenizer."""
    if companion_files := architecture.hook("companion_files"):
        for name, path in companion_files([Path(source) for source in sources]).items():
            copy_file(path, folder / name)


if __name__ == "__main__":
    stage.run(main)
