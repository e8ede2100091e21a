"""What Hugging Face's libraries need of a StickFigureTransformer, its code included.

The code is the project's own, file by file: `model.py` is the model, and the two files
beside it tell transformers how to build it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FRAMES_PER_SECOND = 25
TRAINING_FRAMES = 250
# Positions reach hundreds of radians: rounding their frequencies to 16 bits would turn
# late frames by half a radian.
KEEP_FLOAT32 = ("inv_freq",)


def config(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json says beside the constructor's arguments."""
    return {
        "architectures": ["StickFigureModel"],
        "model_type": "stick_figure",
        "auto_map": {
            "AutoConfig": "configuration_stick_figure.StickFigureConfig",
            "AutoModel": "modeling_stick_figure.StickFigureModel",
        },
        **generation_config(kwargs),
    }


def generation_config(_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Frames a second, and the frames of a sequence in training.

    The model itself sets no limit.
    """
    return {"fps": FRAMES_PER_SECOND, "sequence_length": TRAINING_FRAMES}


def huggingface_files(
    _kwargs: Mapping[str, Any], _config: Mapping[str, Any]
) -> dict[str, str]:
    """The code that `AutoModel.from_pretrained(…, trust_remote_code=True)` runs.

    Returns:
        Name → content.
    """
    names = ("configuration_stick_figure.py", "modeling_stick_figure.py", "model.py")
    folder = Path(__file__).parent
    return {name: (folder / name).read_text(encoding="utf-8") for name in names}
