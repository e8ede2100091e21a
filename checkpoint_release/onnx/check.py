"""Is the ONNX file on the disk what was asked for? Everything here reads the file, not
what was meant to be written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from checkpoint_release.core.errors import ExportError, OpsetError, one_line
from checkpoint_release.core.large import is_large
from checkpoint_release.core.signature import Array, Signature, TensorSpec
from checkpoint_release.exporting.path_leaks import find_path_leak
from checkpoint_release.exporting.shape_check import Run, check_shapes
from checkpoint_release.onnx.shapes import infer_shapes
from checkpoint_release.runtimes.onnx_graph import (
    domain_name,
    names,
    names_read,
    used_domains,
)
from checkpoint_release.runtimes.onnx_skeleton import (
    read_in_place,
    read_skeleton,
)

_EXPORTER_BUG = (
    "this is an exporter bug: try another {onnx.exporter} or {onnx.opset}, and report"
    " it"
)
_EXPORTER_OPTIONS = ["onnx.exporter", "onnx.opset"]


def check_onnx(
    path: Path,
    signature: Signature,
    opset: int,
    ir_version: int,
    eager: Run | None = None,
    decisions: Sequence[str] = (),
) -> None:
    """Check the file from its first byte to its outputs.

    Args:
        path: the .onnx file, its external data beside it.
        signature: the inputs and outputs that it must have, in this order.
        opset: the version of the default domain that it must import.
        ir_version: the IR version that it must have.
        eager: runs the model that was exported; None where that would need torch.
        decisions: lines of the model's code that may decide by values of tensors.

    Raises:
        OpsetError: opset or IR version aren't the asked ones.
        ExportError: anything else isn't as it should be; the message names it.
    """
    model = read_skeleton(path)
    _check_versions(path.name, model, opset, ir_version)
    _check_domains(path.name, model)
    inferred = _validate(path, model)
    _check_values(f"{path.name}: input", model.graph.input, signature.inputs)
    _check_values(f"{path.name}: output", model.graph.output, signature.outputs)
    _check_ranks(path.name, inferred)
    _check_initializers(path.name, model)
    leak = find_path_leak(read_skeleton(path, keep=0).SerializeToString())
    if leak is not None:
        raise _exporter_bug(f"{path.name} holds {leak!r}")
    # A large file's weights stay in it: running would bring all of them in. What torch
    # exported is run nevertheless, up to 2 GB, for its sizes may be those of the
    # example. The parity check runs every file.
    leaves = eager is None and is_large(path.stat().st_size)
    stays = leaves or _has_external_data(model)
    run = _onnxruntime(path, signature, stays)
    if not stays:
        check_shapes(path.name, signature, run, eager, decisions)


def _exporter_bug(problem: str) -> ExportError:
    return ExportError(problem, _EXPORTER_BUG, options=_EXPORTER_OPTIONS)


def _check_versions(file: str, model: ModelProto, opset: int, ir_version: int) -> None:
    """The file must have the asked versions.

    Raises:
        OpsetError: it has others.
    """
    imported = _imports(model).get("")
    if imported != opset:
        raise OpsetError(
            f"{file} has opset {imported}, and {{onnx.opset}} is {opset}",
            _EXPORTER_BUG,
            options=_EXPORTER_OPTIONS,
        )
    if model.ir_version != ir_version:
        raise OpsetError(
            f"{file} has IR version {model.ir_version}, and {ir_version} was asked for",
            _EXPORTER_BUG,
            options=_EXPORTER_OPTIONS,
        )


def _check_domains(file: str, model: ModelProto) -> None:
    """Every domain that is imported must be used, and the other way round."""
    imports = _imports(model)
    used = used_domains(model.graph)
    if used != imports.keys():
        raise _exporter_bug(
            f"{file} imports the domains {sorted(imports)} and uses {sorted(used)}"
        )


def _imports(model: ModelProto) -> dict[str, int]:
    """Domain → opset."""
    return {domain_name(entry.domain): entry.version for entry in model.opset_import}


def _validate(path: Path, model: ModelProto) -> ModelProto:
    """Check the file by ONNX's own rules.

    Returns:
        the model with shapes inferred.

    Raises:
        ExportError: it breaks one.
    """
    try:
        with _checkable(path) as file:
            onnx.checker.check_model(str(file), full_check=True)
        return infer_shapes(model)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise _exporter_bug(
            f"{path.name} is not valid ONNX: {one_line(error, 400)}"
        ) from None


@contextmanager
def _checkable(path: Path) -> Iterator[Path]:
    """The file, or of a large one its graph, with the weights left in the file: the
    checker would read them.
    """
    if not is_large(path.stat().st_size):
        yield path
        return
    graph = path.with_name(f".{path.name}.graph")
    try:
        graph.write_bytes(read_in_place(path).SerializeToString())
        yield graph
    finally:
        graph.unlink(missing_ok=True)


def _check_values(
    place: str, values: Sequence[ValueInfoProto], specs: Sequence[TensorSpec]
) -> None:
    """Inputs or outputs must have the signature's names, dtypes and shapes.

    Args:
        place: the file, and which of the two.
        values: the graph's.
        specs: the signature's.

    Raises:
        ExportError: they don't.
    """
    found, expected = names(values), [spec.name for spec in specs]
    if found != expected:
        raise _exporter_bug(f"{place}s are {found}, and the signature names {expected}")
    for value, spec in zip(values, specs, strict=True):
        _check_value(f"{place} {spec.name!r}", value, spec)


def _check_value(place: str, value: ValueInfoProto, spec: TensorSpec) -> None:
    """An input or output must have the signature's dtype and, if stated, its shape.

    Raises:
        ExportError: it has others.
    """
    tensor = value.type.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    if dtype != spec.dtype:
        raise ExportError(
            f"{place} is {dtype}, and the signature says {spec.dtype}",
            f"state `dtype: {dtype}` for it in {{model.signature}}",
            options=["model.signature"],
        )
    shape = []
    for dimension in tensor.shape.dim:
        is_fixed = dimension.HasField("dim_value")
        shape.append(dimension.dim_value if is_fixed else dimension.dim_param)
    if spec.shape is not None and shape != list(spec.shape):
        raise _exporter_bug(
            f"{place} has the shape {shape}, and the signature says {list(spec.shape)}"
        )


def _check_ranks(file: str, inferred: ModelProto) -> None:
    """Shape inference must find the rank of whatever ONNX's own operators compute.

    Args:
        file: its name.
        inferred: the model with shapes inferred.

    Raises:
        ExportError: it doesn't.
    """
    graph = inferred.graph
    unranked: dict[str, None] = {}  # in the order of the nodes
    for node in graph.node:
        if not node.domain:
            unranked.update(dict.fromkeys(node.output))
    unranked.pop("", None)  # an output that is left out
    for value in (*graph.value_info, *graph.output):
        if _has_rank(value):
            unranked.pop(value.name, None)
    if unranked:
        raise _exporter_bug(
            f"{file}: shape inference finds no rank for {len(unranked)} values,"
            f" {next(iter(unranked))!r} the first"
        )


def _has_rank(value: ValueInfoProto) -> bool:
    """Whether the value's rank is known, or it is no tensor."""
    kind = value.type
    return not kind.HasField("tensor_type") or kind.tensor_type.HasField("shape")


def _check_initializers(file: str, model: ModelProto) -> None:
    """Some node must read every initialiser.

    Raises:
        ExportError: none reads one.
    """
    unused = set(names(model.graph.initializer)) - names_read(model.graph)
    if unused:
        raise _exporter_bug(
            f"{file}: nothing reads {len(unused)} of the initialisers, such as"
            f" {min(unused)!r}"
        )


def _has_external_data(model: ModelProto) -> bool:
    locations = {tensor.data_location for tensor in model.graph.initializer}
    return TensorProto.EXTERNAL in locations


def _onnxruntime(path: Path, signature: Signature, stays: bool) -> Run:
    """Open the file in ONNX Runtime.

    Args:
        path: the file.
        signature: its inputs, in order.
        stays: whether the weights are to stay where they lie.

    Returns:
        what runs it.

    Raises:
        ExportError: ONNX Runtime can't load it.
    """
    from checkpoint_release.runtimes.onnx_library import onnxruntime
    from checkpoint_release.runtimes.onnx_session import open_session, session_settings

    settings = session_settings(threads=1)
    if stays:
        # leave the weights where they are mapped: no folding of constants, no copies in
        # another layout
        settings.graph_optimization_level = (
            onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        )
        settings.add_session_config_entry("session.disable_prepacking", "1")
    try:
        session = open_session(path, settings, ["CPUExecutionProvider"])
    except Exception as error:
        # onnxruntime raises classes of its own for each of its failures
        raise ExportError(
            f"onnxruntime {onnxruntime.__version__} can't load {path.name}:"
            f" {one_line(error, 400)}",
            "ask for another {onnx.opset} or {onnx.exporter}",
            options=_EXPORTER_OPTIONS,
        ) from None

    def run(inputs: Sequence[Array]) -> Sequence[Array]:
        feeds = dict(zip(signature.input_names, inputs, strict=True))
        return session.run(None, feeds)  # type: ignore[no-any-return]

    return run
