"""checkpoint-release signature: draft what a model takes and gives, by running it.

checkpoint-release signature tagger.net:build --kwargs "{hidden: 64}" > signature.yaml

The model's code runs: naming it here is what trusts it.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoint_release.core.errors import CheckpointReleaseError, ParamsError

if TYPE_CHECKING:
    from checkpoint_release.core.trust import Trust
    from checkpoint_release.drafting.draft import Draft

_FLAGS = {"model.kwargs": "kwargs", "model.source": "source"}
SUMMARY = "draft a model's inputs, outputs and dimensions, by running it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "factory", help="package.module:callable that builds the model; its code runs"
    )
    parser.add_argument(
        "--source",
        metavar="PATH",
        help="file or folder of its code; found by the factory's name if left out",
    )
    parser.add_argument(
        "--kwargs",
        metavar="YAML",
        default="{}",
        help="the factory's arguments, such as '{hidden: 64}'",
    )


def run(asked: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Print the draft as YAML.

    Raises:
        CheckpointReleaseError: the factory isn't there or fails, or the model runs on
            nothing that was tried.
    """
    from checkpoint_release.core.trust import Trust
    from checkpoint_release.drafting.text import draft_yaml

    _make_importable(asked.factory, asked.source)
    kwargs, trust = _read_kwargs(asked.kwargs), Trust.of([asked.factory])
    try:
        with redirect_stdout(sys.stderr):  # what the model prints is no YAML
            stated = _stated_by_the_family(asked.factory, kwargs, trust)
            draft = stated or _drafted(asked.factory, kwargs, trust)
    except CheckpointReleaseError as error:
        raise error.renamed(lambda option: _FLAGS.get(option, option)) from None
    if stated is None:
        print(f"# drafted by running {asked.factory}: check what the integers mean")
    else:
        module = asked.factory.partition(":")[0]
        print(f"# {module} states it itself: model.signature may stay null")
    print(draft_yaml(draft), end="")
    return 0


def _stated_by_the_family(
    factory: str, kwargs: dict[str, Any], trust: Trust
) -> Draft | None:
    """The signature of a module that describes its models; None: it doesn't.

    Raises:
        CheckpointReleaseError: the module isn't there, or has no such model.
    """
    from checkpoint_release.core.architecture import Architecture
    from checkpoint_release.core.signature import Signature
    from checkpoint_release.drafting.draft import Draft

    nothing = Signature((), (), {})
    family = Architecture(factory, kwargs, nothing, described=True, trust=trust)
    read, sign = family.hook("read_architecture"), family.hook("signature")
    if read is None or sign is None:
        return None
    return Draft(sign(read({}, kwargs), None))


def _drafted(factory: str, kwargs: dict[str, Any], trust: Trust) -> Draft:
    """The draft of a model that says nothing of itself.

    Raises:
        CheckpointReleaseError: the factory isn't there or fails, or the model runs on
            nothing that was tried.
    """
    from checkpoint_release.core.architecture import Architecture
    from checkpoint_release.core.signature import Signature
    from checkpoint_release.drafting.draft import draft_signature

    nothing = Signature((), (), {})
    return draft_signature(Architecture(factory, kwargs, nothing, trust=trust))


def _make_importable(factory: str, source: str | None) -> None:
    """Let Python import the model's code, after whatever is installed."""
    from checkpoint_release.core.sources import import_root
    from checkpoint_release.project.place import (
        locate_code,
        require_factory,
        require_there,
    )

    require_factory(factory)
    if source is not None:
        require_there(source, "--source")
        code: Path | None = Path(source)
    else:
        code = locate_code(factory, Path(os.path.normpath(Path.cwd())))
    if code is not None:
        sys.path.append(str(import_root(code, factory)))


def _read_kwargs(text: str) -> dict[str, Any]:
    """The factory's arguments.

    Raises:
        ParamsError: the text is no mapping in YAML.
    """
    from checkpoint_release.core.yaml_text import YamlError, parse_yaml

    try:
        value = parse_yaml(text.encode())
    except YamlError as error:
        raise ParamsError(
            f"--kwargs is {error}", "write it as in {hidden: 64}"
        ) from None
    if not isinstance(value, dict):
        raise ParamsError(f"--kwargs is {text!r}", "write it as in {hidden: 64}")
    return value
