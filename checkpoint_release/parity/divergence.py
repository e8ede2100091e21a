"""Where an ONNX graph departs from the model: the first node whose value the model
never computes.

The graph is evaluated in float64 by onnx's reference evaluator, and the eager model in
float64 by torch, with every intermediate value of both kept. A value of the graph is
known when the model computes the same numbers somewhere, in whatever layout (both are
compared sorted). Exporters cut operations up differently, so an unknown value is no
fault by itself: it is one when nothing that is computed from it is known either. Of the
nodes whose inputs are all sound, the graph departs at the first one whose value the
model nearly computes; where there is none, at the first of all.

Runs as `python -m checkpoint_release.parity.divergence JOB`, apart from everything
else: it needs torch and onnx, and a graph that is broken may break it too.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from checkpoint_release.parity.workers import read_cases, write_cases
from checkpoint_release.runtimes.onnx_graph import walk_graphs

if TYPE_CHECKING:
    import onnx

Array = npt.NDArray[Any]
_FLOAT32, _FLOAT64 = 1, 11  # onnx.TensorProto.FLOAT and DOUBLE

LIMIT = 120  # seconds
# relative; the graph's own constants, such as √2, are rounded to float32
CONSTANTS = 3e-7
ROUNDED = 1e-5  # relative; where the graph computes in float32 whatever it is given
# relative; a value so close to one of the model's, and not it, is the same operation
# done wrong
NEARLY = 1e-2


def explain_divergence(
    checkpoint: Path, file: Path, inputs: Mapping[str, Array], output: str | None
) -> str:
    """One sentence on where the graph departs from the model, or on why that can't be
    said.

    Args:
        checkpoint: the folder that `load` wrote.
        file: the ONNX file.
        inputs: those of a case in which it is wrong; the fewer numbers, the faster.
        output: the name of the output that is wrong; None: any.
    """
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_cases(folder / "inputs.safetensors", [inputs])
        job = {"checkpoint": str(checkpoint), "file": str(file), "output": output}
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "checkpoint_release.parity.divergence",
            str(folder / "job.json"),
        ]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=LIMIT
            )
        except subprocess.TimeoutExpired:
            return f"which node departs first could not be found in {LIMIT} seconds"
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        return f"which node departs first could not be found: {last[0]}"
    return done.stdout.strip()


def find_divergence(
    checkpoint: Path, file: Path, inputs: Mapping[str, Array], output: str | None
) -> str:
    """The work behind explain_divergence, in this process."""
    import onnx

    graph = onnx.load(file).graph
    values = _graph_values(file, inputs)
    known = _Known(_model_values(checkpoint, inputs))
    derived = _derived(graph, set(inputs))
    pure = all(values[name].dtype != np.float32 for name in derived if name in values)
    tolerance = CONSTANTS if pure else ROUNDED

    names = [value.name for value in graph.output]
    expected = dict(zip(names, known.outputs, strict=True))
    wrong = [n for n in names if not _close(values[n], expected[n], tolerance)]
    if not wrong:
        return (
            "evaluated in float64 the graph computes what the model computes, so no"
            " node of it departs: the error arises where ONNX Runtime computes in less"
            " precision"
        )
    origin = {
        name: known.find(values[name], tolerance) for name in derived if name in values
    }
    consumers = defaultdict(list)
    for number, node in enumerate(graph.node):
        for name in _inputs(node):
            consumers[name].append(number)
    sound: dict[str, bool] = dict.fromkeys(inputs, True)
    for node in reversed(graph.node):
        onward = [
            name
            for out in node.output
            for number in consumers[out]
            for name in graph.node[number].output
        ]
        floats = [
            out
            for out in node.output
            if out in values and values[out].dtype.kind == "f"
        ]
        known_here = not floats or any(origin.get(out) is not None for out in floats)
        good = known_here or any(sound.get(name) for name in onward)
        sound |= {out: good for out in node.output if out in derived}

    needed = _ancestors(
        graph, output if output is not None and output in wrong else wrong[0]
    )
    suspects = []
    for node in graph.node:
        fed = [name for name in _inputs(node) if name in derived]
        made = [out for out in node.output if out in derived and out in needed]
        if (
            made
            and not any(sound[out] for out in made)
            and all(sound[name] for name in fed)
        ):
            sources = dict.fromkeys(
                source for name in fed if (source := origin.get(name))
            )
            after = (
                f", which takes what {' and '.join(sources)} computes"
                if sources
                else ""
            )
            fixed = [name for name in _inputs(node) if name not in derived]
            holding = f" (and {', '.join(fixed)})" if fixed else ""
            told = (
                f"the first node that departs is {node.op_type}"
                f" {(node.name or made[0])!r}{after}{holding}"
            )
            if any(known.find(values[out], NEARLY) for out in made if out in values):
                return told
            suspects.append(told)
    if suspects:
        return suspects[0]
    held = known.find(values[wrong[0]], tolerance)
    return (
        f"no node departs: every value is one that the model computes, and {wrong[0]}"
        f" holds that of {held}"
    )


class _Known:
    """Everything the model computes, to be found by its numbers in any order."""

    def __init__(self, recorded: tuple[list[tuple[str, Array]], list[Array]]) -> None:
        values, self.outputs = recorded
        self._by_size: dict[int, list[tuple[str, Array]]] = defaultdict(list)
        for module, array in values:
            self._by_size[array.size].append((module, np.sort(array, axis=None)))

    def find(self, value: Array, tolerance: float) -> str | None:
        """The module that computes it, the last one where several do; None: none does."""
        if value.dtype.kind != "f" or value.size == 0:
            return None
        flat = np.sort(value.astype(np.float64), axis=None)
        for module, array in reversed(self._by_size[value.size]):
            if np.allclose(
                flat,
                array,
                rtol=0,
                atol=tolerance * float(np.abs(array[[0, -1]]).max()),
            ):
                return module
        return None


def _close(value: Array, expected: Array, tolerance: float) -> bool:
    reach = float(np.abs(expected).max(initial=0.0))
    return value.shape == expected.shape and bool(
        np.allclose(value, expected, rtol=0, atol=tolerance * reach)
    )


def _model_values(
    checkpoint: Path, inputs: Mapping[str, Array]
) -> tuple[list[tuple[str, Array]], list[Array]]:
    """The float values of every operation in eager float64, with the module it belongs
    to; and the outputs.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from checkpoint_release.runtimes.eager import ExportModule, build_eager

    model, signature = build_eager(checkpoint)
    model.double()
    stack: list[str] = []
    values: list[tuple[str, Array]] = []
    for name, module in model.named_modules():
        where = f"{name or 'the model'} ({type(module).__name__})"
        module.register_forward_pre_hook(lambda *_, where=where: stack.append(where))
        module.register_forward_hook(lambda *_: stack.pop() and None)

    class Record(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = function(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else (result,):
                if (
                    isinstance(tensor, torch.Tensor)
                    and tensor.is_floating_point()
                    and tensor.numel()
                ):
                    values.append(
                        (
                            stack[-1] if stack else "the model",
                            tensor.detach().clone().numpy(),
                        )
                    )
            return result

    tensors = [torch.tensor(inputs[spec.name]) for spec in signature.inputs]
    tensors = [
        tensor.double() if tensor.is_floating_point() else tensor for tensor in tensors
    ]
    with torch.no_grad(), Record():  # type: ignore[no-untyped-call]
        outputs = ExportModule(model, signature)(*tensors)
    return values, [tensor.numpy() for tensor in outputs]


def _graph_values(file: Path, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Every value of the graph, evaluated in float64 by onnx's reference evaluator."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    model = onnx.load(file)
    _widen(model.graph)
    feeds = {
        name: array.astype(np.float64) if array.dtype.kind == "f" else array
        for name, array in inputs.items()
    }
    del model.graph.value_info[:]
    found: Any = ReferenceEvaluator(model).run(None, feeds, intermediate=True)
    return {
        name: np.asarray(value) for name, value in found.items() if value is not None
    }


def _widen(graph: onnx.GraphProto) -> None:
    """Make every float32 in the graph float64: weights, constants, casts, inputs and
    outputs.
    """
    for inner in walk_graphs(graph):
        for tensor in inner.initializer:
            _widen_tensor(tensor)
        for value in (*inner.input, *inner.output):
            if value.type.tensor_type.elem_type == _FLOAT32:
                value.type.tensor_type.elem_type = _FLOAT64
        for node in inner.node:
            for attribute in node.attribute:
                _widen_attribute(attribute)


def _widen_attribute(attribute: onnx.AttributeProto) -> None:
    if attribute.type == attribute.TENSOR:
        _widen_tensor(attribute.t)
    elif attribute.name in ("to", "dtype", "stash_type") and attribute.i == _FLOAT32:
        attribute.i = _FLOAT64


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    from onnx import numpy_helper

    if tensor.data_type == _FLOAT32:
        wide = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))


def _inputs(node: onnx.NodeProto) -> Iterator[str]:
    return (name for name in node.input if name)


def _derived(graph: onnx.GraphProto, inputs: set[str]) -> set[str]:
    """The names of all values that depend on the inputs."""
    derived = set(inputs)
    for node in graph.node:
        if any(name in derived for name in node.input):
            derived.update(name for name in node.output if name)
    return derived


def _ancestors(graph: onnx.GraphProto, output: str) -> set[str]:
    """The names of all values that the output depends on, itself included."""
    needed = {output}
    for node in reversed(graph.node):
        if any(name in needed for name in node.output):
            needed.update(_inputs(node))
    return needed


def main(job_file: str) -> None:
    """Do the job that the file describes and print what was found."""
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    inputs = read_cases(Path(job_file).with_name("inputs.safetensors"))[0]
    print(
        find_divergence(
            Path(job["checkpoint"]), Path(job["file"]), inputs, job["output"]
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
