"""An artifact that was opened to run, whichever library runs it.

Named numpy arrays go in, and named numpy arrays come out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from checkpoint_release.core.artifacts.formats import FORMATS
from checkpoint_release.core.errors import ArtifactError, InferenceError, one_line
from checkpoint_release.core.files import REMAKE
from checkpoint_release.core.signature import (
    Array,
    Arrays,
    Signature,
    check_inputs,
)
from checkpoint_release.core.trust import NO_TRUST, Trust

Compute = Callable[[Sequence[Array]], Sequence[Array]]
"""Arrays in the signature's order → arrays in the artifact's order of outputs."""


@dataclass(frozen=True)
class Merging:
    """Which weights of a .pth are meant, and what is merged into them.

    Attributes:
        state_dict: key of the weights, dotted where nested; None: the only ones.
        lora_alpha: LoRA's alpha, where the file with the factors doesn't say it.
        adapters: path of each adapter → what its update is multiplied by.
    """

    state_dict: str | None = None
    lora_alpha: float | None = None
    adapters: Mapping[Path, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    """How to run an artifact.

    Attributes:
        threads: that one run uses; None leaves the library's default.
        device: a torch device, or cpu or cuda for ONNX.
        providers: ONNX Runtime's execution providers, in order; they override device.
        dtype: what the formats that torch runs compute in: the model's own dtypes, or
            float64 throughout.
        aligned: whether the eager formats' weights are copied to where kernels round
            alike whatever file they are from; otherwise they stay mapped.
        trust: the code from elsewhere that may run.
    """

    threads: int | None = None
    device: str = "cpu"
    providers: Sequence[str] | None = None
    dtype: Literal["own", "float64"] = "own"
    aligned: bool = True
    trust: Trust = NO_TRUST

    def __post_init__(self) -> None:
        """Refuse what torch would fail on and ONNX Runtime take for its default."""
        if self.threads is not None and self.threads < 1:
            raise InferenceError(
                f"{{threads}} is {self.threads}",
                "give 1 or more, or leave it out for the library's default",
                options=["threads"],
            )


@dataclass(frozen=True)
class Runtime:
    """An opened artifact.

    Attributes:
        format: the name of its format, or "checkpoint".
        path: the file or folder that was opened.
        signature: its inputs and outputs.
        compute: runs it on arrays that fit the signature.
        weights: reads the tensors that the artifact holds, by its own names; torch's
            half precision is widened. What lies in a large file stays there.
        faults: looks for what is wrong in it whatever it computes, and returns a
            sentence for each.
    """

    format: str
    path: Path
    signature: Signature
    compute: Compute
    weights: Callable[[], Mapping[str, Array]]
    faults: Callable[[], list[str]] = list

    def run(self, inputs: Mapping[str, Array]) -> Arrays:
        """Compute the outputs, by name, in the signature's order.

        Args:
            inputs: exactly the signature's inputs, in its dtypes and shapes.

        Raises:
            InferenceError: an input doesn't fit the signature, or the library fails on
                these inputs.
        """
        check_inputs(self.signature, inputs)
        arrays = [np.asarray(inputs[name]) for name in self.signature.input_names]
        try:
            outputs = self.compute(arrays)
        except Exception as error:  # a graph can fail in any way that its library knows
            raise InferenceError(
                f"{self.path} failed on {_shapes(inputs)}: {type(error).__name__}:"
                f" {one_line(error)}",
                "the artifact doesn't take what its signature says; export it again",
            ) from error
        names = self.signature.output_names
        if len(outputs) != len(names):
            raise InferenceError(
                f"{self.path} returned {len(outputs)} outputs, and its signature names"
                f" {names}",
                "the artifact and its config.json don't belong together; export it"
                " again",
            )
        return dict(zip(names, outputs, strict=True))


def main_file(format: str, path: Path) -> Path:
    """The file of a graph format to open: the path, or the main file in that folder.

    Raises:
        ArtifactError: it is missing.
    """
    file = FORMATS[format].main_file(path)
    if not file.is_file():
        raise ArtifactError(f"{file} is missing", REMAKE)
    return file


@contextmanager
def opening(file: Path) -> Iterator[None]:
    """One error for whatever a library raises on a file that it can't open.

    Raises:
        ArtifactError: the library raised something.
    """
    try:
        yield
    except Exception as error:
        raise ArtifactError(
            f"{file} can't be opened: {type(error).__name__}: {one_line(error)}",
            "it is damaged or of another format: export or download it again",
        ) from error


def _shapes(inputs: Mapping[str, Array]) -> str:
    """The inputs' names and shapes, for a message."""
    shapes = [f"{name} {list(np.shape(array))}" for name, array in inputs.items()]
    return ", ".join(shapes)
