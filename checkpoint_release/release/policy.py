"""What a release must have before somebody takes it: a signature, and people who made
it again and got the same.

A policy fails closed: what can't be read, isn't about this release, or is by a key that
nobody named doesn't count, and too little of what counts is a failure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from checkpoint_release.core.artifacts.attestation import (
    ATTESTATIONS,
    REBUILT_TYPE,
    SAME,
    SUFFIX,
    Rebuilt,
    is_rebuild,
)
from checkpoint_release.core.artifacts.release import Release
from checkpoint_release.core.artifacts.typed import as_record
from checkpoint_release.core.errors import (
    CheckpointReleaseError,
    ParamsError,
    PublishError,
)
from checkpoint_release.core.signing_keys import fingerprint, load_public_key
from checkpoint_release.release.attested import require_about
from checkpoint_release.release.checks import Check
from checkpoint_release.release.envelopes import read_attestation
from checkpoint_release.release.signing import signer_key

_HOW = "write it as rebuilt=2,signed-by=publisher.pub, or one of the two"


@dataclass(frozen=True)
class Policy:
    """What is required of a release.

    Attributes:
        rebuilt: by how many people it must have been made again.
        signed_by: PEM file of the key that must have signed it; None: it may be
            anybody's.
        rebuilders: PEM files of the keys of those whose rebuilds count.
        attestations: files, or folders of files, with their attestations, beside those
            in the release.
    """

    rebuilt: int = 0
    signed_by: Path | None = None
    rebuilders: tuple[Path, ...] = ()
    attestations: tuple[Path, ...] = ()


def parse_policy(
    text: str, rebuilders: Sequence[Path] = (), attestations: Sequence[Path] = ()
) -> Policy:
    """Read a policy such as rebuilt=2,signed-by=publisher.pub.

    Args:
        text: the requirements, separated by commas.
        rebuilders, attestations: as of Policy.

    Raises:
        ParamsError: it isn't one, or nobody's rebuild could count.
    """
    stated: dict[str, str] = {}
    for clause in text.split(","):
        name, _, value = clause.strip().partition("=")
        if name not in ("rebuilt", "signed-by") or not value:
            raise ParamsError(f"{{require}} has {clause.strip()!r}", _HOW, options=_OWN)
        if name in stated:
            raise ParamsError(f"{{require}} has {name} twice", _HOW, options=_OWN)
        stated[name] = value
    count = _count(stated.get("rebuilt"))
    if count and len(set(rebuilders)) < count:
        raise ParamsError(
            f"{{require}} asks for {count} rebuilds, and {{rebuilder}} names"
            f" {len(set(rebuilders))} keys: anybody can make keys, so only those count"
            " that you name",
            "name the public key of each person whose rebuild counts",
            options=[*_OWN, "rebuilder"],
        )
    if not count:
        require_unused(rebuilders, attestations)
    signed_by = Path(stated["signed-by"]) if "signed-by" in stated else None
    return Policy(count, signed_by, tuple(rebuilders), tuple(attestations))


_OWN = ("require",)


def require_unused(rebuilders: Sequence[Path], attestations: Sequence[Path]) -> None:
    """Require that nobody names rebuilds where none is asked for: a reader would take
    them for checked.

    Raises:
        ParamsError: somebody does.
    """
    for option, paths in (("rebuilder", rebuilders), ("attestations", attestations)):
        if paths:
            raise ParamsError(
                f"{{{option}}} is {paths[0]}, and no rebuild is required",
                "require rebuilt=1, or as many as there shall be; or leave {"
                f"{option}}} out",
                options=[option, "require"],
            )


def _count(text: str | None) -> int:
    """The number of rebuilds.

    Raises:
        ParamsError: it is none, or less than one.
    """
    if text is None:
        return 0
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ParamsError(f"{{require}} has rebuilt={text}", _HOW, options=_OWN)
    return int(text)


def check_rebuilds(folder: Path, release: Release, policy: Policy) -> list[Check]:
    """Check how many people made a release again and got the same.

    Args:
        folder: the release, whose files are what its release.json lists, and whose
            signature holds.
        release: its release.json.
        policy: what is required; without rebuilds, nothing is checked.

    Raises:
        PublishError: a key can't be used.
    """
    if not policy.rebuilt:
        return []
    keys = {}
    for path in policy.rebuilders:
        key = load_public_key(path)
        keys[fingerprint(key)] = key
    if policy.signed_by:
        # who published it vouches for it already
        keys.pop(fingerprint(signer_key(folder, policy.signed_by)), None)
    counted: set[str] = set()
    ignored = []
    for path in _attestations(folder, policy):
        try:
            opened = read_attestation(path, list(keys.values()))
            _require_rebuilt(release, opened.statement.predicate, path)
            require_about(opened.statement, REBUILT_TYPE, release.built.files)
        except CheckpointReleaseError as error:
            ignored.append(f"{path.name}: {error.problem}")
            continue
        if not opened.signers:
            ignored.append(f"{path.name}: it is signed by no key that counts")
        counted |= opened.signers
    message = f"{len(counted)} of {policy.rebuilt} people made it again"
    if counted:
        message += f" ({', '.join(f'{each[:12]}…' for each in sorted(counted))})"
    if ignored:
        message += f"; not counted: {'; '.join(ignored)}"
    return [Check("rebuilt", len(counted) >= policy.rebuilt, message)]


def _attestations(folder: Path, policy: Policy) -> Iterator[Path]:
    """The files that may be attestations of rebuilds, in the release and elsewhere."""
    inside = folder / ATTESTATIONS
    if inside.is_dir():
        yield from sorted(path for path in inside.iterdir() if is_rebuild(path.name))
    for place in policy.attestations:
        if place.is_dir():
            yield from sorted(place.glob(f"*{SUFFIX}"))
        else:
            yield place


def _require_rebuilt(
    release: Release, predicate: dict[str, object], path: Path
) -> None:
    """Require that what is attested is that all that was built is the same.

    Raises:
        CheckpointReleaseError: it isn't.
    """
    rebuilt = as_record(predicate, Rebuilt, path.name)
    if rebuilt.result != SAME:
        raise PublishError(f"its result is {rebuilt.result!r}, not {SAME!r}")
    if rebuilt.built != release.built.sha256:
        raise PublishError("it is about another release")
