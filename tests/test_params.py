"""params.yaml is checked whole, and a mistake in it is told with the key, what was found and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ParamsError
from pipeline.params import load_params
from tests.project import ROOT

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
    ("old", "new", "said"),
    [
        ("  opset: 17", "  opset: 13", ["onnx.opset", "13", "14 to 25"]),
        ("  opset: 17", "  opset: 26", ["onnx.opset", "26", "14 to 25"]),
        ("  opset: 17", "  opset: '17'", ["onnx.opset", "'17'", "integer"]),
        ("  opset: 17", "  opset: 17.0", ["onnx.opset", "17.0"]),
        ("  opset: 17", "  opsett: 17", ["onnx.opsett: unknown key", "allowed here: opset", "onnx.opset: missing"]),
        ("  salvage: false", "  salvage: 'no'", ["checkpoint.salvage", "'no'", "boolean"]),
        ("  lora_alpha: null", "  lora_alpha: -1", ["checkpoint.lora_alpha", "-1", "greater than 0"]),
        ("  half_precision: keep", "  half_precision: maybe", ["'maybe'", "'keep', 'cast' or 'refuse'"]),
        ("  max_shard_size: 5GB", "  max_shard_size: 5 gigabytes", ["safetensors.max_shard_size", "5 gigabytes"]),
        ("  version: null", "  version: 1.0.0", ["publish.version", "'1.0.0'"]),
        ("  image_size: null", "  image_size: [0, 4]", ["model.image_size[0]", "greater than 0"]),
        ("  factory: pipeline.models.stick_figure:build", "  factory: build", ["model.factory", "'build'"]),
    ],
)
def test_a_mistake_is_told_with_its_key_and_what_is_allowed(
    tmp_path: Path, old: str, new: str, said: list[str]
) -> None:
    with pytest.raises(ParamsError) as error:
        load(tmp_path, replaced(old, new))
    for part in said:
        assert part in str(error.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"(?s)salvage.*opset"):
        load(tmp_path, replaced("  opset: 17", "  opset: 99").replace("salvage: false", "salvage: 3"))


def test_no_format_at_all_is_a_mistake(tmp_path: Path) -> None:
    text = TEXT
    for name in ("safetensors", "onnx", "torchscript"):
        text = text.replace(f"  {name}: true", f"  {name}: false")
    with pytest.raises(ParamsError, match="no format is enabled"):
        load(tmp_path, text)


def test_what_is_not_yaml_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"is not YAML.*line"):
        load(tmp_path, TEXT + "\nonnx: [")


def test_numbers_mean_what_dvc_takes_them_for(tmp_path: Path) -> None:
    """YAML 1.1 reads 1e-3 as text and no as false; DVC reads YAML 1.2, and so must we."""
    load(tmp_path, replaced("  lora_alpha: null", "  lora_alpha: 1e-3"))


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="root folder"):
        load_params(tmp_path / "params.yaml")
