"""Running a card's examples as a stranger would: in a new environment, made of what the
card says that they need.

The examples are the publisher's code, and they run. Nobody but the user asks for that,
and only a card that the release lists is taken.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from markdown_it import MarkdownIt
from packaging.requirements import InvalidRequirement, Requirement

from checkpoint_release.core.artifacts.release import CARD, Release
from checkpoint_release.core.errors import ArtifactError, one_line
from checkpoint_release.release.checks import Check

LIMIT = 1800.0  # seconds that installing, or one example, may take
_INSTALL = "$ pip install "
_USAGE = "Usage"
_FROM_THE_HUB = "From the Hub"
"""The section whose examples download what is here already."""


@dataclass(frozen=True)
class Example:
    """A block of Python in a card.

    Attributes:
        heading: of its section.
        code: what it holds.
    """

    heading: str
    code: str


@dataclass(frozen=True)
class Examples:
    """What a card says about using its release.

    Attributes:
        requirements: what pip installs for them.
        blocks: that run in the release's folder, in order.
    """

    requirements: tuple[str, ...]
    blocks: tuple[Example, ...]


Environment = Callable[[Path, Sequence[str]], Path]
"""Makes an environment in a folder, with requirements; returns its interpreter."""


def read_examples(card: str) -> Examples:
    """The examples below Usage.

    Raises:
        ArtifactError: there is none, or no line that installs what they need, or that
            line has more than names and versions of packages.
    """
    requirements: list[str] = []
    blocks = []
    for heading, language, text in _fences(card):
        if language == "python" and heading != _FROM_THE_HUB:
            blocks.append(Example(heading, text))
        for line in text.splitlines():
            if language == "console" and line.startswith(_INSTALL):
                requirements += _requirements(line.removeprefix(_INSTALL))
    if not blocks or not requirements:
        lacking = "example" if not blocks else "line that installs what they need"
        raise ArtifactError(
            f"{CARD} has no {lacking} below {_USAGE}",
            "take a release whose card was made with this version",
        )
    return Examples(tuple(requirements), tuple(blocks))


def _fences(card: str) -> Iterator[tuple[str, str, str]]:
    """The fenced blocks below Usage: the heading above, the language, the text."""
    chapter = heading = ""
    tokens = MarkdownIt("commonmark").parse(card)
    for number, token in enumerate(tokens):
        if token.type == "heading_open":
            heading = tokens[number + 1].content
            chapter = heading if token.tag == "h2" else chapter
        elif token.type == "fence" and chapter == _USAGE:
            yield heading, token.info.strip(), token.content


def _requirements(text: str) -> list[str]:
    """The requirements of an install line.

    Raises:
        ArtifactError: there is more in it, such as an option of pip or an address.
    """
    found = []
    for word in text.split():
        try:
            requirement = Requirement(word)
        except InvalidRequirement:
            requirement = None
        if requirement is None or requirement.url:
            raise ArtifactError(
                f"{CARD} installs {word!r}, which is no name and version of a package",
                "install by hand what you trust, and run the examples there",
            )
        found.append(word)
    return found


def make_environment(folder: Path, requirements: Sequence[str]) -> Path:
    """Make an environment with venv, and install into it with pip.

    Where from is as pip is configured (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL).

    Raises:
        ArtifactError: it can't be made.
    """
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    steps = (
        [sys.executable, "-m", "venv", str(folder)],
        [*pip, "--disable-pip-version-check", *requirements],
    )
    for step in steps:
        done = _run(step, folder.parent, os.environ)
        if done.returncode:
            raise ArtifactError(
                f"the environment can't be made: {_last_lines(done)}",
                "check the network and pip's configuration",
            )
    return python


def check_examples(
    folder: Path, release: Release, environment: Environment = make_environment
) -> list[Check]:
    """Run the examples of a release's card in a new environment.

    Args:
        folder: the release, whose files are what its release.json lists.
        release: its release.json.
        environment: makes the environment.

    Returns:
        A row for the environment, and one for each example.
    """
    if CARD not in release.files:
        message = f"not run: the release doesn't list {CARD}, so anybody may edit it"
        return [Check("examples", False, message)]
    with TemporaryDirectory() as temporary:
        home = Path(temporary)
        try:
            examples = read_examples((folder / CARD).read_text(encoding="utf-8"))
            python = environment(home / "environment", examples.requirements)
        except (ArtifactError, OSError, UnicodeDecodeError) as error:
            problem = error.problem if isinstance(error, ArtifactError) else str(error)
            return [Check("environment", False, problem)]
        installed = ", ".join(examples.requirements)
        checks = [Check("environment", True, f"new, with {installed}")]
        for number, example in enumerate(examples.blocks, 1):
            label = f"example {number} ({example.heading})"
            checks.append(_check_example(label, example, folder, python, home))
    return checks


def _check_example(
    label: str, example: Example, folder: Path, python: Path, home: Path
) -> Check:
    """Run one example in the release's folder."""
    variables = {
        # transformers copies a release's code to where HF_HOME is
        **os.environ,
        "HF_HOME": str(home / "huggingface"),
        "HF_HUB_OFFLINE": "1",
    }
    # -I: nothing but the new environment is importable; -B: nothing is left behind
    command = [str(python), "-I", "-B", "-c", example.code]
    done = _run(command, folder, variables)
    if done.returncode:
        return Check(label, False, _last_lines(done))
    return Check(label, True, one_line(ValueError(done.stdout)) or "ran")


def _run(
    command: Sequence[str], folder: Path, variables: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a command; one that takes too long fails."""
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env=dict(variables),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(
            command, 124, "", f"it took more than {LIMIT:,.0f} s"
        )


def _last_lines(done: subprocess.CompletedProcess[str]) -> str:
    """The end of what a command that failed printed, where its reason stands."""
    lines = (done.stderr or done.stdout).strip().splitlines()
    return (
        one_line(ValueError(" ".join(lines[-3:]))) or f"it ended with {done.returncode}"
    )
