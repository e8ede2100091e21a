"""The registry of formats: what each is called, where it lies and what its main file
is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

OPSETS = range(14, 26)
"""The ONNX opsets that can be asked for: what torch's exporters write between them."""


@dataclass(frozen=True)
class Format:
    """One way in which a model is released.

    Attributes:
        name: in params.yaml, manifests, reports and the card; the artifact's folder
            too.
        file: the main file in its folder.
        release_folder: where it lies in a release; "" is the root, where transformers
            looks.
        libraries: the distributions whose versions say how it was written.
        eager: whether it holds weights alone, which the model's own code computes with.
    """

    name: str
    file: str
    release_folder: str
    libraries: tuple[str, ...] = ()
    eager: bool = False

    def path_in_release(self, file: str = "") -> str:
        """The POSIX path of one of the format's files in a release, or its folder."""
        return (
            (PurePosixPath(self.release_folder) / file).as_posix()
            if file
            else self.release_folder
        )

    def main_file(self, path: Path) -> Path:
        """The file to open: of a folder the format's main file, otherwise the path
        itself.
        """
        return path / self.file if path.is_dir() else path


SAFETENSORS = Format(
    "safetensors", "model.safetensors", "", ("safetensors",), eager=True
)
ONNX = Format("onnx", "model.onnx", "onnx", ("onnx", "onnxruntime"))
TORCHSCRIPT = Format("torchscript", "model.pt", "torchscript")
TORCH_EXPORT = Format("torch_export", "model.pt2", "torch_export")

FORMATS: dict[str, Format] = {
    format.name: format for format in (SAFETENSORS, ONNX, TORCHSCRIPT, TORCH_EXPORT)
}
"""Name → format, in the order in which everything lists them."""
