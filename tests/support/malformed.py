"""Texts that anybody may have put in the place of a JSON or YAML file."""

from __future__ import annotations

MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "an empty list": b"[]",
    "a list of lists": b"[[]]",
    "null": b"null",
    "true": b"true",
    "a number": b"5",
    "a negative number": b"-1",
    "a text": b'"x"',
    "a surrogate": b'"\\ud800"',
    "half an object": b'{"a": ',
    "a name twice": b'{"a": 1, "a": 2}',
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "5,000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "1,001 digits": b'{"a": ' + b"9" * 1001 + b"}",
    "a huge exponent": b'{"a": 1e99999}',
    "the last of 20,000 names twice": b"{"
    + b",".join(b'"%d":0' % number for number in range(20_000))
    + b',"19999":1}',
    "a million empty objects": b"[" + b"{}," * 1_000_000 + b"{}]",
    "100,000 brackets": b"[" * 100_000,
    "100,000 closed brackets": b"[" * 100_000 + b"]" * 100_000,
    "5,000 objects": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "500 objects": b'{"a":' * 500 + b"1" + b"}" * 500,
    "NUL": b"\0",
    "NUL in a text": b'{"a\\u0000": "\\u0000"}',
    "control characters": b'{"a": "\x07"}',
    "latin-1": '{"a": "é"}'.encode("latin-1"),
    "cp1252": '{"a": "“x”"}'.encode("cp1252"),
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "a byte order mark": '\ufeff{"a": 1}'.encode(),
    "a tab": b"\t- x",
    "an anchor's bomb": b"a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n",
    "a tag": b"!!python/object/apply:os.system [true]",
    "a pickle": b"\x80\x04}.",
    "zip's magic": b"PK\x03\x04",
    "a YAML list": b"- 1\n- 2\n",
    "two YAML documents": b"a: 1\n---\nb: 2\n",
}
"""What it is → its bytes. None of it is any file of this project."""

VALUES: tuple[object, ...] = (
    None,
    True,
    5,
    -1,
    0.5,
    2**70,
    "x",
    "\0",
    "../x",
    [],
    [1],
    [[]],
    {},
    {"a": {}},
    {"\0": None},
)
"""Values to put under each key of an honest file."""
