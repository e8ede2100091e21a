"""How far each node of the ONNX graph is from the same node in double precision.

    errors = compute_node_errors(Path("artifacts"))

ONNX Runtime computes the sample in float32, and every value in the graph is an output,
so that each node is computed by itself, without the fusions of the released runtime.
onnx's evaluator computes the same in float64. An error holds what earlier nodes erred
by. It needs onnx, ONNX Runtime and torch, so it is called in a process of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from checkpoint_release.core.artifacts.checkpoint import CHECKPOINT
from checkpoint_release.core.artifacts.formats import ONNX
from checkpoint_release.core.artifacts.parity import PARITY_FOLDER
from checkpoint_release.core.artifacts.release import Sample
from checkpoint_release.core.signature import Array, Arrays
from checkpoint_release.parity.constants import weights_of
from checkpoint_release.parity.double_graph import DoubleGraph
from checkpoint_release.report.modules import NodeError
from checkpoint_release.tensors.safetensors import open_safetensors

_ERRORS_ONLY = 3  # the severity from which ONNX Runtime logs


def compute_node_errors(artifacts: Path) -> list[NodeError]:
    """The errors of the nodes that compute floats from the inputs, in the graph's
    order.

    Args:
        artifacts: the folder of all artifacts, with the sample of the parity check.

    Raises:
        Exception: whatever onnx or ONNX Runtime fails with.
    """
    file = ONNX.main_file(artifacts / ONNX.name)
    sample = open_safetensors(artifacts / PARITY_FOLDER / Sample().inputs)
    inputs = {name: tensor.numpy() for name, tensor in sample.items()}
    doubles = DoubleGraph(file, weights_of(artifacts / CHECKPOINT))
    doubles.set_likely_constants()
    with np.errstate(all="ignore"):  # what is not finite has no error
        expected = doubles.every_value(inputs)
    model = onnx.load(file)
    return list(_errors(model.graph, _every_float(model, inputs), expected))


def _every_float(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> Arrays:
    """Name → value of the floats that nodes compute from the inputs, by ONNX Runtime.

    Args:
        model: all of these values become outputs of it.
        inputs: by name, as the signature has them.
    """
    own = {output.name for output in model.graph.output}
    wanted = []
    for node in _nodes_from(model.graph, set(inputs)):
        wanted += [name for name in node.output if name and name not in own]
    for name in wanted:
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _ERRORS_ONLY
    settings.intra_op_num_threads = 1
    level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.graph_optimization_level = level
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    values = session.run(names, dict(inputs))
    found = {}
    for name, value in zip(names, values, strict=True):
        array = np.asarray(value)
        if array.dtype.kind == "f":
            found[name] = array
    return found


def _nodes_from(graph: onnx.GraphProto, inputs: set[str]) -> Iterator[onnx.NodeProto]:
    """The nodes that depend on the inputs, in the graph's order."""
    derived = set(inputs)
    for node in graph.node:
        if derived.intersection(node.input):
            derived.update(node.output)
            yield node


def _errors(
    graph: onnx.GraphProto, got: Arrays, expected: Arrays
) -> Iterator[NodeError]:
    """The error of each node that has one.

    Args:
        graph: of the ONNX file.
        got: name → value in float32.
        expected: name → value in float64.
    """
    for node in graph.node:
        shares = []
        for name in node.output:
            if name in got and name in expected:
                shares.append(_share(got[name], expected[name]))
        known = [share for share in shares if share is not None]
        if known:
            name = node.name or node.output[0]
            yield NodeError(name=name, operator=node.op_type, error=max(known))


def _share(got: Array, expected: Array) -> float | None:
    """The root mean square error as a share of the value's own; None: it has none."""
    if got.shape != expected.shape or expected.size == 0:
        return None
    difference = got.astype(np.float64) - expected
    magnitude = float(np.sqrt(np.mean(np.square(expected, dtype=np.float64))))
    error = float(np.sqrt(np.mean(np.square(difference))))
    if not np.isfinite(error) or not np.isfinite(magnitude):
        return None  # such as a mask of -inf
    return error / magnitude if magnitude else error
