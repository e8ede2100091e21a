"""The README says what is so: its parameters exist, its error messages are the code's,
its commands run.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.support.project import ROOT

README = (ROOT / "README.md").read_text()
SOURCES = "\n".join(
    path.read_text() for path in sorted((ROOT / "pipeline").rglob("*.py"))
)


def section(title: str) -> str:
    """The text from a heading to the next of the same level."""
    match = re.search(
        rf"^(#+) {re.escape(title)}\n(.*?)(?=^\1 |\Z)", README, re.MULTILINE | re.DOTALL
    )
    assert match, f"README has no section {title!r}"
    return match[2]


def keys(params: Any) -> set[str]:
    return {
        f"{section}.{name}" for section, values in params.items() for name in values
    }


def test_every_parameter_is_explained_and_no_other() -> None:
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    first_columns = re.findall(
        r"^\| (`.+?`) \|", section("Every parameter"), re.MULTILINE
    )
    explained = {
        key for column in first_columns for key in re.findall(r"`([\w.]+)`", column)
    }
    assert explained == keys(params)


def test_every_message_under_troubleshooting_is_one_that_the_code_can_print() -> None:
    quoted = re.findall(r"^\| `([^`]+)` \|", section("Troubleshooting"), re.MULTILINE)
    assert len(quoted) >= 10
    for message in quoted:
        for part in message.split(" … "):
            assert part.strip("… ") in SOURCES, f"no error of the code says {part!r}"


def test_every_file_and_folder_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"`((?:pipeline|tests|checkpoints)/[\w./]+)`", README))
    missing = [name for name in named if not (ROOT / name).exists()]
    assert named and not missing


def test_every_dependency_is_justified() -> None:
    project = Path(ROOT / "pyproject.toml").read_text()
    dependencies = re.search(
        r"^dependencies = \[(.*?)\]", project, re.MULTILINE | re.DOTALL
    )
    assert dependencies
    names = re.findall(r'"([\w.-]+)', dependencies[1])
    explained = section("Dependencies")
    assert names and not [name for name in names if f"`{name}`" not in explained]
