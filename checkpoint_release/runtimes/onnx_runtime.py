"""Running ONNX files with ONNX Runtime, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from checkpoint_release.core.artifacts.formats import ONNX
from checkpoint_release.core.dtypes import SIGNATURE_DTYPES
from checkpoint_release.core.errors import ArtifactError, InferenceError, ParamsError
from checkpoint_release.core.json_text import JsonError, parse_json
from checkpoint_release.core.signature import (
    Array,
    Dimension,
    Signature,
    TensorSpec,
)
from checkpoint_release.core.size_expressions import size_names
from checkpoint_release.core.stated_signature import read_signature
from checkpoint_release.runtimes.model_config import find_config
from checkpoint_release.runtimes.onnx_library import onnxruntime
from checkpoint_release.runtimes.onnx_session import open_session, session_settings
from checkpoint_release.runtimes.onnx_skeleton import initializers, read_in_place
from checkpoint_release.runtimes.runtime import Options, Runtime, main_file, opening
from checkpoint_release.runtimes.training_nodes import training_nodes

_PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
}
_DTYPES = {"float": "float32", "double": "float64"}  # others are named as numpy's


def open_onnx(path: Path, options: Options) -> Runtime:
    """Open an ONNX file; its signature is config.json's, its own, or the graph's.

    Raises:
        ArtifactError: the file is missing, can't be read, or doesn't fit the signature.
        InferenceError: there is no such device or provider, or an input or output isn't
            a tensor of numbers.
    """
    file = main_file(ONNX.name, path)
    session = _session(file, options)
    signature = _signature(file, session)
    names = signature.input_names

    def compute(arrays: Sequence[Array]) -> Sequence[Array]:
        return session.run(None, dict(zip(names, arrays, strict=True)))  # type: ignore[no-any-return]

    @cache
    def graph() -> Any:
        return read_in_place(file).graph

    def weights() -> Mapping[str, Array]:
        return initializers(file, graph())

    def faults() -> list[str]:
        return training_nodes(graph())

    return Runtime(ONNX.name, path, signature, compute, weights, faults)


def _session(file: Path, options: Options) -> Any:
    """ONNX Runtime's session of a file.

    Raises:
        ArtifactError: the file can't be read.
        InferenceError: as _providers.
    """
    settings = session_settings(options.threads)
    providers = _providers(options)
    with opening(file):
        return open_session(file, settings, providers)


def _providers(options: Options) -> list[str]:
    """The execution providers that were asked for, or those of the device.

    Raises:
        InferenceError: this ONNX Runtime doesn't have them.
    """
    providers = options.providers or _PROVIDERS.get(options.device.partition(":")[0])
    if providers is None:
        raise InferenceError(
            f"ONNX Runtime has no {{device}} {options.device!r}",
            "choose cpu or cuda, or name {providers}",
            options=["device", "providers"],
        )
    available = onnxruntime.get_available_providers()
    unknown = [name for name in providers if name not in available]
    if unknown:
        raise InferenceError(
            f"this onnxruntime has no {', '.join(unknown)}; it has"
            f" {', '.join(available)}",
            "choose among those, or install the onnxruntime package for your hardware",
        )
    return list(providers)


def _signature(file: Path, session: Any) -> Signature:
    """The signature, which is held against the graph.

    Raises:
        ArtifactError: they name other inputs or outputs.
        InferenceError: as _graph_signature.
    """
    config = find_config(file)
    own = session.get_modelmeta().custom_metadata_map.get("signature")
    # of a further file, such as one with fixed shapes, config.json may promise too much
    is_further = bool(own) and file.name != ONNX.file
    if config is not None and not is_further:
        signature = config.signature
    elif own:
        signature = _stated_in(file, own)
    else:
        signature = _graph_signature(file, session)
    _require_names(file, "inputs", session.get_inputs(), signature.input_names)
    _require_names(file, "outputs", session.get_outputs(), signature.output_names)
    return signature


def _stated_in(file: Path, text: str) -> Signature:
    """The signature in the file's metadata.

    Raises:
        ArtifactError: it isn't one.
    """
    try:
        return read_signature(parse_json(text))
    except (JsonError, ParamsError) as error:
        reason = error.problem if isinstance(error, ParamsError) else error
        raise ArtifactError(
            f"{file} holds a signature in its metadata that is none: {reason}",
            "export it again, or put the config.json beside it that belongs to it",
        ) from None


def _require_names(
    file: Path, what: str, values: Sequence[Any], expected: Sequence[str]
) -> None:
    """Hold the names of the graph's inputs or outputs against the signature's.

    Args:
        file: for the message.
        what: "inputs" or "outputs".
        values: ONNX Runtime's descriptions of them.
        expected: their names in the signature, in order.

    Raises:
        ArtifactError: they are others, or in another order.
    """
    names = [value.name for value in values]
    if names != expected:
        raise ArtifactError(
            f"the {what} of {file} are {names}, and its signature names {expected}",
            "the file and its config.json don't belong together; export it again",
        )


def _graph_signature(file: Path, session: Any) -> Signature:
    """What the graph states of itself; integers have the whole range of their dtype.

    Raises:
        InferenceError: an input or output isn't a tensor of numbers.
    """
    inputs = tuple(_tensor_spec(file, value) for value in session.get_inputs())
    outputs = tuple(_tensor_spec(file, value) for value in session.get_outputs())
    stated: set[str] = set()
    for spec in inputs:
        stated.update(spec.dynamic_axes.values())
    dimensions: dict[str, Dimension] = {}
    for spec in inputs:
        for name in spec.dynamic_axes.values():
            follows = name not in size_names(name) and size_names(name) <= stated
            if not follows:
                dimensions[name] = Dimension(name, minimum=0)
    return Signature(inputs, outputs, dimensions)


def _tensor_spec(file: Path, value: Any) -> TensorSpec:
    """What the graph states of one input or output.

    Args:
        file: for the message.
        value: ONNX Runtime's description of it.

    Raises:
        InferenceError: it isn't a tensor of numbers.
    """
    element = value.type.removeprefix("tensor(").removesuffix(")")
    dtype = _DTYPES.get(element, element)
    if dtype not in SIGNATURE_DTYPES:
        raise InferenceError(
            f"{file}: {value.name!r} is a {value.type}",
            "only tensors of numbers can be passed",
        )
    shape = []
    for axis, size in enumerate(value.shape):
        shape.append(_size(size, f"{value.name}_{axis}"))
    spec = TensorSpec(value.name, dtype, tuple(shape))
    if not spec.is_integer:
        return spec
    limits = np.iinfo(dtype)
    low, high = int(limits.min), int(limits.max) + 1
    return replace(spec, low=low, high=high)


def _size(size: Any, default: str) -> int | str:
    """The size of an axis: a number, or the name of a dynamic dimension.

    Args:
        size: as ONNX Runtime describes it; a name may be missing.
        default: the name in that case.
    """
    if isinstance(size, int) and size >= 0:
        return size
    return str(size) if size else default
