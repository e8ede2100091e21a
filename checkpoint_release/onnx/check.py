"""Is the ONNX file on the disk what was asked for? Everything here reads the file, not
what was meant to be written.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from checkpoint_release.core.errors import ExportError, OpsetError, one_line
from checkpoint_release.core.signature import Array, Signature, TensorSpec
from checkpoint_release.exporting.path_leaks import find_path_leak
from checkpoint_release.exporting.shape_check import Run, check_shapes
from checkpoint_release.onnx.clean import infer_shapes
from checkpoint_release.onnx.file import read_skeleton
from checkpoint_release.runtimes.onnx_graph import names_read, walk_nodes

_MISTAKE = (
    "this is a mistake of the exporter: try another onnx.exporter or onnx.opset, and"
    " report it"
)


def check_onnx(
    path: Path,
    signature: Signature,
    opset: int,
    ir_version: int,
    eager: Run | None = None,
) -> None:
    """Check the file from its first byte to its outputs.

    Args:
        path: the .onnx file, its external data beside it.
        signature: the inputs and outputs that it must have, in this order.
        opset: the version of the default domain that it must import.
        ir_version: the IR version that it must have.
        eager: runs the model that it was made from; None where that would need torch.

    Raises:
        OpsetError: opset or IR version aren't the asked ones.
        ExportError: anything else isn't as it should be; the message names it.
    """
    model = read_skeleton(path)
    _check_versions(path, model, opset, ir_version)
    try:
        onnx.checker.check_model(str(path), full_check=True)
        inferred = infer_shapes(model)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            f"{path.name} is not valid ONNX: {one_line(error, 400)}", _MISTAKE
        ) from None
    _check_values("input", path, model.graph.input, signature.inputs)
    _check_values("output", path, model.graph.output, signature.outputs)
    _check_ranks(path, inferred)
    _check_initialisers(path, model)
    if leak := find_path_leak(read_skeleton(path, keep=0).SerializeToString()):
        raise ExportError(f"{path.name} holds {leak!r}", _MISTAKE)
    external = any(
        tensor.data_location == TensorProto.EXTERNAL
        for tensor in model.graph.initializer
    )
    run = _onnxruntime(path, signature, external)
    # Past 2 GB the weights stay in the mapped file; running would bring all of them in.
    # parity-check runs every file.
    if not external:
        check_shapes(path.name, signature, run, eager)


def _check_versions(path: Path, model: ModelProto, opset: int, ir_version: int) -> None:
    imports = {
        entry.domain.replace("ai.onnx", "", 1): entry.version
        for entry in model.opset_import
    }
    if imports.get("") != opset:
        raise OpsetError(
            f"{path.name} has opset {imports.get('')}, and onnx.opset is {opset}",
            _MISTAKE,
        )
    if model.ir_version != ir_version:
        raise OpsetError(
            f"{path.name} has IR version {model.ir_version}, and {ir_version} was"
            " asked for",
            _MISTAKE,
        )
    used = {
        node.domain.replace("ai.onnx", "", 1) for node in walk_nodes(model.graph)
    } | {""}
    if used != imports.keys():
        raise ExportError(
            f"{path.name} imports the domains {sorted(imports)} and uses"
            f" {sorted(used)}",
            _MISTAKE,
        )


def _check_values(
    what: str, path: Path, values: Sequence[ValueInfoProto], specs: Sequence[TensorSpec]
) -> None:
    found, expected = [value.name for value in values], [spec.name for spec in specs]
    if found != expected:
        raise ExportError(
            f"{path.name} has the {what}s {found}, and the signature names {expected}",
            _MISTAKE,
        )
    for value, spec in zip(values, specs, strict=True):
        tensor = value.type.tensor_type
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
        if dtype != spec.dtype:
            raise ExportError(
                f"{path.name}: {what} {spec.name!r} is {dtype}, and the signature says"
                f" {spec.dtype}",
                f"state `dtype: {dtype}` for it in model.signature",
            )
        shape = [
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param
            for dim in tensor.shape.dim
        ]
        if spec.shape is not None and shape != list(spec.shape):
            raise ExportError(
                f"{path.name}: {what} {spec.name!r} has the shape {shape}, and the"
                f" signature says {list(spec.shape)}",
                _MISTAKE,
            )


def _check_ranks(path: Path, inferred: ModelProto) -> None:
    graph = inferred.graph
    known = {
        value.name
        for value in (*graph.value_info, *graph.output)
        if not value.type.HasField("tensor_type")
        or value.type.tensor_type.HasField("shape")
    }
    produced = [
        name for node in graph.node if not node.domain for name in node.output if name
    ]
    if unknown := [name for name in produced if name not in known]:
        raise ExportError(
            f"{path.name}: shape inference finds no rank for {len(unknown)} values,"
            f" {unknown[0]!r} the first",
            _MISTAKE,
        )


def _check_initialisers(path: Path, model: ModelProto) -> None:
    read = names_read(model.graph)
    if unused := [
        tensor.name for tensor in model.graph.initializer if tensor.name not in read
    ]:
        raise ExportError(
            f"{path.name}: nothing reads {len(unused)} initialisers, {unused[0]!r} the"
            " first",
            _MISTAKE,
        )


def _onnxruntime(path: Path, signature: Signature, external: bool) -> Run:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3  # what goes wrong is raised
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    # leave the weights where they are mapped: no folding of constants, no copies in
    # another layout
    if external:
        settings.graph_optimization_level = (
            onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        )
        settings.add_session_config_entry("session.disable_prepacking", "1")
    try:
        session = onnxruntime.InferenceSession(
            str(path), settings, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        # onnxruntime raises classes of its own for each of its failures
        raise ExportError(
            f"onnxruntime {onnxruntime.__version__} can't load {path.name}:"
            f" {one_line(error, 400)}",
            "ask for another onnx.opset or onnx.exporter",
        ) from None
    names = [spec.name for spec in signature.inputs]

    def run(inputs: Sequence[Array]) -> Sequence[Array]:
        return session.run(None, dict(zip(names, inputs, strict=True)))  # type: ignore[no-any-return]

    return run
