"""ONNX Runtime's sessions of files, also of large ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from checkpoint_release.core.large import is_large
from checkpoint_release.runtimes.onnx_library import onnxruntime
from checkpoint_release.runtimes.onnx_skeleton import read_in_place

_ERRORS_ONLY = 3  # the severity from which ONNX Runtime logs
_FOLDER = "session.model_external_initializers_file_folder_path"


def session_settings(threads: int | None) -> Any:
    """Options of a session that raises what goes wrong and logs nothing else.

    Args:
        threads: for it to use; None: ONNX Runtime's default.
    """
    settings = onnxruntime.SessionOptions()
    # warnings about kernels are not the user's
    settings.log_severity_level = _ERRORS_ONLY
    if threads is not None:
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = threads
    return settings


def open_session(file: Path, settings: Any, providers: Sequence[str]) -> Any:
    """A session of a file.

    ONNX Runtime reads a file whole, and then copies each weight out of what it has
    read. Of a large one it is given the graph, and maps the weights out of the file.

    Args:
        file: the .onnx file, its external data beside it.
        settings: as of session_settings.
        providers: the execution providers.

    Raises:
        Exception: whatever ONNX Runtime raises on a file that it can't open.
    """
    source: str | bytes = str(file)
    if is_large(file.stat().st_size):
        settings.add_session_config_entry(_FOLDER, str(file.parent))
        source = read_in_place(file).SerializeToString()
    return onnxruntime.InferenceSession(source, settings, providers=list(providers))
