"""What the project's Markdown documents show, and whether it is true.

The fenced blocks below one heading are a story in one checkout, from top to bottom:

    console    `$ command` lines are run, and what is quoted below them is what they
               print; … stands for anything, on a line of its own for any lines
    python     is executed
    yaml       is set in params.yaml, which must allow it
    mermaid    draws the stages and edges of dvc.yaml

A block whose first line names a file, as in `# name.py`, is written to that file.

A block that a test can't run has `<!-- not run: reason -->` above it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token
from ruamel.yaml import YAML

from checkpoint_release.core.params import load_params
from tests.support.project import ROOT, Project

ANYTHING = "…"
OWN_COMMAND = 'checkpoint-release() { python -m checkpoint_release "$@"; }'
_NOT_RUN = re.compile(r"<!-- not run: (.+?) -->", re.DOTALL)
_FAILURE = re.compile(r"^(error|FAILED|\w+Error|\w+Warning)\b", re.MULTILINE)
_FILE_NAME = re.compile(r"# (\w+\.(?:py|yaml|sbatch))\n")


@dataclass(frozen=True)
class Block:
    """A fenced block of a document.

    Attributes:
        place: the document and the line, for messages.
        language: what follows the fence.
        text: what it holds.
        not_run: why no test runs it; empty if one does.
    """

    place: str
    language: str
    text: str
    not_run: str = ""

    @property
    def commands(self) -> list[Command]:
        """What a console block runs, in order."""
        return list(_commands(self.text))


@dataclass(frozen=True)
class Command:
    """A command of a console block, and the output that the block shows."""

    line: str
    output: str

    @property
    def fails(self) -> bool:
        """Whether the document shows that it fails."""
        return _FAILURE.search(self.output) is not None


@dataclass(frozen=True)
class Section:
    """The blocks below one heading, up to the next."""

    name: str
    blocks: tuple[Block, ...]


class Document:
    """A Markdown file, parsed.

    Args:
        name: its path in the project, POSIX.
        text: what it holds.
    """

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self._tokens = MarkdownIt("commonmark").enable("table").parse(text)

    @cached_property
    def sections(self) -> list[Section]:
        """The parts between headings that hold blocks."""
        found: list[Section] = []
        heading = ""
        blocks: list[Block] = []
        for number, token in enumerate(self._tokens):
            if token.type == "heading_open":
                if blocks:
                    found.append(Section(f"{self.name}#{heading}", tuple(blocks)))
                heading = anchor(self._tokens[number + 1].content)
                blocks = []
            elif token.type in ("fence", "code_block"):
                blocks.append(self._block(token, self._tokens[number - 1]))
        if blocks:
            found.append(Section(f"{self.name}#{heading}", tuple(blocks)))
        return found

    def _block(self, fence: Token, before: Token) -> Block:
        comment = _NOT_RUN.search(before.content)
        line = fence.map[0] + 1 if fence.map else 0
        return Block(
            f"{self.name}:{line}",
            fence.info.strip(),
            fence.content,
            comment[1] if before.type == "html_block" and comment else "",
        )

    @cached_property
    def anchors(self) -> set[str]:
        """What a link may name behind #, as GitHub derives it from headings."""
        found: set[str] = set()
        for token, following in pairwise(self._tokens):
            if token.type == "heading_open":
                found.add(anchor(following.content))
        return found

    @property
    def links(self) -> list[str]:
        """Where its links and images point."""
        targets: list[str] = []
        for token in self._tokens:
            for child in token.children or ():
                target = child.attrs.get("href") or child.attrs.get("src")
                if target:
                    targets.append(str(target))
        return targets

    @property
    def code_spans(self) -> list[str]:
        """What stands between single backticks."""
        spans: list[str] = []
        for token in self._tokens:
            spans += _contents(token, "code_inline")
        return spans

    @property
    def first_cells(self) -> list[str]:
        """The code spans in the first columns of its tables."""
        cells: list[str] = []
        column = 0
        for token in self._tokens:
            if token.type == "tr_open":
                column = 0
            elif token.type == "td_open":
                column += 1
            elif column == 1:
                cells += _contents(token, "code_inline")
        return cells


def _contents(token: Token, type: str) -> list[str]:
    """The texts of a token's children of one type."""
    return [child.content for child in token.children or () if child.type == type]


def documents() -> list[Document]:
    """Every Markdown file that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.md"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    names = [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    return [Document(name, (ROOT / name).read_text()) for name in sorted(names)]


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def dead_links(document: Document, root: Path = ROOT) -> list[str]:
    """The relative links of a document that lead nowhere."""
    dead = []
    for link in document.links:
        path, _, fragment = unquote(link).partition("#")
        if re.match(r"[a-z]+:", path):
            continue  # elsewhere
        target = (root / document.name).parent / path
        if path and not target.exists():
            dead.append(link)
        elif fragment:
            other = Document(path, target.read_text()) if path else document
            if fragment not in other.anchors:
                dead.append(link)
    return dead


# Running


def follow(section: Section, project: Project, environment: Mapping[str, str]) -> None:
    """Do what a section shows, in a checkout.

    Raises:
        AssertionError: something isn't as the document shows it.
    """
    for block in section.blocks:
        if block.not_run or block.language == "mermaid":
            continue
        try:
            _follow_block(block, project, environment)
        except Exception as error:
            raise AssertionError(f"{block.place}: {error}") from None


def _follow_block(
    block: Block, project: Project, environment: Mapping[str, str]
) -> None:
    name = _FILE_NAME.match(block.text)
    if name:
        (project.path / name[1]).write_text(block.text)
    elif block.language == "console":
        for command in block.commands:
            run_command(command, project, environment)
    elif block.language == "yaml":
        set_params(block.text, project)
    elif block.language == "python":
        project.run(sys.executable, "-c", block.text, environment=environment)
    else:
        raise AssertionError(f"no test runs {block.language or 'unlabelled'} blocks")


def run_command(
    command: Command, project: Project, environment: Mapping[str, str]
) -> None:
    """Run one command of a console block.

    Raises:
        AssertionError: it fails, or succeeds, against what the document shows, or its
            output differs.
    """
    script = f"exec 2>&1\n{OWN_COMMAND}\n{command.line}"
    done = project.run("bash", "-c", script, check=False, environment=environment)
    if bool(done.returncode) != command.fails:
        raise AssertionError(
            f"`{command.line}` exited with {done.returncode}:\n{done.stdout}"
        )
    if command.output:
        unlike = first_difference(command.output, done.stdout)
        if unlike is not None:
            raise AssertionError(
                f"`{command.line}` doesn't print\n  {unlike}\nbut\n{done.stdout}"
            )


def first_difference(shown: str, printed: str) -> str | None:
    """The first line of the shown output that the printed one doesn't have there; None
    if they agree. How many spaces are between two words doesn't count.
    """
    lines = shown.rstrip().splitlines()
    for number, line in enumerate(lines, 1):
        if not _agree([*lines[:number], ANYTHING], printed):
            return line
    return None if _agree(lines, printed) else "(nothing more)"


def _agree(lines: list[str], printed: str) -> bool:
    pattern = ""
    for line in map(_single_spaced, lines):
        if line == ANYTHING:
            pattern += r"(.*\n)*"
        else:
            pieces = [re.escape(piece) for piece in line.split(ANYTHING)]
            pattern += ".*".join(pieces) + r"\n"
    text = ""
    for line in printed.rstrip().splitlines():
        text += _single_spaced(line) + "\n"
    return re.fullmatch(pattern, text) is not None


def _single_spaced(line: str) -> str:
    return " ".join(line.split())


def _commands(text: str) -> Iterator[Command]:
    before, *parts = re.split(r"^\$ ", text, flags=re.MULTILINE)
    if before or not parts:
        raise AssertionError(f"{text.splitlines()[0]!r} is no `$ command`")
    for part in parts:
        lines = part.splitlines()
        count = 1
        while lines[count - 1].endswith("\\"):
            count += 1
        yield Command("\n".join(lines[:count]), "\n".join(lines[count:]))


def set_params(text: str, project: Project) -> None:
    """Set what a yaml block shows in a project's params.yaml.

    Raises:
        ParamsError: params.yaml has no such key, or doesn't take the value.
    """
    for section, values in YAML(typ="safe").load(text).items():
        project.set(**{f"{section}__{key}": value for key, value in values.items()})
    load_params(project.path / "params.yaml")


# The picture


def drawn_edges(text: str) -> set[tuple[str, str]]:
    """The arrows of a Mermaid flowchart."""
    edges: set[tuple[str, str]] = set()
    for line in text.splitlines()[1:]:
        groups = [
            [name.strip() for name in side.split("&")] for side in line.split("-->")
        ]
        for sources, targets in pairwise(groups):
            edges |= {(source, target) for source in sources for target in targets}
    return edges


def stage_edges(stages: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Which stage reads what which other one writes, out of dvc.yaml."""
    writer = {}
    for name, stage in stages.items():
        for out in [*stage.get("outs", ()), *stage.get("metrics", ())]:
            path = out if isinstance(out, str) else next(iter(out))
            writer[path] = name
    edges: set[tuple[str, str]] = set()
    for name, stage in stages.items():
        edges |= {(writer[dep], name) for dep in stage["deps"] if dep in writer}
    return edges
