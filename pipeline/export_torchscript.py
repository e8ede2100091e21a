"""Stage export-torchscript: the checkpoint as TorchScript, and as torch.export's .pt2
where asked for.

    python -m pipeline.export_torchscript

Reads artifacts/checkpoint; writes artifacts/torchscript (model.pt, config.json) and
artifacts/torch_export (model.pt2, config.json). torch calls TorchScript deprecated and
torch.export its successor; TorchScript is still what C++ and mobile programs load.
"""

from __future__ import annotations

from pathlib import Path

from checkpoint_release.core import stage
from checkpoint_release.core.artifacts.checkpoint import CHECKPOINT, CheckpointFolder
from checkpoint_release.core.artifacts.formats import TORCH_EXPORT, TORCHSCRIPT, Format
from checkpoint_release.core.artifacts.manifest import Manifest, write_manifest
from checkpoint_release.core.files import artifact_folder
from checkpoint_release.core.params import load_params
from checkpoint_release.core.sources import make_importable
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.exporting.config_json import model_config


def main() -> None:
    """Write artifacts/torchscript and artifacts/torch_export."""
    params = load_params()
    make_importable(params.model)
    _export(TORCHSCRIPT, enabled=params.formats.torchscript)
    _export(TORCH_EXPORT, enabled=params.formats.torch_export)


def _export(format: Format, *, enabled: bool) -> None:
    target = stage.ARTIFACTS / format.name
    with artifact_folder(target) as folder:
        if not enabled:
            write_manifest(folder, format.name, enabled=False)
            return
        manifest = _write(format, folder)
    version = manifest.facts["versions"]["torch"]
    print(f"{target}: {manifest.size / 1e6:,.1f} MB, torch {version}")


def _write(format: Format, folder: Path) -> Manifest:
    """Write the format's file, config.json and the manifest."""
    # here, because a format that is off needs no torch, which takes long to import
    from checkpoint_release.exporting.torch_export import write_torch_export
    from checkpoint_release.exporting.torchscript import write_torchscript
    from checkpoint_release.exporting.tracing import Traceable, torch_version

    checkpoint = CheckpointFolder.open(stage.ARTIFACTS / CHECKPOINT, OWN_ARTIFACTS)
    config = model_config(checkpoint)
    write = write_torchscript if format is TORCHSCRIPT else write_torch_export
    write(Traceable.open(checkpoint), folder / format.file, config.text())
    config.write(folder)
    return write_manifest(
        folder,
        format.name,
        made_from=checkpoint.manifest().sha256s,
        facts={"versions": {"torch": torch_version()}},
    )


if __name__ == "__main__":
    stage.run(main)
