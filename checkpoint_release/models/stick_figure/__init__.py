"""StickFigureTransformer: what it is, what it takes and gives, and how to build it.

model              the nn.Module, which a release carries too
architecture       the constructor's arguments, read off a state dict
expected_tensors   every tensor of a state dict
interface          inputs and outputs
description        what a model card says
example            a clip to restore
picture            the clip, before and after, as a moving picture
huggingface        the Hugging Face files
graph              the ONNX graph written directly, with the help of onnx_builder

torch is imported only to build the module, onnx only to write the graph. The hooks are
those that checkpoint_release.core.architecture lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from checkpoint_release.core.signature import Array, Signature
from checkpoint_release.models.stick_figure.architecture import (
    check_weights,
    computed_buffers,
    read_architecture,
)
from checkpoint_release.models.stick_figure.description import describe
from checkpoint_release.models.stick_figure.example import example
from checkpoint_release.models.stick_figure.huggingface import (
    KEEP_FLOAT32,
    config,
    generation_config,
    huggingface_files,
)
from checkpoint_release.models.stick_figure.interface import (
    module_signature,
    signature,
)
from checkpoint_release.models.stick_figure.picture import picture

if TYPE_CHECKING:
    import onnx

    from checkpoint_release.models.stick_figure.model import StickFigureTransformer

__all__ = [
    "KEEP_FLOAT32",
    "ONNX_OPSETS",
    "build",
    "check_weights",
    "computed_buffers",
    "config",
    "describe",
    "example",
    "generation_config",
    "huggingface_files",
    "module_signature",
    "onnx_graph",
    "picture",
    "read_architecture",
    "signature",
]

ONNX_OPSETS = range(14, 26)


def build(**kwargs: Any) -> StickFigureTransformer:
    """The model with random weights, in training mode.

    Raises:
        ValueError, TypeError: arguments that make no model.
    """
    from checkpoint_release.models.stick_figure.model import StickFigureTransformer

    return StickFigureTransformer(**kwargs)


def onnx_graph(
    kwargs: Mapping[str, Any],
    weights: Mapping[str, Array],
    signature: Signature,
    opset: int,
) -> onnx.ModelProto:
    """The model as an ONNX graph, written directly.

    See `checkpoint_release.models.stick_figure.graph`.

    Raises:
        OpsetError: the graph can't be written in this opset.
    """
    from checkpoint_release.models.stick_figure.graph import onnx_graph

    return onnx_graph(kwargs, weights, signature, opset)
