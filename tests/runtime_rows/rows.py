"""The rows of the table in docs/deployment.md: what runs a release, and by what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from checkpoint_release.parity.other_runtimes import ADAPTERS
from tests.runtime_rows.arm64 import Arm64
from tests.runtime_rows.environments import Environment, Here, Lacking, Npm, Pip

OWN = Path(__file__).with_name("adapters")
BASICS = ("numpy==2.4.6", "safetensors==0.8.0")
NODE = Npm(("onnxruntime-node@1.30.0", "onnxruntime-web@1.30.0"))
OPENVINO = Pip(("openvino==2026.4.1", *BASICS))
EXECUTORCH = Pip(("executorch==1.5.1",), beside_ours=True)
IREE = Pip(
    ("iree-base-compiler==3.13.0", "iree-base-runtime==3.13.0", "onnx==1.23.2", *BASICS)
)
ONNX = "onnx/model.onnx"
FIXED = "onnx/model_fixed.onnx"
FIXED_SIZES = {"sequence": 25, "batch": 2}
ORT = "model.ort"
"""The ONNX file in ONNX Runtime's format, beside the release."""
TORCHSCRIPT = "torchscript/model.pt"
TORCH_EXPORT = "torch_export/model.pt2"
RELEASE = "."

PASSES, WRONG, FAILS = "passes", "WRONG", "fails"


@dataclass(frozen=True)
class Row:
    """A runtime, and what it is given.

    Attributes:
        name: on the command line.
        title: in the table.
        reads: the file in the release, or ORT.
        environment: what it runs in.
        adapter: see checkpoint_release/parity/adapters/harness.py; None: Node's.
        package: that Node looks for.
        fixed: whether it runs at FIXED_SIZES alone.
        expected: the verdict that is known, and another one is a change to look into;
            None: it depends on the processor.
    """

    name: str
    title: str
    reads: str
    environment: Environment
    adapter: Path | None = None
    package: str = ""
    fixed: bool = False
    expected: str | None = PASSES


NO_GPU = Lacking("no GPU here")
ROWS = [
    Row(
        "onnxruntime",
        "ONNX Runtime, Python",
        ONNX,
        Here(),
        OWN / "onnxruntime_python.py",
    ),
    Row(
        "ort-format",
        "ONNX Runtime, `.ort` file",
        ORT,
        Here(),
        OWN / "onnxruntime_python.py",
    ),
    Row(
        "arm64",
        "ONNX Runtime, Python on ARM64 (computed by QEMU)",
        ONNX,
        Arm64(("onnxruntime==1.32.0", *BASICS)),
        OWN / "onnxruntime_python.py",
    ),
    Row(
        "onnxruntime-node",
        "onnxruntime-node",
        ONNX,
        NODE,
        package="onnxruntime-node",
    ),
    Row(
        "onnxruntime-web",
        "onnxruntime-web, WebAssembly in Node",
        ONNX,
        NODE,
        package="onnxruntime-web",
    ),
    Row(
        "chromium-wasm",
        "onnxruntime-web, WebAssembly in Chromium",
        ONNX,
        Here("chromium"),
        OWN / "chromium_wasm.py",
    ),
    Row(
        "chromium-webgpu",
        "onnxruntime-web, WebGPU in Chromium (computed by SwiftShader)",
        ONNX,
        Here("chromium"),
        OWN / "chromium_webgpu.py",
    ),
    Row(
        "openvino",
        "OpenVINO with `INFERENCE_PRECISION_HINT: f32`, CPU",
        ONNX,
        OPENVINO,
        ADAPTERS / "openvino.py",
    ),
    Row(
        "openvino-default",
        "OpenVINO by its default, CPU",
        ONNX,
        OPENVINO,
        OWN / "openvino_default.py",
        expected=None,  # bfloat16 where the processor has it
    ),
    Row(
        "tract",
        "tract (Rust), by its Python package",
        ONNX,
        Pip(("tract==0.23.9", *BASICS)),
        ADAPTERS / "tract.py",
    ),
    Row(
        "iree",
        "IREE, CPU",
        ONNX,
        IREE,
        OWN / "iree.py",
        expected=WRONG,
    ),
    Row(
        "iree-fixed",
        "IREE, CPU, sizes fixed",
        FIXED,
        IREE,
        OWN / "iree.py",
        fixed=True,
    ),
    Row(
        "torchscript",
        "torch, Python",
        TORCHSCRIPT,
        Here(),
        OWN / "torchscript.py",
    ),
    Row(
        "libtorch",
        "libtorch, C++ compiled with g++",
        TORCHSCRIPT,
        Here("g++"),
        OWN / "libtorch.py",
    ),
    Row(
        "executorch",
        "ExecuTorch, portable kernels",
        TORCH_EXPORT,
        EXECUTORCH,
        OWN / "executorch.py",
        expected=FAILS,
    ),
    Row(
        "executorch-bounded",
        "ExecuTorch, portable kernels, exported again with upper bounds",
        TORCH_EXPORT,
        EXECUTORCH,
        OWN / "executorch_bounded.py",
    ),
    Row(
        "executorch-fixed",
        "ExecuTorch, portable kernels, exported again with sizes fixed",
        TORCH_EXPORT,
        EXECUTORCH,
        OWN / "executorch_fixed.py",
        fixed=True,
    ),
    Row(
        "transformers",
        "transformers, `AutoModel`",
        RELEASE,
        Here(),
        OWN / "transformers.py",
    ),
    Row(
        "optimum",
        "optimum, `ORTModelForCustomTasks`",
        RELEASE,
        Pip(
            ("optimum==2.1.0", "optimum-onnx==0.1.0", "transformers==4.57.6"),
            beside_ours=True,
        ),
        OWN / "optimum.py",
    ),
    Row(
        "transformers-js",
        "transformers.js in Node",
        RELEASE,
        Npm(("@huggingface/transformers@4.3.1",)),
        OWN / "transformers_js.mjs",
        package="@huggingface/transformers",
    ),
    Row(
        "litert",
        "LiteRT, by litert-torch, sizes fixed",
        RELEASE,
        Pip(("litert-torch==0.10.0",), beside_ours=True),
        OWN / "litert.py",
        fixed=True,
    ),
    Row("cuda", "ONNX Runtime, CUDA", ONNX, NO_GPU),
    Row("tensorrt", "TensorRT", ONNX, NO_GPU),
    Row("directml", "DirectML", ONNX, Lacking("it takes Windows")),
    Row("coreml", "CoreML", TORCHSCRIPT, Lacking("it takes a Mac")),
]
QUICK = (
    "onnxruntime",
    "ort-format",
    "onnxruntime-node",
    "onnxruntime-web",
    "openvino",
    "openvino-default",
    "tract",
    "torchscript",
)
"""Rows that the slow tests run: what they take is installed within seconds."""
