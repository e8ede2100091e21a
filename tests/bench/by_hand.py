"""What people write by hand: one process, unsafe load, three formats, one comparison.

`python by_hand.py CHECKPOINT OUT KWARGS`
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import numpy as np
import onnxruntime
import torch
from safetensors.torch import save_file

from checkpoint_release.models.stick_figure import build

INPUTS = ["motion", "text_embedding", "action_sequence"]
OUTPUTS = ["pose", "position", "velocity", "action_logits", "physics", "environment"]
FRAMES = {0: "sequence", 1: "batch"}
AXES = {
    "motion": FRAMES,
    "text_embedding": {0: "batch"},
    "action_sequence": FRAMES,
}


class Flat(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.model(*inputs))


def main(path: str, out: str, kwargs: str) -> None:
    warnings.simplefilter("ignore")
    weights = torch.load(path, weights_only=False)["model_state_dict"]
    model = build(**json.loads(kwargs))
    model.load_state_dict(weights)
    flat = Flat(model).eval()
    save_file(weights, f"{out}/model.safetensors")

    inputs = (
        torch.randn(250, 2, 48),
        torch.randn(2, 1024),
        torch.randint(0, 64, (250, 2)),
    )
    torch.onnx.export(
        flat,
        inputs,
        f"{out}/model.onnx",
        input_names=INPUTS,
        output_names=OUTPUTS,
        dynamic_axes=AXES,
        opset_version=17,
        dynamo=False,
    )
    torch.jit.save(torch.jit.trace(flat, inputs), f"{out}/model.pt")
    with torch.no_grad():
        compare(out, inputs, flat(*inputs))


def compare(
    out: str, inputs: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]
) -> None:
    session = onnxruntime.InferenceSession(
        f"{out}/model.onnx", providers=["CPUExecutionProvider"]
    )
    arrays: dict[str, Any] = {}
    for name, tensor in zip(INPUTS, inputs, strict=True):
        arrays[name] = tensor.numpy()
    from_onnx = session.run(None, arrays)
    from_script = torch.jit.load(f"{out}/model.pt")(*inputs)
    for eager, onnx, script in zip(expected, from_onnx, from_script, strict=True):
        np.testing.assert_allclose(onnx, eager, atol=1e-2)
        np.testing.assert_allclose(script, eager, atol=1e-2)


if __name__ == "__main__":
    main(*sys.argv[1:])
