"""JSON from anybody: what is read is what every reader reads, in bounded memory."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import read_json
from checkpoint_release.core.json_text import (
    MAX_DEPTH,
    MAX_DIGITS,
    JsonError,
    parse_json,
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not JSON"),
        ("[1e999]", "out of range: it holds 1e999"),
        ("[-1e999]", "out of range: it holds -1e999"),
        ("[NaN]", "it holds NaN"),
        ('{"a\\n": 1, "a\\n": 2}', r"it repeats 'a\\n'"),
        ('{"a": "\\ud800"}', "not Unicode"),
        ("9" * (MAX_DIGITS + 1), "an integer of 1,001 digits"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested more than 100"),
        ("[" * 100_000, "nested more than 100"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8"),
        ('{"a": "\xe9"}'.encode("latin-1"), "not UTF-8.* at byte 7"),
    ],
)
def test_what_readers_would_read_differently_is_refused(
    text: str | bytes, reason: str
) -> None:
    with pytest.raises(JsonError, match=reason):
        parse_json(text)


@pytest.mark.parametrize(
    "value",
    [
        None,
        -0.5,
        2**70,
        int("9" * MAX_DIGITS),
        "\U0001f600\u00e9",
        {"": []},
        ["x" * 1000] * 1000,
        {f"layers.{i}.weight": f"model-{i:05}.safetensors" for i in range(10_000)},
    ],
)
def test_every_other_value_comes_as_it_was_written(value: object) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


def test_values_of_a_few_bytes_are_counted_before_they_are_made() -> None:
    text = "[" + "{}," * 1_000_000 + "{}]"
    tracemalloc.start()
    with pytest.raises(JsonError, match="2,000,002 values"):
        parse_json(text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20  # bytes; the dicts would take 72 million


def test_a_file_is_read_up_to_the_caller_s_limit(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("[1, 2]")
    assert read_json(path, max_size=6) == [1, 2]
    with pytest.raises(ArtifactError, match=r"config\.json is longer than 5 bytes"):
        read_json(path, max_size=5)
