"""Which kernel of ONNX Runtime costs most, where a graph is right and its results are
further off than is allowed.

Every node is looked at by itself: ONNX Runtime's result is held against what the node
computes in double precision of the very inputs that ONNX Runtime gave it, so that no
error of an earlier node counts. All values are made outputs of the graph for this, so
that no nodes are fused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from checkpoint_release.core.signature import Array, Arrays
from checkpoint_release.parity.double_graph import DoubleGraph
from checkpoint_release.parity.kernel_cost import FLOAT32_STEP
from checkpoint_release.runtimes.onnx_library import onnxruntime

_ERRORS_ONLY = 3  # the severity from which ONNX Runtime logs


def name_costly_kernel(file: Path, inputs: Mapping[str, Array]) -> str:
    """The kernel whose results are furthest from double precision, in words.

    Args:
        file: an ONNX file, in float32.
        inputs: of a case, by name.

    Returns:
        Such as "ONNX Runtime 1.32 computes Sigmoid 'gate' to 6e-08 of its range".
    """
    values = _values_in_onnxruntime(file, inputs)
    worst_error, worst = 0.0, None
    for node in DoubleGraph(file).operators():
        error = _error_of(node, values)
        if error > worst_error:
            worst_error, worst = error, node
    version = ".".join(onnxruntime.__version__.split(".")[:2])
    if worst is None or worst_error < FLOAT32_STEP / 4:
        return f"ONNX Runtime {version} has no single kernel that errs by much"
    name = worst.onnx_node.name or worst.output[0]
    return (
        f"ONNX Runtime {version} computes {worst.op_type} {name!r} to"
        f" {worst_error:.0e} of its range"
    )


def _values_in_onnxruntime(file: Path, inputs: Mapping[str, Array]) -> Arrays:
    """Name → value of everything that ONNX Runtime computes.

    Args:
        file, inputs: as for name_costly_kernel.
    """
    model = onnx.load(file)
    outputs = {output.name for output in model.graph.output}
    for node in model.graph.node:
        for name in node.output:
            if name and name not in outputs:
                model.graph.output.append(onnx.ValueInfoProto(name=name))
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _ERRORS_ONLY
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, dict(inputs))
    values = dict(zip(names, found, strict=True)) | dict(inputs)
    for tensor in model.graph.initializer:
        values[tensor.name] = onnx.numpy_helper.to_array(tensor)
    return values


def _error_of(node: Any, values: Arrays) -> float:
    """How far a node's first result is from double precision, as a share of the largest
    of its numbers, or of 1 if they are all smaller.

    Args:
        node: the evaluator's node.
        values: what ONNX Runtime computed.

    Returns:
        0 where the node isn't about floats, or needs more than its inputs.
    """
    got = values.get(node.output[0])
    known = values.keys() >= {name for name in node.input if name}
    if got is None or got.dtype != np.float32 or not known or node.need_context():
        return 0.0
    inputs = []
    for name in node.input:
        inputs.append(_widened(values[name]) if name else None)
    expected = np.asarray(node.run(*inputs)[0])
    if expected.shape != got.shape or expected.size == 0:
        return 0.0
    reach = max(1.0, float(np.abs(expected).max()))
    return float(np.abs(got - expected).max()) / reach


def _widened(value: Array) -> Array:
    """The same numbers in float64, if they are float32."""
    return value.astype(np.float64) if value.dtype == np.float32 else value
