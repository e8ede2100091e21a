"""ONNX Runtime without its telemetry.

Version 1.32 writes an id of the device and a database of events below the home folder
when a model is opened. It reads the variable when it is imported, so it is imported
here alone.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

__all__ = ["onnxruntime"]
