"""OpenVINO's interface over onnxruntime, right or wrong, to be judged in tests."""

from __future__ import annotations

from pathlib import Path

_MODULE = """
import onnxruntime


class Core:
    def compile_model(self, file, device, options):
        assert options == {"INFERENCE_PRECISION_HINT": "f32"}, options
        session = onnxruntime.InferenceSession(str(file))
        runs = []

        def run(inputs):
            runs.append(inputs)
            names = [output.name for output in session.get_outputs()]
            found = dict(zip(names, session.run(None, inputs)))
            FAULT
            return found

        return run
"""
RIGHT = "pass"
WRONG = 'found["pose"] = found["pose"] * 1.001'
FAILS = 'if len(runs) == 2: raise RuntimeError("no kernel for Gemm")'
ENDS = "if len(runs) == 2: import os; os._exit(7)"
HANGS = "import time; time.sleep(3600)"


def fake_openvino(folder: Path, fault: str = RIGHT) -> Path:
    """Write a package and its metadata.

    Args:
        folder: for PYTHONPATH; made anew.
        fault: a statement that each run ends with.
    """
    metadata = folder / "openvino-2999.1.dist-info/METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: openvino\nVersion: 2999.1\n")
    (folder / "openvino.py").write_text(_MODULE.replace("FAULT", fault))
    return folder
