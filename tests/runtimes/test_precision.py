"""A model computes in its own dtypes, and its reference in double precision."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.errors import ModelError
from checkpoint_release.core.stated_signature import read_signature
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.runtimes.loader import load
from checkpoint_release.runtimes.open import open_runtime
from checkpoint_release.runtimes.precision import double_precision, widen
from checkpoint_release.runtimes.weights_loading import load_weights
from tests.support import number_models
from tests.support.checkpoint_folder import state_dict, write_checkpoint

KINDS = [
    number_models.FourierLayer,
    number_models.Rotations,
    number_models.StateSpace,
    number_models.DoubleBuffer,
    number_models.BFloat16,
    number_models.Float16,
]
SIGNATURE = {
    "inputs": [{"name": "features", "shape": ["batch", "sequence", 4]}],
    "outputs": ["out"],
    "dimensions": {"sequence": {"minimum": 6, "maximum": 64, "example": 8}},
}


def architecture(kind: type[nn.Module]) -> Architecture:
    name = f"{kind.__module__}:{kind.__name__}"
    return Architecture(name, {}, read_signature(SIGNATURE))


def features() -> Tensor:
    return torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(1))


def built(kind: type[nn.Module]) -> nn.Module:
    """The model as tests.support.checkpoint_folder.state_dict makes it."""
    torch.manual_seed(0)
    return kind().eval()


class ByHand(nn.Module):
    """Everything that a plain `.double()` gets wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.randn(4, 4)  # neither parameter nor buffer
        self.narrow = nn.Parameter(torch.randn(4).bfloat16())

    def forward(self, x: Tensor) -> Tensor:
        x = x.float() @ self.table  # a cast, and a tensor that stays behind
        x = x + torch.full((4,), 0.1, dtype=torch.float32) * torch.tensor(0.3)
        total = torch.zeros(4)  # of the default dtype
        total[1] = x.mean()
        total.add_(self.narrow)
        return (x + total).to(torch.float32) * torch.ones_like(x, dtype=torch.float32)


def test_double_precision_reaches_casts_and_tensors_that_forward_makes() -> None:
    torch.manual_seed(0)
    model, x = ByHand().eval(), features()
    with torch.inference_mode(), double_precision():
        found = widen(model)(x.double())
    table, narrow = model.table.double().numpy(), model.narrow.detach().numpy()
    expected = x.double().numpy() @ table + 0.1 * 0.3
    total = np.zeros(4)
    total[1] = expected.mean()
    expected = expected + (total + narrow)
    assert found.dtype == torch.float64
    # float32 alone would leave 1e-7; rounded in bfloat16, 1e-2
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-13, atol=1e-13)
    assert torch.get_default_dtype() == torch.float32


def test_widening_keeps_imaginary_parts_and_integers() -> None:
    module = nn.BatchNorm1d(3)
    module.register_buffer("table", torch.tensor([1 + 2j]))
    widen(module)
    assert module.weight.dtype == torch.float64
    table = module.get_buffer("table")
    assert table.dtype == torch.complex128 and table.imag.item() == 2
    assert module.num_batches_tracked is not None
    assert module.num_batches_tracked.dtype == torch.int64


@pytest.mark.parametrize("kind", KINDS)
def test_the_checkpoint_and_its_reference_are_the_model(
    kind: type[nn.Module], tmp_path: Path
) -> None:
    folder = write_checkpoint(
        tmp_path / "checkpoint", architecture(kind), state_dict(architecture(kind))
    )
    x = features()
    with torch.inference_mode():
        own = built(kind)(x).numpy()
    inputs = {"features": x.numpy()}
    opened = partial(open_runtime, "checkpoint", folder, trust=OWN_ARTIFACTS)
    found = opened().run(inputs)["out"]
    assert found.dtype == own.dtype
    np.testing.assert_array_equal(found, own)
    double = opened(dtype="float64").run(inputs)["out"]
    assert double.dtype == np.float64
    half = kind in (number_models.BFloat16, number_models.Float16)
    error = np.abs(double - own).max()
    assert 0 < error < (2e-2 if half else 1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loader_runs_it_in_its_own_dtypes(
    kind: type[nn.Module], tmp_path: Path
) -> None:
    from tests.support.exports import run_stage

    folder = write_checkpoint(
        tmp_path / "checkpoint", architecture(kind), state_dict(architecture(kind))
    )
    from pipeline import export_safetensors

    artifacts = run_stage(export_safetensors.main, tmp_path / "project", folder)
    name = architecture(kind).factory
    model = load(artifacts / "safetensors", trust=[name])
    x = features()
    with torch.inference_mode():
        own = built(kind)(x).numpy()
    np.testing.assert_array_equal(model(features=x.numpy())["out"], own)


@pytest.mark.parametrize(
    ("own", "given", "said"),
    [
        (torch.float32, torch.complex64, "imaginary parts would be lost"),
        (torch.float32, torch.float64, "save the checkpoint in float32"),
        (torch.bfloat16, torch.float32, "save the checkpoint in bfloat16"),
        (torch.float16, torch.bfloat16, "save the checkpoint in float16"),
        (torch.complex64, torch.complex128, "save the checkpoint in complex64"),
        (torch.int64, torch.float32, "save the checkpoint in int64"),
    ],
)
@pytest.mark.parametrize("assign", [False, True])
def test_weights_that_the_model_s_dtype_does_not_hold_are_refused(
    own: torch.dtype, given: torch.dtype, said: str, assign: bool
) -> None:
    model = nn.Module()
    model.register_buffer("weight", torch.zeros(3).to(own))
    with pytest.raises(ModelError, match=said):
        load_weights(model, {"weight": torch.ones(3).to(given)}, assign=assign)


@pytest.mark.parametrize(
    ("own", "given"),
    [
        (torch.float32, torch.float16),
        (torch.float64, torch.float32),
        (torch.complex64, torch.float32),
        (torch.complex128, torch.complex64),
        (torch.float32, torch.int64),
        (torch.int64, torch.int32),
    ],
)
@pytest.mark.parametrize("assign", [False, True])
def test_weights_that_it_holds_are_taken(
    own: torch.dtype, given: torch.dtype, assign: bool
) -> None:
    model = nn.Module()
    model.register_buffer("weight", torch.zeros(3).to(own))
    load_weights(model, {"weight": torch.full((3,), 7).to(given)}, assign=assign)
    assert torch.equal(model.state_dict()["weight"], torch.full((3,), 7).to(own))
    whole = torch.tensor([2**24 + 1])
    if (own, given) == (torch.float32, torch.int64):
        model.register_buffer("weight", torch.zeros(1))
        with pytest.raises(ModelError, match="int64"):
            load_weights(model, {"weight": whole}, assign=assign)
