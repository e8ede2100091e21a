"""rebuild: a release made again from its own record, and compared byte for byte."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from checkpoint_release.__main__ import main
from checkpoint_release.core.artifacts.attestation import RECORD, Making
from checkpoint_release.core.artifacts.checkpoint import CheckpointFacts
from checkpoint_release.core.artifacts.manifest import write_manifest
from checkpoint_release.core.artifacts.release import digest_of, read_release
from checkpoint_release.core.errors import PublishError
from checkpoint_release.core.files import FileEntry, sha256
from checkpoint_release.core.key_uri import PIN_VARIABLE
from checkpoint_release.core.signing_keys import fingerprint, load_public_key
from checkpoint_release.core.yaml_text import parse_yaml
from checkpoint_release.project import rebuild
from checkpoint_release.project.one_shot import StageFailedError
from checkpoint_release.project.rebuild_options import Given
from checkpoint_release.project.recorded import Record, read_recorded
from checkpoint_release.release.assemble import assemble
from checkpoint_release.release.describe import write_description
from checkpoint_release.release.envelopes import read_attestation
from tests.release.test_assemble import make_keys
from tests.release.test_attestations import MAKING
from tests.support.parity_json import write_parity
from tests.support.project import ROOT
from tests.support.publishing import fake_artifacts
from tests.support.token import NEEDS_SOFTHSM, PIN, SoftToken

Printed = pytest.CaptureFixture[str]
DEMO = ROOT / "checkpoints/demo.pth"
CHECKPOINT = b"a checkpoint"
PARAMS = parse_yaml((ROOT / "params.yaml").read_bytes())
FAKE = "0" * 64  # the sha256 that fake artifacts have of their checkpoint


class Stages:
    """What runs in place of the stages: artifacts that were made elsewhere."""

    def __init__(self, artifacts: Path) -> None:
        self.artifacts = artifacts
        self.params: dict[str, Any] = {}
        self.python = ""
        self.fails = False

    def __call__(self, files: Mapping[str, str], work: Path, python: str) -> None:
        self.params = parse_yaml(files["params.yaml"].encode())
        self.python = python
        if self.fails:
            raise StageFailedError("stage export-onnx failed")
        shutil.copytree(self.artifacts, work / "artifacts")
        assemble(work / "artifacts")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "best.pth").write_bytes(CHECKPOINT)
    return tmp_path


@pytest.fixture
def stages(here: Path, monkeypatch: pytest.MonkeyPatch) -> Stages:
    stages = Stages(fake_artifacts(here / "again"))
    monkeypatch.setattr(rebuild, "run_project", stages)
    monkeypatch.setattr(rebuild, "sha256", lambda path: FAKE)
    monkeypatch.setattr(
        rebuild, "installed_packages", lambda python: {"torch": "2.14.0"}
    )
    return stages


def release(
    here: Path, key: Path | None, making: Making | None = None, **params: Any
) -> Path:
    """A signed release whose record names the demo's parameters, changed."""
    parameters = {**PARAMS}
    for option, value in params.items():
        section, _, name = option.partition("__")
        parameters[section] = {**parameters[section], name: value}
    recorded = making or msgspec.structs.replace(
        MAKING, parameters=parameters, checkpoint=FAKE
    )

    def made(facts: CheckpointFacts) -> Making:
        return recorded

    return assemble(fake_artifacts(here / "first"), signing_key=key, making=made)


def a_making(facts: CheckpointFacts) -> Making:
    return MAKING


def test_the_same_bytes_are_the_same_and_can_be_attested(
    here: Path, keys: tuple[Path, Path], stages: Stages, capsys: Printed
) -> None:
    folder = release(here, keys[0], onnx__opset=20)
    (here / "mine").mkdir()
    mine, mine_public = make_keys(here / "mine")
    command = ["rebuild", str(folder), "best.pth", "--public-key", str(keys[1])]
    assert main([*command, "--sign", str(mine)]) == 0
    assert "the same: 6 built files, sha256 " in capsys.readouterr().out
    (attestation,) = here.glob("rebuilt-*.intoto.jsonl")
    assert stages.params["onnx"]["opset"] == 20
    assert stages.params["checkpoint"]["path"] == str(here / "best.pth")
    assert stages.params["publish"]["signing_key"] is None

    policy = f"rebuilt=1,signed-by={keys[1]}"
    counted = ["--rebuilder", str(mine_public), "--attestations", str(attestation)]
    main(["verify", str(folder), "--require", policy, *counted])
    assert "ok     rebuilt" in capsys.readouterr().out


@NEEDS_SOFTHSM
def test_a_key_on_a_token_attests_and_a_wrong_pin_is_found_before_the_work(
    here: Path,
    keys: tuple[Path, Path],
    stages: Stages,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Printed,
) -> None:
    monkeypatch.setenv("SOFTHSM2_CONF", "")  # set anew, and undone in the end
    token = SoftToken.made(here / "token")
    mine = token.make_key()
    folder = release(here, keys[0])
    command = ["rebuild", str(folder), "best.pth", "--sign", token.uri()]
    monkeypatch.setenv(PIN_VARIABLE, "000000")
    assert main(command) == 1
    assert "has another PIN" in capsys.readouterr().err and stages.params == {}
    monkeypatch.setenv(PIN_VARIABLE, PIN)
    assert main(command) == 0
    (attestation,) = here.glob("rebuilt-*.intoto.jsonl")
    opened = read_attestation(attestation, [load_public_key(mine)])
    assert opened.signers == {fingerprint(load_public_key(mine))}


def test_other_bytes_are_named_with_what_may_explain_them_and_not_attested(
    here: Path, keys: tuple[Path, Path], stages: Stages, capsys: Printed
) -> None:
    folder = release(here, keys[0])
    shutil.rmtree(stages.artifacts)
    fake_artifacts(stages.artifacts, weights=b"others!")
    (stages.artifacts / "safetensors/more.json").write_text("{}")
    command = ["rebuild", str(folder), "best.pth", "--sign", str(keys[0])]
    write_manifest(stages.artifacts / "safetensors", "safetensors")
    write_parity(stages.artifacts)
    assert main(command) == 1
    printed = capsys.readouterr().out.splitlines()
    differing = [line.split()[1] for line in printed if line.startswith("differs: ")]
    assert differing == [
        *("model.safetensors", "more.json"),
        *("onnx/model.onnx", "torchscript/model.pt"),
    ]
    assert "differs: more.json was not in the release" in printed
    assert "version: torch: 2.13.0+cpu then, 2.14.0 now" in printed
    assert printed[-1] == "not the same: 4 files differ"
    assert not list(here.glob("rebuilt-*"))


def test_what_is_not_the_same_is_never_signed(
    here: Path, keys: tuple[Path, Path], stages: Stages
) -> None:
    record = read_recorded(release(here, keys[0]))
    found = rebuild.Rebuild(record, {}, ["config.json was not made"])
    with pytest.raises(PublishError, match="nothing is signed"):
        rebuild.attest(found, keys[0], here / "x.intoto.jsonl")
    assert not (here / "x.intoto.jsonl").exists()


# What a record of a stranger may not do, and what it may lack


def error(arguments: list[str], capsys: Printed) -> str:
    assert main(["rebuild", *arguments]) == 1
    return capsys.readouterr().err


def test_another_checkpoint_is_refused_before_anything_runs(
    here: Path, keys: tuple[Path, Path], capsys: Printed
) -> None:
    folder = release(here, keys[0])
    text = error([str(folder), "best.pth"], capsys)
    digest = sha256(here / "best.pth")
    assert f"best.pth has sha256 {digest[:12]}…" in text
    assert "name the checkpoint that it was made from" in text


def test_code_that_the_record_names_runs_only_when_it_is_trusted(
    here: Path, keys: tuple[Path, Path], stages: Stages, capsys: Printed
) -> None:
    (here / "theirs.py").write_text("def build(): ...\n")
    folder = release(here, keys[0], model__factory="theirs:build")
    text = error([str(folder), "best.pth"], capsys)
    assert "names 'theirs:build' as its model's code" in text
    assert "name theirs:build in --trust" in text
    assert stages.params == {}
    assert main(["rebuild", str(folder), "best.pth", "--trust", "theirs:build"]) == 0
    assert stages.params["model"]["source"] == str(here / "theirs.py")


def test_paths_of_the_publisher_s_machine_are_not_followed(
    here: Path, keys: tuple[Path, Path], stages: Stages
) -> None:
    folder = release(
        here, keys[0], checkpoint__path="theirs.pth", card__notes_dir="their/notes"
    )
    assert main(["rebuild", str(folder), "best.pth"]) == 0
    assert stages.params["checkpoint"]["path"] == str(here / "best.pth")
    assert stages.params["card"]["notes_dir"] != "their/notes"


@pytest.mark.parametrize(
    ("recorded", "given", "expected"),
    [
        ("lora.safetensors", ["mine"], "mine"),
        ({"a": 0.5, "b": 2.0}, ["x", "y"], {"x": 0.5, "y": 2.0}),
        (None, ["mine"], "made with 0 adapters, and --adapter names 1"),
        ("lora.safetensors", [], "made with 1 adapters, and --adapter names 0"),
    ],
)
def test_adapters_are_those_that_lie_here(
    here: Path,
    keys: tuple[Path, Path],
    stages: Stages,
    capsys: Printed,
    recorded: Any,
    given: list[str],
    expected: Any,
) -> None:
    folder = release(here, keys[0], checkpoint__adapter=recorded)
    flags = [part for path in given for part in ("--adapter", path)]
    code = main(["rebuild", str(folder), "best.pth", *flags])
    if isinstance(expected, str) and " " in expected:
        assert code == 1 and expected in capsys.readouterr().err
        return
    assert code == 0
    found = stages.params["checkpoint"]["adapter"]
    if isinstance(expected, str):
        assert found == str(here / expected)
    else:
        named = {str(here / name): weight for name, weight in expected.items()}
        assert found == named


# A release that isn't signed


def recorded(here: Path, **params: Any) -> Path:
    """An unsigned release with a record, as the stage makes it."""
    return release(here, None, **params)


def test_an_unsigned_release_is_made_again_only_where_its_record_is_taken_as_it_is(
    here: Path, stages: Stages, capsys: Printed
) -> None:
    folder = recorded(here, onnx__opset=20)
    text = error([str(folder), "best.pth"], capsys)
    assert "isn't signed: anybody who could change it" in text
    assert "--unsigned" in text and stages.params == {}
    assert main(["rebuild", str(folder), "best.pth", "--unsigned"]) == 0
    printed = capsys.readouterr().out
    assert "the same: 6 built files" in printed
    assert "and not who published it" in printed
    assert stages.params["onnx"]["opset"] == 20


def test_of_a_signed_release_that_is_said_where_no_key_is_named(
    here: Path, keys: tuple[Path, Path], stages: Stages, capsys: Printed
) -> None:
    folder = release(here, keys[0])
    assert main(["rebuild", str(folder), "best.pth"]) == 0
    assert "not who published it" in capsys.readouterr().out
    named = ["--public-key", str(keys[1])]
    assert main(["rebuild", str(folder), "best.pth", *named]) == 0
    assert "not who published it" not in capsys.readouterr().out


def test_an_unsigned_record_is_no_substitute_for_a_signature_that_is_asked_for(
    here: Path, keys: tuple[Path, Path], stages: Stages, capsys: Printed
) -> None:
    folder = recorded(here)
    asked = [str(folder), "best.pth", "--unsigned", "--public-key", str(keys[1])]
    assert "it isn't signed at all" in error(asked, capsys)
    assert stages.params == {}


def test_an_unsigned_record_runs_no_code_that_is_not_trusted(
    here: Path, stages: Stages, capsys: Printed
) -> None:
    (here / "theirs.py").write_text("def build(): ...\n")
    folder = recorded(here, model__factory="theirs:build")
    text = error([str(folder), "best.pth", "--unsigned"], capsys)
    assert "name theirs:build in --trust" in text and stages.params == {}


def test_an_unsigned_record_of_other_files_is_refused(
    here: Path, stages: Stages, capsys: Printed
) -> None:
    """Such as one that was left from another release, in a release.json that fits."""
    folder = recorded(here)
    other = assemble(
        fake_artifacts(here / "other", weights=b"others!"), making=a_making
    )
    description = read_release(folder)
    shutil.copy(other / RECORD, folder / RECORD)
    files = {**description.evidence.files, RECORD: FileEntry.of(folder / RECORD)}
    evidence = msgspec.structs.replace(
        description.evidence, files=files, sha256=digest_of(files)
    )
    write_description(folder, msgspec.structs.replace(description, evidence=evidence))
    text = error([str(folder), "best.pth", "--unsigned"], capsys)
    assert "is about another model.safetensors" in text and stages.params == {}


def test_a_record_holds_what_is_built_with_and_nothing_of_the_card_or_of_git(
    here: Path,
) -> None:
    folder = recorded(here, card__title="A secret", checkpoint__path="/home/ada/a.pth")
    text = (folder / RECORD).read_text()
    assert "A secret" not in text and "gitCommit" not in text
    assert '"opset"' in text and '"torch"' in text


def unsigned(here: Path, keys: tuple[Path, Path]) -> Path:
    return assemble(fake_artifacts(here / "first"))


def changed(here: Path, keys: tuple[Path, Path]) -> Path:
    folder = release(here, keys[0])
    (folder / "config.json").write_text("{ }")
    return folder


def with_an_unknown_option(here: Path, keys: tuple[Path, Path]) -> Path:
    return release(here, keys[0], onnx__colour="blue")


def without_a_section(here: Path, keys: tuple[Path, Path]) -> Path:
    return release(
        here, keys[0], making=msgspec.structs.replace(MAKING, checkpoint=FAKE)
    )


@pytest.mark.parametrize(
    ("make", "message", "remedy"),
    [
        (unsigned, "doesn't record how it was made", "a newer version"),
        (changed, "config.json is not what was released", "get the release again"),
        (with_an_unknown_option, "onnx.colour", "checkpoint-release==0.2.0"),
        (without_a_section, "the record has no section checkpoint", "get the release"),
    ],
)
def test_a_release_that_cannot_be_rebuilt_is_one_clear_error(
    here: Path,
    keys: tuple[Path, Path],
    stages: Stages,
    capsys: Printed,
    make: Any,
    message: str,
    remedy: str,
) -> None:
    text = error([str(make(here, keys)), "best.pth"], capsys)
    assert message in text and remedy in text and stages.params == {}


def test_a_record_by_another_key_is_refused(
    here: Path, keys: tuple[Path, Path], stages: Stages, capsys: Printed
) -> None:
    folder = release(here, keys[0])
    _, other = make_keys(here)
    text = error([str(folder), "best.pth", "--public-key", str(other)], capsys)
    assert "first/release is not signed by" in text and stages.params == {}


def test_a_stage_that_fails_is_no_difference(
    here: Path, keys: tuple[Path, Path], stages: Stages, capsys: Printed
) -> None:
    stages.fails = True
    text = error([str(release(here, keys[0])), "best.pth"], capsys)
    assert "nothing to compare: stage export-onnx failed" in text
    assert "--requirements" in text


def test_an_interpreter_without_the_library_is_one_clear_error(
    here: Path,
    keys: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Printed,
) -> None:
    monkeypatch.setattr(rebuild, "sha256", lambda path: FAKE)
    arguments = [str(release(here, keys[0])), "best.pth", "--python", "/bin/false"]
    text = error(arguments, capsys)
    assert "--python is /bin/false, which doesn't run checkpoint-release" in text
    arguments[-1] = "/nowhere/python"
    text = error(arguments, capsys)
    assert "--python is /nowhere/python, which can't be run: No such file" in text
    assert "pip install" not in text


def test_the_versions_of_the_record_are_written_for_pip(
    here: Path, keys: tuple[Path, Path]
) -> None:
    folder = release(here, keys[0])
    pins = here / "pins.txt"
    assert main(["rebuild", str(folder), "best.pth", "--requirements", str(pins)]) == 0
    assert pins.read_text() == "checkpoint-release==0.2.0\ntorch==2.13.0\n"


# With the stages themselves


@pytest.mark.slow
def test_a_release_of_the_demo_is_made_again_and_another_opset_is_found(
    here: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "checkpoint_release", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    settings = [f"publish.signing_key={keys[0]}", "parity.sizes={}", "onnx.opset=18"]
    flags = [part for each in settings for part in ("--set", each)]
    formats = ("--formats", "safetensors", "onnx")
    made = run("convert", str(DEMO), "-o", "release", *formats, *flags)
    assert made.returncode == 0, made.stderr
    same = run("rebuild", "release", str(DEMO), "--public-key", str(keys[1]))
    assert same.returncode == 0, same.stdout + same.stderr
    assert "the same: " in same.stdout

    record = read_recorded(Path("release"))
    parameters = json.loads(json.dumps(record.making.parameters))
    parameters["onnx"]["opset"] = 17
    lied = msgspec.structs.replace(record.making, parameters=parameters)
    given = Given(checkpoint=str(DEMO))
    found = rebuild.rebuild(Record(record.release, lied), given)
    names = [line.split()[0] for line in found.differences]
    assert names == ["onnx/model.onnx"]
    assert found.packages["torch"] and list(found.hints) == []
