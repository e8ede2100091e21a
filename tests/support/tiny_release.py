"""A tiny model in every format, as a release holds them, and what it computes."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.checkpoint import CheckpointFolder
from checkpoint_release.core.signature import Arrays, Signature, sample_inputs
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.exporting.config_json import model_config
from checkpoint_release.runtimes.loader import Model, load
from tests.support.checkpoint_folder import state_dict, write_checkpoint

FILES = {
    "safetensors": "model.safetensors",
    "onnx": "onnx/model.onnx",
    "torchscript": "torchscript/model.pt",
    "torch_export": "torch_export/model.pt2",
    "pth": "checkpoint.pth",
}


def write_tiny_release(root: Path, architecture: Architecture) -> None:
    """Write the model in every format of FILES, exported with torch alone."""
    import torch

    from checkpoint_release.runtimes.eager import ExportModule, build_eager

    checkpoint = write_checkpoint(
        root / "checkpoint", architecture, state_dict(architecture), {"epoch": 3}
    )
    config = model_config(CheckpointFolder.open(checkpoint, OWN_ARTIFACTS))
    for folder in (".", "onnx", "torchscript", "torch_export"):
        config.write(root / folder)
    shutil.copy(checkpoint / "weights.safetensors", root / FILES["safetensors"])
    model, signature = build_eager(checkpoint, OWN_ARTIFACTS)
    torch.save(
        {"model_state_dict": model.state_dict(), "epoch": 3}, root / FILES["pth"]
    )
    module = ExportModule(model, signature).eval()
    sample = sample_inputs(signature, sizes_of(signature), 1)
    inputs = tuple(torch.from_numpy(array) for array in sample.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            inputs,
            root / FILES["onnx"],
            input_names=signature.input_names,
            output_names=signature.output_names,
            dynamic_axes=dynamic_axes(signature),
            opset_version=17,
            dynamo=False,
        )
        torch.jit.save(
            torch.jit.trace(module, inputs, check_trace=False),
            root / FILES["torchscript"],
        )
        torch.export.save(
            torch.export.export(module, inputs), root / FILES["torch_export"]
        )


def dynamic_axes(signature: Signature) -> dict[str, dict[int, str]]:
    """The dynamic axes of every input and output, as torch.onnx.export takes them."""
    specs = (*signature.inputs, *signature.outputs)
    return {spec.name: spec.dynamic_axes for spec in specs}


def sizes_of(signature: Signature, **sizes: int) -> dict[str, int]:
    """Each dynamic dimension's example size, or the given one."""
    return {
        name: sizes.get(name, dimension.example)
        for name, dimension in signature.dimensions.items()
    }


def random_inputs(architecture: Architecture) -> Arrays:
    """Inputs of the example sizes."""
    return sample_inputs(architecture.signature, sizes_of(architecture.signature), 2)


def eager_outputs(release: Path, inputs: Arrays) -> Arrays:
    """What the model itself computes."""
    import torch

    from checkpoint_release.runtimes.eager import build_eager

    model, _ = build_eager(release / "checkpoint", OWN_ARTIFACTS)
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    with torch.inference_mode():
        outputs = model(**tensors)
    return {name: getattr(outputs, name).numpy() for name in outputs._fields}


def load_quietly(path: Path, **options: Any) -> Model:
    """Load, without the warning that .pth is deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return load(path, **options)


def assert_close(outputs: Arrays, expected: Arrays) -> None:
    """Same names in the same order, and values as close as float32 computes them."""
    assert list(outputs) == list(expected)
    for name, array in outputs.items():
        np.testing.assert_allclose(
            array, expected[name], rtol=1e-4, atol=1e-5, err_msg=name
        )
