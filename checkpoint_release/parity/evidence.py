"""What a failure leaves behind: the case that shows it, and a script that repeats it.

The script stands alone: it needs the library only where the model's own code computes.
"""

from __future__ import annotations

from pathlib import Path

from checkpoint_release.core.artifacts.formats import (
    FORMATS,
    ONNX,
    SAFETENSORS,
    TORCH_EXPORT,
    TORCHSCRIPT,
)
from checkpoint_release.parity.candidates import Candidate
from checkpoint_release.parity.judge import Evidence
from checkpoint_release.parity.sample import save_arrays

SCRIPT = "reproduce.py"

_TEMPLATE = '''"""Run {file} on the case in which it is wrong, and show by how much:
python {script}

Needs {needs}.
Beside this file are the inputs, what float64 expects of them, and what was computed.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

here = Path(__file__).parent
inputs = load_file(here / "inputs.safetensors")
expected = load_file(here / "expected.safetensors")

{run}
for name, got in zip({outputs!r}, outputs):
    want = expected[name]
    if got.shape != want.shape:
        print(f"{{name:20}} has shape {{got.shape}}, expected {{want.shape}}")
        continue
    error = np.abs(got.astype(np.float64) - want.astype(np.float64))
    largest, reach = error.max(initial=0), np.abs(want).max(initial=0)
    print(f"{{name:20}} largest error {{largest:.3g}} where values reach {{reach:.3g}}")
'''

_RUN_ONNX = """\
import onnxruntime

session = onnxruntime.InferenceSession({file!r}, providers=["CPUExecutionProvider"])
outputs = session.run(None, {{name: inputs[name] for name in {inputs!r}}})
"""

_RUN_TORCH = """\
import torch

torch.set_num_threads(1)
module = {module}
with torch.inference_mode():
    outputs = module(*(torch.from_numpy(inputs[name]) for name in {inputs!r}))
if not isinstance(outputs, tuple):
    outputs = (outputs,)
outputs = [tensor.numpy() for tensor in outputs]
"""

_RUN_EAGER = """\
import sys

sys.path.insert(0, ".")
from checkpoint_release.core.params import load_params
from checkpoint_release.core.sources import make_importable
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.runtimes.open import open_runtime

make_importable(load_params().model)
runtime = open_runtime({format!r}, {file!r}, threads=1, trust=OWN_ARTIFACTS)
outputs = runtime.run(inputs).values()
"""

_NEEDS = {
    ONNX.name: "numpy, safetensors and onnxruntime",
    TORCHSCRIPT.name: "numpy, safetensors and torch",
    TORCH_EXPORT.name: "numpy, safetensors and torch",
    SAFETENSORS.name: (
        "checkpoint_release, and the model's own code in the working directory"
    ),
}


def write_evidence(folder: Path, candidate: Candidate, evidence: Evidence) -> Path:
    """Write the inputs, expected and got of a case, and a script that runs the
    candidate on them.

    Returns:
        The path of the script.
    """
    folder.mkdir(parents=True, exist_ok=True)
    reference = evidence.reference
    save_arrays(folder / "inputs.safetensors", reference.case.inputs)
    save_arrays(folder / "expected.safetensors", reference.rounded)
    if evidence.got:
        save_arrays(folder / "got.safetensors", evidence.got)
    script = folder / SCRIPT
    text = _TEMPLATE.format(
        file=candidate.file.as_posix(),
        script=script.as_posix(),
        needs=_NEEDS[candidate.format],
        run=_run(candidate, list(reference.case.inputs)),
        outputs=list(reference.outputs),
    )
    script.write_text(text, encoding="utf-8")
    return script


def _run(candidate: Candidate, inputs: list[str]) -> str:
    """The lines that compute `outputs` of `inputs`."""
    file = candidate.file.as_posix()
    if FORMATS[candidate.format].eager:
        return _RUN_EAGER.format(format=candidate.format, file=file)
    if candidate.format == ONNX.name:
        return _RUN_ONNX.format(file=file, inputs=inputs)
    if candidate.format == TORCHSCRIPT.name:
        module = f"torch.jit.load({file!r}).eval()"
    else:
        module = f"torch.export.load({file!r}).module()"
    return _RUN_TORCH.format(module=module, inputs=inputs)
