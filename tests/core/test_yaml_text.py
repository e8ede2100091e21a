"""YAML that a person wrote: what every reader reads alike and JSON can hold, or one
message with the line.
"""

from __future__ import annotations

import pytest

from checkpoint_release.core.yaml_text import (
    MAX_SIZE,
    YamlError,
    parse_yaml,
    unsuitable_values,
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"a: 1\nb: [1, 2\nc: 3", "expected .* in line 3"),
        (b"a: 1\nb: \x07", r"control character .*x07. in line 2"),
        ("a: 1\nb: \xe9".encode("latin-1"), "not UTF-8: .* in line 2"),
        ("a: 1\nb: \u201cx\u201d".encode("cp1252"), "not UTF-8: .* in line 2"),
        ("a: 1".encode("utf-16"), "not UTF-8"),
        (b"a: 1\nb: 017", "found 017, which some readers take for octal.* in line 2"),
        (b"a: -00", "found -00"),
        (b"a: " + b"9" * 5000, "more than 1,000 digits in line 1"),
        (b"a: 1\na: 2", 'duplicate key "a".* in line 2'),
        (b"!!python/object/apply:os.system [true]", "could not determine"),
        (b"a: !!bool x", "not YAML"),
        (b"a: !!float x", "not YAML"),
        (b'"\\U99999999"', "not YAML"),
        (b"a: 2001-99-99", "not YAML"),
        (b"- " * 5000 + b"x", "nested too deeply"),
        (b"[" * 60 + b"]" * 60, "nested more than 50 deep"),
        (b"a: &a [*a]", "nested more than 50 deep"),
        (b"#" * (MAX_SIZE + 1), "longer than 262,144 bytes"),
    ],
)
def test_what_is_wrong_is_one_message_with_its_line(text: bytes, reason: str) -> None:
    with pytest.raises(YamlError, match=reason):
        parse_yaml(text)


def test_an_alias_counts_as_all_that_it_stands_for() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, 6):
        above = ", ".join([f"*a{level - 1}"] * 10)
        lines.append(f"a{level}: &a{level} [{above}]")
    parse_yaml("\n".join(lines[:3]).encode())
    with pytest.raises(YamlError, match="more than 20,000 values"):
        parse_yaml("\n".join(lines).encode())


def test_merged_mappings_do_not_double_without_end() -> None:
    lines = ["a0: &a0 {x: 1, y: 2}"]
    for level in range(1, 40):
        lines.append(f"a{level}: &a{level}\n  <<: [*a{level - 1}, *a{level - 1}]")
    assert parse_yaml("\n".join(lines[:4]).encode())["a3"] == {"x": 1, "y": 2}
    with pytest.raises(YamlError, match="merges more than 1,000 entries"):
        parse_yaml("\n".join(lines).encode())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: {b: 2020-01-01}", "a.b: found datetime.date(2020, 1, 1): expected text"),
        ("a: [1, .nan]", "a[1]: found nan: expected a finite number"),
        ("a: 1e999", "a: found inf: expected a finite number"),
        ("a: !!binary aGk=", "a: found b'hi': expected text"),
        ("a: !!set {x}", "a: found {'x'}: expected text"),
        ("a: {1: 2}", "a: found the key 1: expected text"),
        (r'a: "x\0y"', r"a: found 'x\x00y': expected text without NUL"),
        (r'a: "\ud800"', r"a: found '\ud800': expected whole characters"),
    ],
)
def test_what_json_cannot_hold_is_named_by_its_key(text: str, problem: str) -> None:
    (found,) = unsuitable_values(parse_yaml(text.encode()))
    assert found.startswith(problem)


def test_what_people_write_is_read(recwarn: pytest.WarningsRecorder) -> None:
    text = """\ufeff# a comment
    a: &width 64
    b: {c: [*width, 0, -1, 0.5, 1e-3, 0o17, 0x1f], d: null, e: true, f: yes, g: "017"}
    h: |
      two
      lines
    i: &width \u00e9
    """
    value = parse_yaml(text.encode())
    assert value["b"]["c"] == [64, 0, -1, 0.5, 1e-3, 15, 31]
    assert value["b"]["f"] == "yes" and value["b"]["g"] == "017"
    assert list(unsuitable_values(value)) == []
    assert not recwarn
