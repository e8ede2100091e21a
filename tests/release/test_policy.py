"""What somebody requires of a release before taking it: who signed it, and that others
made it again and got the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from checkpoint_release.__main__ import main
from checkpoint_release.core.artifacts.attestation import (
    REBUILT_TYPE,
    Rebuilt,
    Statement,
    subjects,
)
from checkpoint_release.core.artifacts.release import Release, read_release
from checkpoint_release.core.errors import ParamsError, PublishError
from checkpoint_release.core.signing_keys import load_signing_key
from checkpoint_release.release.assemble import assemble
from checkpoint_release.release.envelopes import write_attestation
from checkpoint_release.release.policy import Policy, parse_policy
from checkpoint_release.release.verify import verify
from tests.release.test_assemble import make_keys
from tests.release.test_attestations import failed, made
from tests.release.test_verify_order import Opened
from tests.support.publishing import fake_artifacts

PRIVATE, PUBLIC = "prime256v1.pem", "prime256v1.pub"


@dataclass(frozen=True)
class World:
    """A signed release, and the keys of its publisher and of three other people."""

    release: Path
    keys: Path

    def public(self, name: str) -> Path:
        return self.keys / name / PUBLIC

    def attest(self, name: str, folder: Path, **changes: object) -> Path:
        """Somebody's attestation that the release was made again."""
        folder.mkdir(exist_ok=True)
        statement = rebuilt(read_release(self.release), **changes)
        path = folder / f"rebuilt-{name}.intoto.jsonl"
        write_attestation(path, statement, load_signing_key(self.keys / name / PRIVATE))
        return path

    def policy(self, text: str, *rebuilders: str) -> Policy:
        """Further attestations are those in the folder `more`."""
        filled = text.replace("KEY", str(self.public("publisher")))
        keys = [self.public(name) for name in rebuilders]
        more = self.keys / "more"
        return parse_policy(filled, keys, [more] if more.is_dir() else [])

    def failures(self, policy: Policy) -> list[str]:
        opened = Opened()
        lines = failed(verify(self.release, opener=opened, policy=policy))
        assert bool(opened.paths) == (lines == [])  # nothing is opened otherwise
        return lines


def rebuilt(release: Release, **changes: object) -> Statement:
    values = {
        "result": "same",
        "built": release.built.sha256,
        "checkpoint": "c" * 64,
        "packages": {},
    }
    predicate = Rebuilt(**{**values, **changes})  # type: ignore[arg-type]
    return Statement(
        subject=subjects(release.built.files),
        predicate_type=REBUILT_TYPE,
        predicate=predicate.to_json(),
    )


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("publisher", "ada", "bob", "eve"):
        (folder / name).mkdir()
        make_keys(folder / name)
    return folder


@pytest.fixture
def world(tmp_path: Path, keys: Path) -> World:
    own = shutil.copytree(keys, tmp_path / "keys")
    artifacts = fake_artifacts(tmp_path / "artifacts")
    key = own / "publisher" / PRIVATE
    return World(assemble(artifacts, signing_key=key, making=made), own)


# Enough


def test_two_people_whose_keys_are_named_are_two_rebuilds(world: World) -> None:
    world.attest("ada", world.release / "attestations")
    world.attest("bob", world.keys / "more")
    policy = world.policy("rebuilt=2,signed-by=KEY", "ada", "bob")
    assert world.failures(policy) == []


def test_the_attestations_of_others_in_a_release_are_no_foreign_files(
    world: World,
) -> None:
    path = world.attest("ada", world.release / "attestations")
    (row, *_) = verify(world.release, opener=Opened())
    assert row.passed and path.name in row.message
    elsewhere = world.attest("ada", world.release / "onnx")
    (row,) = verify(world.release, opener=Opened())
    assert not row.passed and elsewhere.name in row.message


# Too little


def nobody(world: World) -> None:
    pass


def only_one(world: World) -> None:
    world.attest("ada", world.release / "attestations")


def the_same_one_twice(world: World) -> None:
    world.attest("ada", world.release / "attestations")
    world.attest("ada", world.keys / "more")


def one_whom_nobody_named(world: World) -> None:
    world.attest("ada", world.release / "attestations")
    world.attest("eve", world.keys / "more")


def of_another_release(world: World) -> None:
    world.attest("ada", world.release / "attestations")
    world.attest("bob", world.keys / "more", built="0" * 64)


def with_another_result(world: World) -> None:
    world.attest("ada", world.release / "attestations")
    world.attest("bob", world.keys / "more", result="different")


def about_other_files(world: World) -> None:
    world.attest("ada", world.release / "attestations")
    release = read_release(world.release)
    statement = rebuilt(release)
    statement.subject.pop()
    (world.keys / "more").mkdir()
    write_attestation(
        world.keys / "more/rebuilt-bob.intoto.jsonl",
        statement,
        load_signing_key(world.keys / "bob" / PRIVATE),
    )


def of_another_kind(world: World) -> None:
    """The publisher's own statements say nothing about a rebuild."""
    world.attest("ada", world.release / "attestations")
    shutil.copytree(world.release / "attestations", world.keys / "more")


def no_envelope(world: World) -> None:
    world.attest("ada", world.release / "attestations")
    world.attest("bob", world.keys / "more").write_text("{}")


def tampered(world: World) -> None:
    """Eve's, with Bob named as its signer."""
    world.attest("ada", world.release / "attestations")
    path = world.attest("eve", world.keys / "more")
    bobs = world.attest("bob", world.keys / "more")
    hint = bobs.read_text().partition('"keyid":"')[2][:64]
    eves = path.read_text().partition('"keyid":"')[2][:64]
    path.write_text(path.read_text().replace(eves, hint))
    bobs.unlink()


@pytest.mark.parametrize(
    "lacking",
    [
        nobody,
        only_one,
        the_same_one_twice,
        one_whom_nobody_named,
        of_another_release,
        with_another_result,
        about_other_files,
        of_another_kind,
        no_envelope,
        tampered,
    ],
)
def test_what_does_not_count_is_not_counted(
    world: World, lacking: Callable[[World], None]
) -> None:
    lacking(world)
    policy = world.policy("rebuilt=2,signed-by=KEY", "ada", "bob")
    (line,) = world.failures(policy)
    found = 0 if lacking is nobody else 1
    assert line.startswith(f"rebuilt: {found} of 2 people made it again")


def test_the_publisher_s_own_rebuild_is_not_another_person_s(world: World) -> None:
    world.attest("ada", world.release / "attestations")
    world.attest("publisher", world.keys / "more")
    names = ("ada", "publisher")
    (line,) = world.failures(world.policy("rebuilt=2,signed-by=KEY", *names))
    assert line.startswith("rebuilt: 1 of 2")
    assert world.failures(world.policy("rebuilt=2", *names)) == []


def test_a_missing_file_of_attestations_does_not_count(world: World) -> None:
    policy = parse_policy(
        "rebuilt=1", [world.public("ada")], [world.keys / "none.intoto.jsonl"]
    )
    (line,) = world.failures(policy)
    assert "can't be read" in line


@pytest.mark.parametrize("signature", ["missing", "by another"])
def test_signed_by_fails_without_that_signature(
    world: World, tmp_path: Path, signature: str
) -> None:
    if signature == "missing":
        (world.release / "model.sig").unlink()
        lines = world.failures(world.policy("signed-by=KEY"))
        assert lines == ["signature: the release is not signed"]
        return
    policy = parse_policy(f"signed-by={world.public('eve')}")
    names = [line.partition(":")[0] for line in world.failures(policy)]
    assert names == ["signature"]


# Policies that are none


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "require has ''"),
        ("rebuilt", "require has 'rebuilt'"),
        ("rebuilt=0", "require has rebuilt=0"),
        ("rebuilt=-1", "require has rebuilt=-1"),
        ("rebuilt=two", "require has rebuilt=two"),
        ("rebuilt=²", "require has rebuilt=²"),
        ("rebuilt=1,rebuilt=2", "require has rebuilt twice"),
        ("rebuild=2", "require has 'rebuild=2'"),
        ("signed-by=", "require has 'signed-by='"),
        ("signed-by=a.pub,", "require has ''"),
        ("rebuilt=2", "asks for 2 rebuilds, and rebuilder names 1 keys"),
    ],
)
def test_what_is_no_policy_is_one_clear_error(
    world: World, text: str, message: str
) -> None:
    with pytest.raises(ParamsError) as caught:
        world.policy(text, "ada")
    assert message in caught.value.problem and caught.value.remedy


def test_two_keys_for_one_signature_are_one_clear_error(world: World) -> None:
    policy = world.policy("signed-by=KEY")
    with pytest.raises(ParamsError, match="name one of them"):
        verify(world.release, public_key=world.public("ada"), policy=policy)


def test_a_rebuilder_s_key_that_cannot_be_read_stops_the_check(world: World) -> None:
    policy = parse_policy("rebuilt=1", [world.keys / "nobody.pub"])
    with pytest.raises(PublishError, match=r"nobody\.pub can't be read"):
        verify(world.release, policy=policy, opener=Opened())


def test_the_command_fails_closed(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["verify", str(world.release)]
    keys = ["--rebuilder", str(world.public("ada"))]
    signer = world.public("publisher")
    require = ["--require", f"rebuilt=1,signed-by={signer}"]
    assert main([*command, *require]) == 1
    assert "name the public key of each person" in capsys.readouterr().err
    assert main([*command, *require, *keys]) == 1
    assert "FAILED rebuilt" in capsys.readouterr().out
    world.attest("ada", world.keys / "more")
    more = ["--attestations", str(world.keys / "more")]
    main([*command, *require, *keys, *more])
    assert "ok     rebuilt" in capsys.readouterr().out
