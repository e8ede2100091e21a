"""The registry of formats: names, folders, main files and libraries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

OPSETS = range(14, 26)
"""The ONNX opsets that can be asked for: those that torch's exporters can write."""


@dataclass(frozen=True)
class Format:
    """One way in which a model is released.

    Attributes:
        name: in options, manifests, reports and the card; also the artifact's folder.
        file: the main file in its folder.
        release_folder: its folder in a release; "" is the root, where transformers
            looks.
        libraries: the distributions that write and run it, beside torch.
        eager: whether it holds weights alone, and the model's own code computes.
    """

    name: str
    file: str
    release_folder: str
    libraries: tuple[str, ...] = ()
    eager: bool = False

    def path_in_release(self, file: str = "") -> str:
        """The POSIX path of one of its files in a release.

        Args:
            file: relative to the format's folder; empty: the folder itself, which is ""
                for the root.
        """
        if not file:
            return self.release_folder
        return (PurePosixPath(self.release_folder) / file).as_posix()

    def main_file(self, path: Path) -> Path:
        """The file to open: in a folder the main file, otherwise the path itself."""
        return path / self.file if path.is_dir() else path


SAFETENSORS = Format(
    "safetensors", "model.safetensors", "", ("safetensors",), eager=True
)
ONNX = Format("onnx", "model.onnx", "onnx", ("onnx", "onnxruntime"))
TORCHSCRIPT = Format("torchscript", "model.pt", "torchscript")
TORCH_EXPORT = Format("torch_export", "model.pt2", "torch_export")

DATA_SUFFIX = "_data"
"""What follows the name of an .onnx file in the name of the file with its weights:
transformers.js and optimum look for model.onnx_data.
"""

FORMATS: dict[str, Format] = {
    format.name: format for format in (SAFETENSORS, ONNX, TORCHSCRIPT, TORCH_EXPORT)
}
"""Name → format, in the order in which everything lists them."""
