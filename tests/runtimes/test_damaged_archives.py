"""TorchScript and .pt2 that are damaged or ambiguous give one error."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from checkpoint_release.core.errors import ArtifactError, CheckpointReleaseError
from checkpoint_release.runtimes.loader import load
from checkpoint_release.runtimes.torch_archive import MAX_EXTRA
from tests.runtimes.test_hostile_archives import written
from tests.support.hostile_archives import (
    Members,
    named,
    packed,
    torch_export,
    torchscript,
)

GIGABYTES = 3

_LOAD_IN_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from checkpoint_release.core.errors import CheckpointReleaseError
from checkpoint_release.runtimes import torch_files
from checkpoint_release.runtimes.loader import load

size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
limit = size + (128 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    load(sys.argv[1])
except CheckpointReleaseError as error:
    print(error.problem)
"""


def deflated(content: Members, name: str, chunk: bytes, times: int) -> bytes:
    """An archive with one more member, of a repeated chunk, which is never held whole.

    Its checksum is wrong, which nobody gets to see.
    """
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    once = compressor.compress(chunk) + compressor.flush(zlib.Z_FULL_FLUSH)
    data = once * times + compressor.flush()
    size = len(chunk) * times
    archive = io.BytesIO(packed(content))
    with zipfile.ZipFile(archive, "a") as opened:
        start = opened.start_dir
        info = zipfile.ZipInfo(name)
        info.compress_type = zipfile.ZIP_DEFLATED
        info.compress_size, info.file_size, info.CRC = len(data), size, 1
        info.header_offset = start
        archive.seek(start)
        archive.write(info.FileHeader() + data)
        opened.filelist.append(info)
        opened.NameToInfo[name] = info
        opened.start_dir = archive.tell()
        opened._didModify = True  # type: ignore[attr-defined]
    return archive.getvalue()


def test_a_config_of_gigabytes_is_refused_without_inflating_it(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    zeros = bytes(16 << 20)
    content = torchscript()
    name = f"{next(iter(content)).partition('/')[0]}/extra/config.json"
    file.write_bytes(deflated(content, name, zeros, GIGABYTES * 64))
    command = [sys.executable, "-c", _LOAD_IN_LITTLE_MEMORY, str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "compressed entries claim 3221225" in done.stdout
    assert done.stdout.count("\n") == 1


def test_a_config_is_read_up_to_a_size(tmp_path: Path) -> None:
    content = torchscript()
    root = next(iter(content)).partition("/")[0]
    content[f"{root}/extra/config.json"] = b" " * (MAX_EXTRA + 1)
    file = tmp_path / "model.pt"
    file.write_bytes(packed(content))
    with pytest.raises(ArtifactError, match=f"at most {MAX_EXTRA} are read"):
        load(file)


def changed(content: Members, ending: str, data: bytes) -> Members:
    return {**content, named(content, ending): data}


def encrypted(archive: bytes) -> bytes:
    """The flag alone, in both headers of each member."""
    data = bytearray(archive)
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = data.find(magic)
        while start >= 0:
            data[start + at] |= 1
            start = data.find(magic, start + 4)
    return bytes(data)


def renamed_in_directory(archive: bytes) -> bytes:
    """The code has one name in the directory and another before its data."""
    at = archive.rindex(b"hostile_archives.py")
    return archive[:at] + b"hostile_archives.pz" + archive[at + 19 :]


def twice(content: Members, ending: str, other: Callable[[str], str]) -> Members:
    name = named(content, ending)
    return {**content, other(name): content[name]}


def with_checksum_of_another(archive: bytes) -> bytes:
    """A changed byte in the code."""
    return archive.replace(b"torch.relu", b"torch.tanh")


def put(ending: str, data: bytes) -> Callable[[Members], bytes]:
    """The archive with another content of the member that ends so."""
    return lambda content: packed(changed(content, ending, data))


IN_ITSELF = b"\x80\x02]q\x00h\x00a."
DEEP = b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b"."
CODE_FILE = "hostile_archives.py"
PROGRAM, WEIGHTS = "models/model.json", "weights_config.json"

TORCHSCRIPT_FAULTS: dict[str, Callable[[Members], bytes]] = {
    "encrypted": lambda content: encrypted(packed(content)),
    "cut": lambda content: packed(content)[:-40],
    "bytes_before": lambda content: b"PK\x03\x04" + packed(content),
    "bytes_behind": lambda content: packed(content) + b"x",
    "checksum": lambda content: with_checksum_of_another(packed(content)),
    "two_names": lambda content: renamed_in_directory(packed(content)),
    "other_case": lambda content: packed(twice(content, CODE_FILE, str.upper)),
    "two_roots": lambda content: packed({**content, "other/code/x.py": b""}),
    "no_pickle": put("data.pkl", b"\x80\x02"),
    "deep_pickle": put("data.pkl", DEEP),
    "pickle_in_itself": put("data.pkl", IN_ITSELF),
    "garbage_pickle": put("data.pkl", b"\xff" * 100),
    "no_text_as_a_name": lambda content: packed(content).replace(
        b"hostile_arch", b"hostile_\xff\xfech"
    ),
}
ESCAPING = b'{"config": {"a": {"path_name": "../x", "use_pickle": true}}}'
TORCH_EXPORT_FAULTS: dict[str, Callable[[Members], bytes]] = {
    "program_empty": put(PROGRAM, b""),
    "program_cut": put(PROGRAM, b"{"),
    "program_not_text": put(PROGRAM, b"\xff\xfe"),
    "program_deep": put(PROGRAM, b"[" * 100_000),
    "program_of_digits": put(PROGRAM, b"9" * 5000),
    "program_list": put(PROGRAM, b"[]"),
    "program_null": put(PROGRAM, b"null"),
    "weights_list": put(WEIGHTS, b"[]"),
    "weights_null": put(WEIGHTS, b"null"),
    "weights_without_a_path": put(WEIGHTS, b'{"config": {"a": {}}}'),
    "weights_elsewhere": put(WEIGHTS, ESCAPING),
    "sample_inputs": put("sample_inputs/model.pt", b"PK\x03\x04x"),
}


@pytest.mark.parametrize("fault", [*TORCHSCRIPT_FAULTS, *TORCH_EXPORT_FAULTS])
def test_a_damaged_archive_gives_one_error(fault: str, tmp_path: Path) -> None:
    if fault in TORCHSCRIPT_FAULTS:
        archive = TORCHSCRIPT_FAULTS[fault](torchscript())
    else:
        archive = TORCH_EXPORT_FAULTS[fault](torch_export())
    folder = written(tmp_path / "model", archive)
    with pytest.raises(CheckpointReleaseError) as caught:
        load(folder / "model.bin")
    assert "Traceback" not in str(caught.value)
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize(
    "config",
    [b"", b"{}", b"[]", b"null", b"5", b"{", b"\xff", b"[" * 100_000, b"9" * 5000],
)
def test_a_wrong_config_inside_gives_one_error(config: bytes, tmp_path: Path) -> None:
    content = torchscript()
    root = next(iter(content)).partition("/")[0]
    content[f"{root}/extra/config.json"] = config
    file = tmp_path / "model.pt"
    file.write_bytes(packed(content))
    with pytest.raises(CheckpointReleaseError):
        load(file)


CODE = {
    "deep": b"def f(x):\n  return " + b"(" * 1_000_000 + b")" * 1_000_000 + b"\n",
    "signs": b"def f(x):\n  return " + b"- " * 1_000_000 + b"1\n",
    "attributes": b"def f(x):\n  return x" + b".x" * 1_000_000 + b"\n",
    "subscripts": b"def f(x):\n  return x" + b"[0]" * 1_000_000 + b"\n",
    "branches": b"def f(x):\n  if x:\n    pass\n" + b"  elif x:\n    pass\n" * 100_000,
    "blocks": b"".join(b" " * depth + b"if x:\n" for depth in range(3000)),
    "long_name": b"x" * 5_000_000,
    "open_text": b"x = 'torch.save",
    "nul": b"x = 1\0",
    "not_ascii": "naïve = 1".encode(),
    "carriage_return": b"# x\rtorch.save(x)",
    "escape": b"print('\\033[2J')",
    "prefix": b"x = f'{torch}'",
    "semicolon": b"x = 1; y = 2",
    "continued": b"x = torch.\\\nsave",
}


@pytest.mark.parametrize("name", CODE)
def test_code_that_torch_does_not_write_is_not_guessed_at(
    name: str, tmp_path: Path
) -> None:
    content = changed(torchscript(), "hostile_archives.py", CODE[name])
    folder = written(tmp_path / "model", packed(content))
    with pytest.raises(CheckpointReleaseError, match="does more than compute"):
        load(folder / "model.bin")


def test_the_file_that_was_looked_into_is_the_one_that_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another file is moved to its place as soon as the first was looked into."""
    from checkpoint_release.runtimes import archive_trust

    if not Path("/proc/self/fd").exists():
        pytest.skip("only Linux names open files")
    folder = written(tmp_path / "model", packed(torchscript()))
    file, other = folder / "model.bin", tmp_path / "other"
    other.write_bytes(b"something else")
    looked = archive_trust._problems

    def swap(format: str, path: Path) -> list[str]:
        found = looked(format, path)
        other.replace(file)
        return found

    monkeypatch.setattr(archive_trust, "_problems", swap)
    model = load(file)
    assert file.read_bytes() == b"something else"
    assert list(model.signature.input_names) == ["x"]
