"""Mutates checkpoints guided by coverage (atheris): `python -m tests.support.guided
COUNT SECONDS FOLDER`.

What runs new lines of the reader is mutated further, which random changes hardly reach:
`tests.support.fuzz` begins anew with every file. Each file must give a value or a
CheckpointReleaseError, within the memory of a small file, and cause no audit event but
those of reading. libFuzzer prints its own figures and stops at the first failure; the
file is left in FOLDER.
"""

from __future__ import annotations

import random
import resource
import sys
import zlib
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["checkpoint_release"]):
    from checkpoint_release.core.errors import CheckpointReleaseError
    from tests.support import metered

from tests.support import fuzz, watched
from tests.support.containers import zipped

MEMORY = 1 << 30  # bytes of address space above what the process has at the start
SECONDS = 30  # for one file, in a process that is slowed down by its instruments


def with_checksums(archive: bytes) -> bytes:
    """A mutated pickle in an archive whose checksum is right.

    Args:
        archive: what libFuzzer made. A first byte of 1 or 2 means a pickle alone.
    """
    kind, content = archive[:1], archive[1:]
    if kind == b"\1":
        return zipped(content)
    if kind == b"\2":
        return zipped(content, {"0": bytes(16), "1": bytes(64)})
    return content


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """libFuzzer's own changes; every other time ours, which know opcodes."""
    rng = random.Random(seed)
    if rng.random() < 0.5 or len(data) < 2:
        return bytes(atheris.Mutate(data, max_size))
    others = [content for content, _ in fuzz.seeds()]
    return (data[:1] + fuzz.mutated(data[1:], others, rng))[:max_size]


def corpus(folder: Path) -> None:
    """The same seeds as `fuzz`, and the small ones of the tricks.

    Not those that are slow by their nature: libFuzzer would spend its time on them.
    """
    from tests.support.tricks import tricks

    folder.mkdir(parents=True, exist_ok=True)
    for content, whole in fuzz.seeds():
        marked = b"\0" + content if whole is bytes else b"\2" + content
        (folder / f"{zlib.crc32(marked):08x}").write_bytes(marked)
    for name, (content, _) in tricks().items():
        if len(content) < 4096 and "unfold" not in name and "repeat" not in name:
            (folder / name).write_bytes(b"\0" + content)


def main(count: int, seconds: int, folder: Path) -> None:
    corpus(folder / "corpus")
    path = folder / "fuzzed.pth"
    path.write_bytes(zipped(b"\x80\x02N."))
    held = watched.peak()

    def one(data: bytes) -> None:
        path.write_bytes(with_checksums(data))
        watched.watching[:] = [str(path)]
        try:
            metered.release(path)
        except CheckpointReleaseError:
            pass
        finally:
            watched.watching.clear()
        if watched.violations:
            raise AssertionError(watched.violations[:3])

    one(b"\1\x80\x02N.")  # what is imported late is imported now
    watched.violations.clear()
    sys.addaudithook(watched.hook)
    limit = held + (4 << 30) + MEMORY  # address space, of which libFuzzer takes some
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    options = [
        f"-runs={count}",
        f"-max_total_time={seconds}",
        f"-timeout={SECONDS}",
        f"-rss_limit_mb={(held >> 20) + 400}",
        "-max_len=16384",
        f"-artifact_prefix={folder}/",
        "-print_final_stats=1",
        "-verbosity=0",
        str(folder / "corpus"),
    ]
    atheris.Setup([sys.argv[0], *options], one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
