"""transformers, by the code that the release carries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel

PACKAGE = "transformers"


def load(file: Path, outputs: list[str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A release's folder, whose code is trusted."""
    model = AutoModel.from_pretrained(str(file), trust_remote_code=True).eval()

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        with torch.inference_mode():
            found = model(**tensors)
        # a named tuple, as this model's own code gives it
        return {name: getattr(found, name).numpy() for name in outputs}

    return run
