"""What inputs may look like, guessed from the model's own layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from checkpoint_release.core.signature import TensorSpec
from checkpoint_release.runtimes.model_alone import parameter_sizes

EXAMPLES = {
    "batch": 3,
    "sequence": 12,
    "channels": 4,
    "depth": 16,
    "height": 64,
    "width": 64,
    "length": 64,
}
"""Dimension → its size in a first guess."""
LONG_EXAMPLES = {
    **EXAMPLES,
    "length": 16_384,
    "sequence": 128,
    "height": 224,
    "width": 224,
}
"""The sizes for models that need more."""
_SPATIAL = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}
_CONVOLUTIONS = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
_OF_INTEGERS = ("token", "ids", "index", "indices", "label", "step", "action", "class")
_OF_COUNTS = ("lengths", "length", "lens", "len")  # of the sequences in a batch
_OF_STATES = {"h", "c", "h0", "c0", "hx", "cx", "hidden", "cell", "state", "states"}
_FRAMES = (256, 512, 1024, 2048, 4096)  # samples of a frame of sound


def guesses(model: nn.Module, name: str) -> list[TensorSpec]:
    """What an input may look like, the likeliest first.

    Args:
        model: whose input it is.
        name: of the input; it suggests integers, a mask, lengths or a state.
    """
    kinds = list(dict.fromkeys(_kinds(model)))
    lower = name.lower()
    if lower.rpartition("_")[2] in _OF_COUNTS:
        kinds.insert(0, _integers("batch", low=1, high=EXAMPLES["sequence"] + 1))
    elif _OF_STATES.intersection(lower.split("_")):
        kinds = list(dict.fromkeys([*_states(model), *kinds]))
    elif "mask" in lower:
        masks = [
            TensorSpec("", "bool", ("batch", "sequence")),
            _integers("batch", "sequence", high=2),
            TensorSpec("", "bool", ("sequence", "sequence")),
            _floats("sequence", "sequence"),
        ]
        kinds = list(dict.fromkeys(masks + kinds))
    elif any(part in lower for part in _OF_INTEGERS):
        kinds.sort(key=lambda kind: not kind.is_integer)
    return [replace(kind, name=name) for kind in kinds]


def with_floats_in(
    specs: Sequence[TensorSpec], low: float, high: float
) -> tuple[TensorSpec, ...]:
    """The inputs, those of floats in a range."""
    ranged = []
    for spec in specs:
        ranged.append(replace(spec, low=low, high=high) if is_float(spec) else spec)
    return tuple(ranged)


def is_float(spec: TensorSpec) -> bool:
    """Whether an input holds floats."""
    return not spec.is_integer and spec.dtype != "bool"


def _kinds(model: nn.Module) -> Iterator[TensorSpec]:
    """What inputs of the model's layers look like, nameless."""
    tables = [each.num_embeddings for each in _modules(model, nn.Embedding)]
    for high in sorted(tables, reverse=True):
        yield _integers("batch", "sequence", high=high)
    order = _order_of_sequences(model)
    for module in model.modules():
        yield from _of_layer(module, order)
    yield from _states(model)
    for high in sorted(tables, reverse=True):
        yield _integers("batch", high=high)
    for size in parameter_sizes(model):
        yield _floats("batch", size)
        yield _floats("batch", "sequence", size)
    for shape in (("batch", "sequence"), ("batch",), ()):
        yield _floats(*shape)
    yield TensorSpec("", "bool", ("batch", "sequence"))
    yield _integers("batch", "sequence", high=2)
    for size in _FRAMES:
        yield _floats("batch", size)


def _modules(model: nn.Module, kind: type[nn.Module]) -> Iterator[Any]:
    return (module for module in model.modules() if isinstance(module, kind))


def _order_of_sequences(model: nn.Module) -> tuple[str, str] | None:
    """The first two axes of what the model's layers of sequences take; None: it has no
    such layers.
    """
    for module in model.modules():
        if isinstance(module, nn.RNNBase | nn.MultiheadAttention):
            return _order(module)
    return None


def _states(model: nn.Module) -> Iterator[TensorSpec]:
    """What recurrent layers hand on from one call to the next."""
    for module in _modules(model, nn.RNNBase):
        count = module.num_layers * (2 if module.bidirectional else 1)
        for size in (module.proj_size or module.hidden_size, module.hidden_size):
            yield _floats(count, "batch", size)
    for cell in _modules(model, nn.RNNCellBase):
        yield _floats("batch", cell.hidden_size)


def _of_layer(module: Any, order: tuple[str, str] | None) -> Iterator[TensorSpec]:
    """What a layer takes.

    Args:
        module: the layer.
        order: of the model's layers of sequences. These also take a single sequence
            without a batch, so that a batch of vectors would seem to be right.
    """
    for kind, axes in _CONVOLUTIONS.items():
        if isinstance(module, kind):
            yield _floats("batch", module.in_channels, *_SPATIAL[axes])
            yield _floats("batch", *_SPATIAL[axes])
    if isinstance(module, nn.RNNBase):
        yield _floats(*_order(module), module.input_size)
    if isinstance(module, nn.Linear):
        if order is not None:
            yield _floats(*order, module.in_features)
        yield _floats("batch", module.in_features)
        yield _floats("batch", "sequence", module.in_features)
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) > 1:
        yield _floats("batch", *module.normalized_shape)
    if isinstance(module, nn.MultiheadAttention):
        yield _floats(*_order(module), module.embed_dim)


def _order(module: Any) -> tuple[str, str]:
    """The first two axes of what a layer of sequences takes."""
    return ("batch", "sequence") if module.batch_first else ("sequence", "batch")


def _floats(*shape: int | str) -> TensorSpec:
    return TensorSpec("", shape=shape)


def _integers(*shape: int | str, high: int, low: int = 0) -> TensorSpec:
    return TensorSpec("", "int64", shape, low=low, high=high)
