"""params.yaml is validated as a whole; an error names the key, what was found and what
is allowed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from checkpoint_release.core.artifacts.formats import FORMATS
from checkpoint_release.core.errors import ParamsError
from checkpoint_release.core.params import FormatsParams, load_params
from tests.support.project import ROOT

TEXT = (ROOT / "params.yaml").read_text()


def load(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    load_params(tmp_path / "params.yaml")


def replaced(old: str, new: str) -> str:
    assert TEXT.count(old) == 1, f"{old!r} must stand once in params.yaml"
    return TEXT.replace(old, new)


def test_the_project_s_own_params_are_valid() -> None:
    assert load_params(ROOT / "params.yaml").onnx.opset == 17


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("  opset: 17", "  opset: 13", ["onnx.opset", "13", "14 to 25"]),
        ("  opset: 17", "  opset: 26", ["onnx.opset", "26", "14 to 25"]),
        ("  opset: 17", "  opset: '17'", ["onnx.opset", "'17'", "integer"]),
        ("  opset: 17", "  opset: 17.0", ["onnx.opset", "17.0"]),
        (
            "  opset: 17",
            "  opsett: 17",
            ["onnx.opsett: unknown key", "allowed here: opset", "onnx.opset: missing"],
        ),
        (
            "  salvage: false",
            "  salvage: 'no'",
            ["checkpoint.salvage: found 'no': expected `bool`, got `str`\n"],
        ),
        (
            "  lora_alpha: null",
            "  lora_alpha: -1",
            ["checkpoint.lora_alpha: found -1", "> 0"],
        ),
        (
            "  half_precision: keep",
            "  half_precision: maybe",
            ["'maybe'", "'keep', 'cast' or 'refuse'"],
        ),
        (
            "  max_shard_size: 5GB",
            "  max_shard_size: 5 gigabytes",
            ["safetensors.max_shard_size", "5 gigabytes"],
        ),
        (
            "  version: null",
            '  version: "v1.0.0\\n"',
            ["publish.version: found 'v1.0.0\\n'"],
        ),
        (
            "  version: null",
            "  version: 1.0.0",
            ["publish.version: found '1.0.0'", "v1.2.0"],
        ),
        (
            "  image_size: null",
            "  image_size: [0, 4]",
            ["model.image_size[0]: found [0, 4]", "at least 1"],
        ),
        (
            "  image_size: null",
            "  image_size: [4]",
            ["model.image_size: found [4]", "[height, width]"],
        ),
        ("  timeout: 120.0", "  timeout: .inf", ["publish.timeout: found inf"]),
        ("  timeout: 120.0", "  timeout: .nan", ["publish.timeout: found nan"]),
        ("  repeats: 1 ", "  repeats: true ", ["parity.repeats: found True", "`int`"]),
        (
            "  sizes: {sequence: [250]}",
            "  sizes: {sequence: [0]}",
            ["parity.sizes", "'sequence': [0]", ">= 1"],
        ),
        (
            "  tolerances: {}",
            "  tolerances: {pose: {atoll: 1}}",
            ["parity.tolerances", "unknown field `atoll`"],
        ),
        ("float16: 1.0e-2", "float16: 0", ["parity.reduced.float16: found 0", "> 0"]),
        (
            "float16: 1.0e-2, ",
            "",
            ["parity.reduced.float16: missing; every key is required"],
        ),
        (
            "  variants: []",
            "  variants: [int4]",
            ["onnx.variants[0]", "'int4'", "'float16' or 'int8'"],
        ),
        (
            "  language: []",
            "  language: [English]",
            ["card.language[0]: found ['English']", "ISO 639"],
        ),
        (
            "  sizes: {sequence: [250]}",
            "  sizes: {sequence: [99999999999]}",
            ["parity.sizes", "99999999999", "<= 2147483647"],
        ),
        ("  opset: 17", "  opset: 017", ["017", "octal", "line 38"]),
        (
            "  datasets: []",
            '  datasets: [".."]',
            ["card.datasets[0]: found ['..']", "organisation/name"],
        ),
        (
            "  adapter: null",
            r'  adapter: "a\0b"',
            [r"checkpoint.adapter: found 'a\x00b'", "without NUL"],
        ),
        (
            "  title: Stick-figure motion restorer (demo)",
            r'  title: "\ud800"',
            [r"card.title: found '\ud800'", "half of one"],
        ),
        (
            "  kwargs: {}",
            "  kwargs: {since: 2020-01-01}",
            ["model.kwargs.since: found datetime.date(2020, 1, 1)", "in quotes"],
        ),
        (
            "  factory: checkpoint_release.models.stick_figure:build",
            "  factory: build",
            ["model.factory", "'build'"],
        ),
    ],
)
def test_an_error_names_its_key_and_what_is_allowed(
    tmp_path: Path, old: str, new: str, parts: list[str]
) -> None:
    with pytest.raises(ParamsError) as error:
        load(tmp_path, replaced(old, new))
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    "name",
    ["a/../../b", "main.lock", "a.lock/b", "a//b", "a/", "a.", "-a", "a@{b", "a b", ""],
)
def test_a_branch_is_named_as_git_allows(tmp_path: Path, name: str) -> None:
    with pytest.raises(ParamsError, match=r"publish\.revision.*a branch's name"):
        load(tmp_path, replaced("  revision: main", f"  revision: '{name}'"))


@pytest.mark.parametrize("name", ["main", "v1.0", "refs/pr/1", "feature/a-b_c.d+e"])
def test_an_ordinary_branch_is_allowed(tmp_path: Path, name: str) -> None:
    load(tmp_path, replaced("  revision: main", f"  revision: {name}"))


def test_a_size_of_thousands_of_digits_is_not_repeated(tmp_path: Path) -> None:
    text = f"  max_shard_size: '{'9' * 5000}'"
    with pytest.raises(ParamsError, match=r"max_shard_size: found '9+…: ") as error:
        load(tmp_path, replaced("  max_shard_size: 5GB", text))
    assert len(str(error.value)) < 1000


def test_all_errors_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"(?s)salvage.*opset"):
        load(
            tmp_path,
            replaced("  opset: 17", "  opset: 99").replace(
                "salvage: false", "salvage: 3"
            ),
        )


def test_a_section_that_is_no_mapping_is_refused_with_what_belongs_in_it(
    tmp_path: Path,
) -> None:
    start, end = TEXT.index("formats:"), TEXT.index("safetensors:\n")
    with pytest.raises(
        ParamsError,
        match=r"formats: found \['onnx'\]: expected a section with safetensors, onnx",
    ):
        load(tmp_path, TEXT[:start] + "formats: [onnx]\n" + TEXT[end:])


def test_no_format_at_all_is_an_error(tmp_path: Path) -> None:
    text = TEXT
    for name in ("safetensors", "onnx", "torchscript"):
        text = text.replace(f"  {name}: true", f"  {name}: false")
    with pytest.raises(ParamsError, match="no format is enabled"):
        load(tmp_path, text)


def test_the_formats_that_can_be_switched_are_those_of_the_registry() -> None:
    assert FormatsParams.__struct_fields__ == tuple(FORMATS)


def test_what_is_not_yaml_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"is not YAML.*line"):
        load(tmp_path, TEXT + "\nonnx: [")


def test_numbers_mean_what_dvc_takes_them_for(tmp_path: Path) -> None:
    """YAML 1.1 reads 1e-3 as text and no as false; DVC reads YAML 1.2, as we must."""
    load(tmp_path, replaced("  lora_alpha: null", "  lora_alpha: 1e-3"))


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="root folder"):
        load_params(tmp_path / "params.yaml")
