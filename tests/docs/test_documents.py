"""What README.md and docs/ show is so: their snippets run, their commands print what is
quoted, and what they name exists.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.support.documents import (
    Block,
    Document,
    Section,
    dead_links,
    documents,
    drawn_edges,
    follow,
    stage_edges,
)
from tests.support.hub_server import Account, HubServer
from tests.support.project import ROOT, Project

DOCUMENTS = {document.name: document for document in documents()}
CURRENT = {name: each for name, each in DOCUMENTS.items() if name != "CHANGELOG.md"}
ALL_SECTIONS: list[Section] = []
CODE_SPANS: set[str] = set()
for _document in CURRENT.values():
    ALL_SECTIONS += _document.sections
    CODE_SPANS |= set(_document.code_spans)
SECTIONS = {section.name: section for section in ALL_SECTIONS}
BLOCKS = [block for section in ALL_SECTIONS for block in section.blocks]
SKIPPED = [block for block in BLOCKS if block.not_run]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PARAMS: dict[str, Any] = YAML(typ="safe").load(ROOT / "params.yaml")

NOT_RUN = {
    "docs/checkpoints.md": ["it needs servers"],  # test_from_elsewhere.py
    "docs/benchmarks.md": ["it takes minutes"],
    "docs/deployment.md": ["it needs coremltools"],
    "docs/fleet.md": [
        "it looks at all commits, which takes minutes",
        "it takes several hosts",  # tests/fleet/test_hosts.py
    ],
    "docs/migration.md": ["it is what the release replaces"],
    "docs/trust.md": [
        "it makes a token on the machine",  # tests/release/test_token_keys.py
        "cosign is no package of Python",
    ],
    "docs/page.md": ["it serves until it is interrupted"],
    "docs/report.md": ["it takes minutes"],  # tests/pipeline/test_benchmark.py
    "docs/your-model.md": [
        "it needs such a model",
        "it needs a checkpoint of such a model",
    ],
}
SLOW = {
    "README.md#quick-start",
    "README.md#the-proof",
    "README.md#your-own-checkpoint",
    "docs/pipeline.md#formats-and-the-opset",
    "README.md#publishing",
    "README.md#using-a-release",
    # whole runs of the pipeline, of which the faster sections hold one each
    "docs/fleet.md#on-this-machine",
    "docs/architecture.md#another-architecture",
    "docs/deployment.md#hugging-faces-libraries",
    "docs/publishing.md#what-changed-since-the-version-before",
    "docs/report.md#the-report",
    "docs/migration.md#2-change-the-code-that-loads-them",
    "docs/migration.md#1-release-the-checkpoints-you-have",
    "docs/your-model.md#in-your-repository",
}
OWN_TOKEN = "hf_aTokenOfTheOrganisation"
MINE = ROOT / "tests/fixtures/v3_48_state_dict/checkpoint.pth"
CODE = re.compile(r"(?:pipeline|tests|checkpoint_release|docs)/[\w./-]+")
FILE_SUFFIXES = ("json", "onnx", "ort", "pt", "pt2", "pth", "py", "safetensors", "sig")


# The blocks


def _case(name: str) -> Any:
    marks = [pytest.mark.slow] if name in SLOW else []
    return pytest.param(SECTIONS[name], id=name, marks=marks)


@pytest.fixture
def checkout(
    section: Section, request: pytest.FixtureRequest, tmp_path: Path
) -> Project:
    """A checkout in which the pipeline has run; for `make`, one in which it hasn't."""
    if section.blocks[0].text.startswith("$ make\n"):
        project = Project.checkout(tmp_path / "project")
        (project.path / ".venv").mkdir()
        (project.path / ".venv/installed").touch()  # the tests' own environment is used
    else:
        project = request.getfixturevalue("project")
    shutil.copy(MINE, project.path / "checkpoints/mine.pth")
    return project


@pytest.mark.parametrize("section", [_case(name) for name in SECTIONS])
def test_what_a_section_shows_is_so(
    section: Section, checkout: Project, hub: HubServer, tmp_path: Path
) -> None:
    hub.add_token(OWN_TOKEN, Account("me", {"my-organisation": "write"}))
    environment = {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": OWN_TOKEN,
        "HF_HOME": str(tmp_path / "home"),
    }
    follow(section, checkout, environment)


def test_every_section_with_blocks_has_a_name_of_its_own() -> None:
    assert len(SECTIONS) == len(ALL_SECTIONS)


def test_the_blocks_that_no_test_runs_are_few_and_known() -> None:
    reasons: dict[str, list[str]] = {}
    for block in SKIPPED:
        document = block.place.partition(":")[0]
        reasons.setdefault(document, []).append(block.not_run)
    assert reasons == NOT_RUN


def test_the_picture_is_the_pipeline() -> None:
    (picture,) = (block for block in BLOCKS if block.language == "mermaid")
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    assert drawn_edges(picture.text) == stage_edges(stages)


# What the text names


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS.keys())
def test_every_relative_link_leads_somewhere(document: Document) -> None:
    assert dead_links(document) == []


@pytest.mark.parametrize("document", CURRENT.values(), ids=CURRENT.keys())
def test_every_file_folder_and_option_that_is_named_exists(document: Document) -> None:
    spans = document.code_spans
    paths = [span for span in spans if CODE.fullmatch(span)]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert [option for option in _options(spans) if not _is_option(option)] == []


def _options(spans: list[str]) -> list[str]:
    """The code spans that read like an option, such as `onnx.opset: 20`."""
    found = []
    for span in spans:
        match = re.fullmatch(r"((\w+)\.(\w+))(: .+)?", span)
        if match and match[2] in PARAMS and match[3] not in FILE_SUFFIXES:
            found.append(match[1])
    return found


def _is_option(name: str) -> bool:
    section, _, key = name.partition(".")
    return key in PARAMS[section]


def test_every_command_in_the_text_exists_with_its_flags() -> None:
    """Those between backticks, and in blocks that aren't run."""
    commands = CODE_SPANS | {command for block in SKIPPED for command in _lines(block)}
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert _second_words("make", commands) <= {*targets}
    assert _second_words("dvc", commands) <= {*_help("dvc").split()}
    own = [each.split() for each in commands if each.startswith("checkpoint-release ")]
    assert own
    for _, command, *arguments in own:
        flags = set(re.findall(r"--[\w-]+", " ".join(arguments)))
        verb = arguments[:1] if command == "fleet" else []
        text = _help("checkpoint_release", command, *verb)
        assert flags <= {*re.findall(r"--[\w-]+", text)}


def _lines(block: Block) -> list[str]:
    if block.language != "console":
        return []
    return [command.line for command in block.commands]


def _second_words(program: str, commands: set[str]) -> set[str]:
    return {each.split()[1] for each in commands if each.startswith(f"{program} ")}


def _help(module: str, *command: str) -> str:
    run = (sys.executable, "-m", module, *command, "--help")
    done = subprocess.run(run, cwd=ROOT, check=True, capture_output=True, text=True)
    return re.sub(r"[{},()]", " ", done.stdout)


def test_every_artifact_that_is_named_is_made(built: Project) -> None:
    spans = DOCUMENTS["README.md"].code_spans
    artifacts = [span for span in spans if re.fullmatch(r"artifacts/[\w./-]+", span)]
    assert artifacts
    assert [name for name in artifacts if not (built.path / name).exists()] == []


def test_every_import_in_the_text_can_be_had() -> None:
    imports = [span for span in CODE_SPANS if span.startswith("from checkpoint_")]
    assert imports
    for statement in imports:
        exec(statement, {})


def test_the_readme_is_read_in_one_go() -> None:
    assert len(DOCUMENTS["README.md"].text.splitlines()) <= 220


def test_every_option_has_a_comment_in_params_yaml() -> None:
    section, bare = "", []
    for line in (ROOT / "params.yaml").read_text().splitlines():
        if re.match(r"\w+:", line):
            section = line
        elif re.match(r"  \w+:", line) and "#" not in line + section:
            bare.append(line.strip())
    assert bare == []


def test_every_dependency_is_justified() -> None:
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    required = [*project["dependencies"]]
    for name, packages in extras.items():
        if name != "dev":
            required += packages
    names = {re.split(r"[\[<>=]", package)[0] for package in required}
    offered = re.findall(r"checkpoint-release\[(\w+)\]", DOCUMENTS["README.md"].text)
    assert offered and {*offered} <= {*extras}
    explained = DOCUMENTS["docs/architecture.md"].first_cells
    assert names - {"checkpoint-release", *explained} == set()


def test_the_rooms_stand_in_the_order_of_their_layers() -> None:
    contracts = PYPROJECT["tool"]["importlinter"]["contracts"]
    (layers,) = (each["layers"] for each in contracts if each["type"] == "layers")
    rooms = re.findall(r"checkpoint_release\.(\w+)", " ".join(layers))
    cells = DOCUMENTS["docs/architecture.md"].first_cells
    assert cells[: len(rooms)] == rooms
    folders = [
        path.parent.name for path in ROOT.glob("checkpoint_release/*/__init__.py")
    ]
    assert sorted(rooms) == sorted(folders)
