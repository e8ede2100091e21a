"""The graph written directly is the model: in every opset, for every kind, whatever
inputs are chosen.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import combinations, product
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from checkpoint_release.core.errors import OpsetError
from checkpoint_release.core.signature import Arrays, Signature, sample_inputs
from checkpoint_release.models.stick_figure import graph, onnx_graph, signature
from checkpoint_release.models.stick_figure.expected_tensors import expected_tensors
from checkpoint_release.onnx.file import is_placeholder
from checkpoint_release.parity.divergence import find_divergence
from checkpoint_release.parity.weights import compare_weights
from checkpoint_release.runtimes.open import open_runtime
from tests.support.checkpoint_folder import state_dict, write_checkpoint
from tests.support.exports import export_to_onnx
from tests.support.stick_figure import (
    FIXTURES,
    KINDS,
    MOTION_ONLY,
    fixture_cases,
    fixture_kwargs,
    fixture_weights,
    random_model,
    stick_figure,
    with_images,
)
from tests.support.tiny_release import sizes_of

OPSETS = range(14, 26)
SPELLINGS = (14, 15, 17, 18, 20, 23, 25)  # where operators change, and the last
CONDITIONING = ["action_sequence", "camera_data", "partner_motion"]
USUAL = ["motion", "text_embedding", "action_sequence"]
EVERYTHING = [
    "motion",
    "text_embedding",
    *CONDITIONING,
    "image_tensor",
    "image_camera_pose",
]
MEDIUM = {
    "input_dim": 48,
    "output_dim": 48,
    "d_model": 384,
    "nhead": 12,
    "num_layers": 8,
    "embedding_dim": 1024,
    "num_actions": 64,
    "dropout": 0.1,
}


def arrays(model: nn.Module) -> Arrays:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def with_bytes(graph: onnx.ModelProto, weights: Arrays) -> onnx.ModelProto:
    """The model with its weights inside."""
    whole = copy.deepcopy(graph)
    for tensor in whole.graph.initializer:
        if is_placeholder(tensor):
            tensor.raw_data = weights[tensor.name].tobytes()
    return whole


def constants(graph: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Name → initialiser, of those that aren't weights."""
    found = {}
    for tensor in graph.graph.initializer:
        if tensor.name.startswith("constant/"):
            found[tensor.name] = tensor
    return found


def run(model: onnx.ModelProto, inputs: Arrays) -> Arrays:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def eager(
    model: nn.Module, inputs: Arrays, dtype: torch.dtype = torch.float32
) -> Arrays:
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    with torch.inference_mode():
        moved = copy.deepcopy(model).to(dtype)
        outputs = moved(
            **{
                n: t.to(dtype) if t.is_floating_point() else t
                for n, t in tensors.items()
            }
        )
    return {name: tensor.numpy() for name, tensor in outputs._asdict().items()}


def furthest(got: Arrays, expected: Arrays) -> float:
    assert list(got) == list(expected)
    assert all(got[name].shape == expected[name].shape for name in got)
    return max(
        float(np.abs(got[name].astype(np.float64) - expected[name]).max())
        for name in got
    )


def disagreement(model: nn.Module, graph: onnx.ModelProto, inputs: Arrays) -> float:
    """The graph's largest error, in multiples of eager float32's own, both against
    float64.
    """
    exact = eager(model, inputs, torch.float64)
    return furthest(run(graph, inputs), exact) / furthest(eager(model, inputs), exact)


def check(graph: onnx.ModelProto, opset: int) -> None:
    """What every exported graph has to be, whatever it computes."""
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [
        ("", opset)
    ]
    assert graph.ir_version == helper.OP_SET_ID_VERSION_MAP["ai.onnx", opset]
    onnx.checker.check_model(graph, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(
        graph, check_type=True, strict_mode=True, data_prop=True
    )
    ranked = {
        value.name
        for value in inferred.graph.value_info
        if value.type.tensor_type.HasField("shape")
    }
    computed = {name for node in graph.graph.node for name in node.output}
    assert ranked == computed - {output.name for output in graph.graph.output}


def sized(found: Signature, seed: int = 0, **sizes: int) -> Arrays:
    known = {name: size for name, size in sizes.items() if name in found.dimensions}
    return sample_inputs(found, sizes_of(found, **known), seed)


@pytest.fixture(scope="module")
def motion_only() -> nn.Module:
    return random_model(MOTION_ONLY)


@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset_is_what_was_asked_for_and_computes_the_same(
    motion_only: nn.Module, opset: int
) -> None:
    found = signature(MOTION_ONLY, EVERYTHING[:5])
    weights = arrays(motion_only)
    graph = with_bytes(onnx_graph(MOTION_ONLY, weights, found, opset), weights)
    check(graph, opset)
    for sequence, batch in ((1, 1), (2, 3), (40, 2)):
        assert (
            disagreement(
                motion_only, graph, sized(found, sequence=sequence, batch=batch)
            )
            < 4
        )


def check_kind(encoder: str, fusion: str, opset: int) -> None:
    kwargs = with_images(encoder, fusion)
    model = random_model(kwargs)
    weights = arrays(model)
    for names in (EVERYTHING, EVERYTHING[:-1], EVERYTHING[:2]):
        found = signature(kwargs, names)
        graph = with_bytes(onnx_graph(kwargs, weights, found, opset), weights)
        check(graph, opset)
        inputs = sized(found, sequence=3, batch=2, height=40, width=71)
        assert disagreement(model, graph, inputs) < 4


@pytest.mark.parametrize(
    ("encoder", "fusion", "opset"),
    [(*kind, opset) for kind, opset in zip(KINDS[::3], (14, 17, 20, 23), strict=True)],
)
def test_some_kinds_of_model_compute_the_same(
    encoder: str, fusion: str, opset: int
) -> None:
    check_kind(encoder, fusion, opset)


@pytest.mark.slow
@pytest.mark.parametrize("opset", SPELLINGS)
@pytest.mark.parametrize(("encoder", "fusion"), KINDS)
def test_every_kind_computes_the_same_in_every_spelling(
    encoder: str, fusion: str, opset: int
) -> None:
    check_kind(encoder, fusion, opset)


@pytest.mark.parametrize(
    "name", sorted(path.parent.name for path in FIXTURES.glob("*/info.json"))
)
@pytest.mark.parametrize("opset", [17, 23])
def test_it_computes_what_the_original_computed(name: str, opset: int) -> None:
    kwargs = fixture_kwargs(name)
    weights = {key: tensor.numpy() for key, tensor in fixture_weights(name).items()}
    for inputs, narrow_outputs, wide_outputs in fixture_cases(name):
        graph = onnx_graph(kwargs, weights, signature(kwargs, list(inputs)), opset)
        outputs = run(with_bytes(graph, weights), inputs)
        noise = furthest(
            {key: narrow_outputs[key] for key in outputs},
            {key: wide_outputs[key] for key in outputs},
        )
        assert (
            furthest(outputs, {key: wide_outputs[key] for key in outputs}) < 4 * noise
        )


@pytest.mark.parametrize("count", range(4))
def test_any_conditioning_can_be_left_out(motion_only: nn.Module, count: int) -> None:
    weights = arrays(motion_only)
    for chosen in combinations(CONDITIONING, count):
        found = signature(MOTION_ONLY, ["motion", "text_embedding", *chosen])
        graph = with_bytes(onnx_graph(MOTION_ONLY, weights, found, 17), weights)
        assert [value.name for value in graph.graph.input] == [
            "motion",
            "text_embedding",
            *chosen,
        ]
        assert disagreement(motion_only, graph, sized(found)) < 4


@pytest.mark.parametrize("opset", [17, 23])
def test_nothing_caps_the_length(opset: int) -> None:
    kwargs = {**MOTION_ONLY, "d_model": 8, "nhead": 1, "num_layers": 1}
    model = random_model(kwargs)
    weights = arrays(model)
    found = signature(kwargs, USUAL)
    graph = with_bytes(onnx_graph(kwargs, weights, found, opset), weights)
    assert disagreement(model, graph, sized(found, sequence=5200, batch=1)) < 4


# ------------------------------------------------------------------------------
# What the file holds


@pytest.mark.parametrize(
    ("opset", "encoder"), [(14, "lightweight_cnn"), (17, "resnet"), (23, "mini_vit")]
)
def test_initialisers_are_the_state_dict_as_far_as_it_is_used(
    opset: int, encoder: str
) -> None:
    kwargs = with_images(encoder, "concat")
    weights = arrays(random_model(kwargs))
    found = signature(kwargs, ["motion", "text_embedding", "image_tensor"])
    model = onnx_graph(kwargs, weights, found, opset)
    graph, stored = model.graph, constants(model)
    left_out = ("action_", "camera_projection", "partner_projection")
    unused = (
        "num_batches_tracked",
        "text_weight",
        "image_weight",
        "layers.1.self_attn.rope.inv_freq",
    )
    expected = {
        name
        for name in weights
        if not name.startswith(left_out) and not name.endswith(unused)
    }
    expected |= {name for name in weights if name.startswith("action_predictor")}
    held = {tensor.name for tensor in graph.initializer}
    assert held == expected | stored.keys()
    assert held <= {name for node in graph.node for name in node.input}
    for tensor in graph.initializer:
        if tensor.name in stored:
            continue
        assert tuple(tensor.dims) == weights[tensor.name].shape
        assert not tensor.raw_data


def test_nothing_is_computed_ahead_of_time(motion_only: nn.Module) -> None:
    graph = onnx_graph(
        MOTION_ONLY, arrays(motion_only), signature(MOTION_ONLY, USUAL), 17
    )
    found = [numpy_helper.to_array(tensor) for tensor in constants(graph).values()]
    assert found
    assert max(constant.size for constant in found) <= 4


@pytest.mark.parametrize("opset", [14, 17, 23])
def test_a_constant_is_shown_where_it_is_read_and_not_as_a_node(
    opset: int, motion_only: nn.Module
) -> None:
    graph = onnx_graph(
        MOTION_ONLY, arrays(motion_only), signature(MOTION_ONLY, USUAL), opset
    )
    assert not nodes(graph, "Constant")
    described = {value.name for value in graph.graph.value_info}
    assert not described & constants(graph).keys()


@pytest.mark.parametrize(
    ("opset", "most"), [(14, 520), (17, 490), (20, 460), (23, 240), (25, 240)]
)
def test_the_graph_of_the_medium_model_is_small(opset: int, most: int) -> None:
    weights = {
        name: np.broadcast_to(np.float32(0), shape)
        for name, shape in expected_tensors(MEDIUM).items()
    }
    graph = onnx_graph(MEDIUM, weights, signature(MEDIUM, USUAL), opset)
    raw = sum(4 * int(np.prod(tensor.dims)) for tensor in graph.graph.initializer)
    assert len(graph.graph.node) <= most
    assert graph.ByteSize() <= 0.005 * raw


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("opset", [14, 17, 23])
def test_half_precision_stays_in_the_file_and_is_widened_in_the_graph(
    opset: int, dtype: Any
) -> None:
    kwargs = with_images("lightweight_cnn", "gated")
    model = random_model(kwargs)
    halves = {
        name: array.astype(dtype) if array.dtype == np.float32 else array
        for name, array in arrays(model).items()
    }
    model.load_state_dict(
        {
            name: torch.from_numpy(array.astype(np.float32))
            for name, array in halves.items()
        }
    )
    found = signature(kwargs, EVERYTHING)
    graph = with_bytes(onnx_graph(kwargs, halves, found, opset), halves)
    check(graph, opset)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    kinds = set()
    for tensor in graph.graph.initializer:
        if tensor.name not in constants(graph):
            kinds.add(tensor.data_type)
    assert kinds == {kind}
    assert disagreement(model, graph, sized(found, sequence=4)) < 4


def test_layers_with_frequencies_of_their_own_keep_them(motion_only: nn.Module) -> None:
    model = copy.deepcopy(motion_only)
    model.get_buffer("transformer_encoder.layers.1.self_attn.rope.inv_freq").mul_(0.7)
    weights = arrays(model)
    found = signature(MOTION_ONLY, USUAL)
    for opset in (17, 23):
        graph = with_bytes(onnx_graph(MOTION_ONLY, weights, found, opset), weights)
        assert disagreement(model, graph, sized(found)) < 4
        assert disagreement(motion_only, graph, sized(found)) > 100


@pytest.mark.parametrize("opset", [14, 17, 20, 23])
@pytest.mark.parametrize("encoder", ["lightweight_cnn", "resnet", "mini_vit"])
def test_stated_shapes_are_the_shapes_that_come_out(encoder: str, opset: int) -> None:
    kwargs = with_images(encoder, "cross_attention")
    weights = arrays(random_model(kwargs))
    found = signature(kwargs, EVERYTHING)
    graph = with_bytes(onnx_graph(kwargs, weights, found, opset), weights)
    stated = {
        value.name: value for value in (*graph.graph.value_info, *graph.graph.output)
    }
    del graph.graph.output[:]
    graph.graph.output.extend(stated.values())
    inputs = sized(found, sequence=5, batch=3, height=40, width=71)
    sizes = {"sequence": 5, "batch": 3}
    for name, array in run(graph, inputs).items():
        dims = stated[name].type.tensor_type.shape.dim
        assert array.ndim == len(dims), name
        for dim, size in zip(dims, array.shape, strict=True):
            if dim.dim_param.startswith(("height", "width")):
                assert sizes.setdefault(dim.dim_param, size) == size, name
            else:
                expected = (
                    eval(dim.dim_param, {}, sizes) if dim.dim_param else dim.dim_value
                )
                assert size == expected, (name, dim.dim_param)


def test_names_are_unique_and_follow_the_modules(motion_only: nn.Module) -> None:
    graph = onnx_graph(
        MOTION_ONLY, arrays(motion_only), signature(MOTION_ONLY, USUAL), 17
    ).graph
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    assert "transformer_encoder.layers.1.self_attn.q_proj/linear" in names
    assert "2 transformer layers of width 24 with 3 heads" in graph.doc_string
    assert all(value.doc_string for value in (*graph.input, *graph.output))


def test_the_same_model_gives_the_same_graph(motion_only: nn.Module) -> None:
    weights = arrays(motion_only)
    other_order = dict(sorted(weights.items()))
    graphs = [
        onnx_graph(MOTION_ONLY, w, signature(MOTION_ONLY, USUAL), 17)
        for w in (weights, other_order)
    ]
    assert graphs[0].SerializeToString() == graphs[1].SerializeToString()


def test_an_opset_that_the_graph_does_not_have_is_refused_with_the_range(
    motion_only: nn.Module,
) -> None:
    for opset in (13, 26):
        with pytest.raises(OpsetError, match=f"opset is {opset}.*14 to 25"):
            onnx_graph(
                MOTION_ONLY, arrays(motion_only), signature(MOTION_ONLY, USUAL), opset
            )


@pytest.mark.parametrize("opset", OPSETS)
def test_the_ir_version_is_the_lowest_that_the_opset_allows(
    motion_only: nn.Module, opset: int
) -> None:
    found = signature(MOTION_ONLY, USUAL)
    model = onnx_graph(MOTION_ONLY, arrays(motion_only), found, opset)
    lowest = helper.find_min_ir_version_for([helper.make_opsetid("", opset)])
    assert model.ir_version == lowest


# ------------------------------------------------------------------------------
# The comparison above sees mistakes


def nodes(model: onnx.ModelProto, operator: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == operator]


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def set_constant(model: onnx.ModelProto, old: float, new: float) -> None:
    name = f"constant/{float(np.float32(old))}"
    changed = numpy_helper.from_array(np.array(new, np.float32), name)
    constants(model)[name].CopyFrom(changed)


def interleave(model: onnx.ModelProto) -> None:
    for node in nodes(model, "RotaryEmbedding"):
        set_attribute(node, "interleaved", 1)


def regroup_heads(model: onnx.ModelProto) -> None:
    for node in nodes(model, "Attention"):
        set_attribute(node, "q_num_heads", 1)
        set_attribute(node, "kv_num_heads", 1)


def approximate_gelu(model: onnx.ModelProto) -> None:
    for node in nodes(model, "Gelu"):
        set_attribute(node, "approximate", "tanh")


def layer_norm_epsilon(model: onnx.ModelProto) -> None:
    for node in nodes(model, "LayerNormalization"):
        set_attribute(node, "epsilon", 1e-4)


def swap_rotary_halves(model: onnx.ModelProto) -> None:
    for node in nodes(model, "Concat"):
        if node.name.endswith("rotate_half"):
            node.input[:] = list(reversed(node.input))


def unscaled_queries(model: onnx.ModelProto) -> None:
    for node in nodes(model, "Mul"):
        node.input[:] = [
            name.removesuffix("/scaled") if name.endswith("cos/whole/scaled") else name
            for name in node.input
        ]


def keep_text_token(model: onnx.ModelProto) -> None:
    node = next(
        node for node in nodes(model, "Slice") if node.name == "decoders/frames"
    )
    node.input[1], node.input[2] = "constant/[0]", "constant/[-1]"


MISTAKES: list[tuple[Callable[[onnx.ModelProto], None], int]] = [
    (interleave, 23),
    (regroup_heads, 23),
    (approximate_gelu, 20),
    (layer_norm_epsilon, 17),
    (swap_rotary_halves, 17),
    (unscaled_queries, 17),
    (keep_text_token, 17),
    (lambda model: set_constant(model, 1e-6, 1e-4), 17),
    (lambda model: set_constant(model, 0.5, 0.50001), 14),
    (lambda model: set_constant(model, 1e-5, 1e-4), 14),
]


@pytest.mark.parametrize(("mistake", "opset"), MISTAKES)
def test_a_mistake_in_the_graph_is_seen(
    motion_only: nn.Module, mistake: Callable[[onnx.ModelProto], None], opset: int
) -> None:
    weights = arrays(motion_only)
    found = signature(MOTION_ONLY, USUAL)
    graph = with_bytes(onnx_graph(MOTION_ONLY, weights, found, opset), weights)
    inputs = sized(found)
    assert disagreement(motion_only, graph, inputs) < 4
    mistake(graph)
    assert disagreement(motion_only, graph, inputs) > 8


@pytest.mark.parametrize(
    ("name", "opset"),
    list(product(["norm1.weight", "ffn.gate_proj.weight", "k_proj.bias"], [17, 23])),
)
def test_a_wrong_weight_is_seen(motion_only: nn.Module, name: str, opset: int) -> None:
    weights = arrays(motion_only)
    found = signature(MOTION_ONLY, USUAL)
    (full,) = [key for key in weights if key.endswith(name) and ".layers.1." in key]
    wrong = {**weights, full: np.roll(weights[full], 1)}
    graph = with_bytes(onnx_graph(MOTION_ONLY, weights, found, opset), wrong)
    assert disagreement(motion_only, graph, sized(found)) > 8


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_weights_in_half_precision_are_found_in_the_file_and_a_changed_one_is_named(
    tmp_path: Path, dtype: type
) -> None:
    architecture = stick_figure(inputs=USUAL)
    weights: Arrays = {
        name: array.astype(dtype) for name, array in state_dict(architecture).items()
    }
    checkpoint = write_checkpoint(tmp_path / "checkpoint", architecture, weights)
    export_to_onnx(checkpoint, tmp_path / "onnx", exporter="direct")
    held = open_runtime("onnx", tmp_path / "onnx").weights()
    found = compare_weights(held, checkpoint)
    assert found.found > 0.7 * found.total and not found.wrong
    changed = held["text_projection.0.weight"].copy()
    changed[1, 2] *= dtype(1.01)
    (wrong,) = compare_weights(
        {**held, "text_projection.0.weight": changed}, checkpoint
    ).wrong
    assert "text_projection.0.weight" in wrong and "differs in 1 of" in wrong


def test_the_parity_check_names_the_node_that_a_mistake_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rotary angles are laid out in another way than eager's, and must not be taken for
    the mistake.
    """
    architecture = stick_figure(inputs=["motion", "text_embedding"])
    checkpoint = write_checkpoint(
        tmp_path / "checkpoint", architecture, state_dict(architecture)
    )
    inputs = sample_inputs(
        architecture.signature,
        sizes_of(architecture.signature, sequence=3, batch=1),
        seed=1,
    )
    export_to_onnx(checkpoint, tmp_path / "right", exporter="direct")
    assert "no node of it diverges" in find_divergence(
        checkpoint, tmp_path / "right/model.onnx", inputs, "pose"
    )
    monkeypatch.setattr(graph, "RMS_EPSILON", 1e-5)
    export_to_onnx(checkpoint, tmp_path / "wrong", exporter="direct")
    explanation = find_divergence(
        checkpoint, tmp_path / "wrong/model.onnx", inputs, "pose"
    )
    assert "Add 'transformer_encoder.layers.0.norm1/shifted'" in explanation
