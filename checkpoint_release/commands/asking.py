"""The arguments that `new` and `convert` share: options of params.yaml as flags."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from checkpoint_release.core.artifacts.formats import FORMATS

if TYPE_CHECKING:
    from checkpoint_release.project.settings import Asked


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what says which model it is and how it is released."""
    parser.add_argument(
        "--factory",
        metavar="CODE",
        help="package.module:callable that builds the model (model.factory)",
    )
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="PATH",
        help="file or folder of its code, once for each (model.source); found by the"
        " factory's name if left out",
    )
    parser.add_argument(
        "--config",
        metavar="PATH",
        help="config.json of a model of transformers or diffusers, or the folder with"
        " it and the tokenizer, in place of a factory",
    )
    parser.add_argument(
        "--signature",
        metavar="FILE",
        help="YAML or JSON file with inputs, outputs and dimensions (model.signature)",
    )
    parser.add_argument(
        "--formats",
        nargs="+",
        choices=tuple(FORMATS),
        metavar="FORMAT",
        help=f"what to export, of {', '.join(FORMATS)}",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other option of params.yaml, such as onnx.opset=20",
    )


def asked_for(
    asked: argparse.Namespace,
    checkpoint: str | None,
    repo_id: str | None = None,
) -> Asked:
    """What the arguments ask for.

    Args:
        asked: as add_model_arguments declares them.
        checkpoint: path of the checkpoint.
        repo_id: organisation/name on the Hub.
    """
    from checkpoint_release.project.settings import Asked

    return Asked(
        checkpoint=checkpoint,
        factory=asked.factory,
        repo_id=repo_id,
        source=tuple(asked.source),
        config=asked.config,
        signature=asked.signature,
        formats=tuple(asked.formats) if asked.formats else None,
        settings=tuple(asked.set),
    )
