"""The results of a fleet in git: one ref for each member.

refs/fleet/NAME/MEMBER is a commit on top of the pipeline's: for each point of the
matrix one commit with its params.yaml, dvc.lock and parity.json, and a last one with
member.json, which lists them. So `git checkout` and `dvc pull` give any release, and
`dvc metrics diff` compares two; refs can be pushed and fetched.

Only the coordinator writes them.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from checkpoint_release.core.artifacts.benchmark import BENCHMARK, Benchmark
from checkpoint_release.core.artifacts.typed import as_record
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import canonical_json
from checkpoint_release.core.json_text import JsonError, parse_json
from checkpoint_release.fleet.outcome import Built, PointBuilt
from checkpoint_release.fleet.project import Project, git

MEMBER = "member.json"
_KEY = "Fleet-Key"
_FORMAT = "%(refname)%00%(objectname)%00%(contents:body)%00"
_AUTHOR = "checkpoint-release <checkpoint-release@localhost>"


@dataclass(frozen=True)
class MemberRef:
    """What a member's ref says, without opening its files.

    Attributes:
        name: of the member.
        commit: that the ref points to.
        key: of the member when it was built.
    """

    name: str
    commit: str
    key: str


def member_refs(root: Path, fleet: str) -> dict[str, MemberRef]:
    """Name → ref, of all members that were built.

    Args:
        root: of the project.
        fleet: the fleet's name.

    Raises:
        ArtifactError: git can't be asked.
    """
    prefix = f"refs/fleet/{fleet}/"
    listed = git(root, "for-each-ref", f"--format={_FORMAT}", prefix)
    fields = [field.strip() for field in listed.split("\0")]
    refs = {}
    for place in range(0, len(fields) - 2, 3):
        name, commit, body = fields[place : place + 3]
        short = name.removeprefix(prefix)
        trailers = dict(line.partition(": ")[::2] for line in body.splitlines())
        refs[short] = MemberRef(short, commit, trailers.get(_KEY, ""))
    return refs


def read_members(root: Path, commits: Iterable[str]) -> Iterator[Built]:
    """What member.json holds in each of some commits, in their order.

    Args:
        root: of the project.
        commits: of member refs.

    Raises:
        ArtifactError: one has no such file, or it isn't as it was written.
    """
    asked = "".join(f"{commit}:./{MEMBER}\n" for commit in commits)
    done = subprocess.run(
        ["git", "cat-file", "--batch"],
        cwd=root,
        input=asked.encode(),
        capture_output=True,
    )
    rest = done.stdout
    while rest:
        header, _, rest = rest.partition(b"\n")
        fields = header.decode(errors="replace").split(" ")
        if len(fields) != 3:
            raise ArtifactError(
                f"a member's ref holds no {MEMBER}: {' '.join(fields)}",
                "remove that ref (git update-ref -d), and run the fleet again",
            )
        size = int(fields[2])
        content, rest = rest[:size], rest[size + 1 :]
        yield as_record(_json(content, fields[0]), Built, f"{MEMBER} {fields[0][:12]}")


def _json(content: bytes, source: str) -> object:
    try:
        return parse_json(content)
    except JsonError as error:
        raise ArtifactError(
            f"{MEMBER} {source[:12]} is {error}", "run the fleet again"
        ) from None


def write_member(project: Project, fleet: str, built: Built) -> None:
    """Write a member's ref: a commit for each point, and one that lists them.

    Either all of it is there at the end, or nothing.

    Args:
        project: that the fleet is of.
        fleet: the fleet's name.
        built: what was built, published or not.

    Raises:
        ArtifactError: git failed.
    """
    ref = f"refs/fleet/{fleet}/{built.name}"
    folder = project.folder
    commands: list[bytes] = []
    parent = built.commit
    for point in built.points:
        title = f"{fleet}: {built.name}" + (f", {point.name}" if point.name else "")
        commands.append(_commit(ref, title, _within(folder, _files(point)), parent))
        parent = ""
    summary = _within(folder, {MEMBER: canonical_json(built.to_json())})
    commands.append(
        _commit(ref, f"{fleet}: {built.name}", summary, parent, key=built.key)
    )
    options = ["--quiet", "--force", "--date-format=now", "--done"]
    stream = b"".join(commands) + b"done\n"
    git(project.root, "fast-import", *options, content=stream)


def _within(folder: str, files: Mapping[str, str]) -> dict[str, str]:
    """The files by their paths in the git repository."""
    return {f"{folder}{path}": text for path, text in files.items()}


def _files(point: PointBuilt) -> dict[str, str]:
    """What a point's commit holds beside the pipeline's files."""
    files = {
        "params.yaml": point.params,
        "dvc.lock": point.lock,
        "artifacts/parity.json": point.parity,
        # members measure nothing, whatever the project's own file holds
        f"artifacts/{BENCHMARK}": canonical_json(Benchmark().to_json()),
    }
    if point.statement:
        files["artifacts/publish.json"] = point.statement
    if point.benchmark:
        files["artifacts/benchmark.json"] = point.benchmark
    return files


def _commit(
    ref: str,
    title: str,
    files: Mapping[str, str],
    parent: str,
    key: str = "",
) -> bytes:
    """One commit, as git fast-import reads it.

    Args:
        ref: that it moves.
        title: of its message.
        files: path → text, over those of its parent.
        parent: its parent; "": the commit before it in the stream.
        key: of the member, for the end of the message; "": none.
    """
    message = f"{title}\n\n{_KEY}: {key}\n" if key else f"{title}\n"
    stream = f"commit {ref}\ncommitter {_AUTHOR} now\n".encode()
    stream += _data(message)
    if parent:
        stream += f"from {parent}\n".encode()
    for path, text in files.items():
        stream += f"M 100644 inline {path}\n".encode() + _data(text)
    return stream + b"\n"


def _data(text: str) -> bytes:
    content = text.encode()
    return b"data %d\n%s\n" % (len(content), content)
