"""The checks of documents catch what they are for, on small texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from checkpoint_release.core.errors import ParamsError
from tests.support.documents import (
    Block,
    Document,
    Section,
    dead_links,
    drawn_edges,
    first_difference,
    follow,
    set_params,
    stage_edges,
)
from tests.support.project import ROOT, Project


@pytest.fixture
def folder(tmp_path: Path) -> Project:
    """A folder with params.yaml, in which nothing has run."""
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    return Project(tmp_path)


def document(text: str) -> Document:
    return Document("text.md", text)


def section(language: str, text: str) -> Section:
    return Section("text.md#", (Block("text.md:1", language, text),))


def test_blocks_are_found_below_their_headings_with_the_reason_not_to_run_them() -> (
    None
):
    text = """# Title
## One
```yaml
onnx: {opset: 20}
```
- <!-- not run: it takes
  an account -->
  ```console
  $ one \\
    --more
  output
  $ two  # a comment
  ```
## Two: `code`, and more
"""
    (one,) = document(text).sections
    assert one.name == "text.md#one"
    yaml, console = one.blocks
    assert (yaml.place, yaml.language, yaml.not_run) == ("text.md:3", "yaml", "")
    assert console.not_run.split() == ["it", "takes", "an", "account"]
    assert [(each.line, each.output) for each in console.commands] == [
        ("one \\\n  --more", "output"),
        ("two  # a comment", ""),
    ]
    assert document(text).anchors == {"title", "one", "two-code-and-more"}


@pytest.mark.parametrize(
    ("shown", "printed", "unlike"),
    [
        ("one\ntwo", "one\ntwo\n", None),
        ("one", "one\ntwo\n", "(nothing more)"),
        ("one\ntwo", "one\n", "two"),
        ("one\n2 files", "one\n3 files\n", "2 files"),
        ("one\n… files, … B", "one\n3 files, 20 B\n", None),
        ("…\nlast", "one\ntwo\nlast\n", None),
        ("…\nlast", "one\ntwo\n", "last"),
        ("one\n…", "one\n", None),
        ("a.c", "abc\n", "a.c"),
        ("onnx  …  ok", "onnx   0.9  1.2   ok\n", None),
        ("onnx  …  ok", "onnx   0.9  1.2   WRONG\n", "onnx  …  ok"),
    ],
)
def test_output_is_compared_line_by_line(
    shown: str, printed: str, unlike: str | None
) -> None:
    assert first_difference(shown, printed) == unlike


@pytest.mark.parametrize(
    ("language", "text", "problem"),
    [
        ("console", "$ echo one\ntwo\n", "`echo one` doesn't print\n  two"),
        ("console", "$ echo one; exit 3\none\n", "exited with 3"),
        ("console", "$ echo error: no\nerror: no\n", "exited with 0"),
        ("python", "assert 1 == 2", "AssertionError"),
        ("python", "import no_such_module", "ModuleNotFoundError"),
        ("yaml", "onnx: {opsett: 20}", "onnx.opsett: unknown key"),
        ("yaml", "onnx: {opset: 9}", "onnx.opset: found 9"),
        ("console", "output without a command\n", "is no `$ command`"),
        ("", "anything", "unlabelled"),
    ],
)
def test_what_is_not_so_is_caught_with_its_place(
    language: str, text: str, problem: str, folder: Project
) -> None:
    with pytest.raises(AssertionError) as caught:
        follow(section(language, text), folder, {})
    assert str(caught.value).startswith("text.md:1: ") and problem in str(caught.value)


def test_what_is_so_passes(folder: Project) -> None:
    follow(section("console", "$ echo error: no; false\nerror: no\n"), folder, {})
    follow(section("yaml", "onnx: {opset: 20}"), folder, {})
    assert "opset: 20" in (folder.path / "params.yaml").read_text()


def test_a_python_block_that_names_a_file_becomes_that_file(folder: Project) -> None:
    written, used = "# my_model.py\nanswer = 42\n", "import my_model; my_model.answer"
    follow(section("python", written), folder, {})
    follow(section("python", used), folder, {})
    assert (folder.path / "my_model.py").read_text() == written


def test_indented_code_is_a_block_too(folder: Project) -> None:
    (indented,) = document("# Title\n\n    $ exit 1\n").sections
    with pytest.raises(AssertionError, match="unlabelled"):
        follow(indented, folder, {})


def test_a_block_that_says_so_is_not_run(folder: Project) -> None:
    skipped = Block("text.md:1", "console", "$ exit 1", "a reason")
    follow(Section("text.md#", (skipped,)), folder, {})


def test_params_that_the_pipeline_refuses_are_refused(folder: Project) -> None:
    with pytest.raises(ParamsError, match="no_such_section"):
        set_params("no_such_section: {key: 1}", folder)


def test_links_to_no_file_and_no_heading_are_dead(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# Here\n")
    text = (
        "# Own\n[a](there.md) [b](there.md#here) [c](#own) [d](https://example.org)"
        " [e](gone.md) [f](there.md#gone) ![g](gone.png) [h](#gone)"
    )
    dead = dead_links(document(text), tmp_path)
    assert dead == ["gone.md", "there.md#gone", "gone.png", "#gone"]


def test_the_picture_and_dvc_yaml_are_compared_by_their_edges() -> None:
    stages = {
        "one": {"deps": ["x"], "outs": ["a", {"b": {"persist": True}}]},
        "two": {"deps": ["a", "x"], "metrics": [{"c": {"cache": False}}]},
        "three": {"deps": ["b", "c"]},
    }
    edges = {("one", "two"), ("one", "three"), ("two", "three")}
    assert stage_edges(stages) == edges
    assert drawn_edges("flowchart LR\n  one --> two & three\n  two --> three") == edges
    assert drawn_edges("flowchart LR\n  one --> two --> three") != edges
