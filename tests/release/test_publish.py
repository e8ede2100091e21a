"""publish, as its user sees it: what is on the Hub afterwards, what the receipt states,
and what is printed.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest
from huggingface_hub import constants

from checkpoint_release.core.artifacts.parity import read_report
from checkpoint_release.core.artifacts.receipt import Checkout
from checkpoint_release.core.artifacts.release import read_release
from checkpoint_release.core.errors import ArtifactError, ParamsError, PublishError
from checkpoint_release.core.file_sharing import share_file
from checkpoint_release.core.files import FileEntry
from checkpoint_release.core.params import PublishParams, parse_section
from checkpoint_release.release.hub import Hub
from checkpoint_release.release.hub_errors import scrub
from checkpoint_release.release.tokens import require_token
from tests.support.hub_server import Account, Fault
from tests.support.parity_json import store_report, write_parity
from tests.support.project import Project
from tests.support.publishing import (
    CARD,
    PARAMS,
    REPO,
    SENDING,
    TOKEN,
    Publisher,
    fake_artifacts,
    weights_file,
)

pytestmark = pytest.mark.filterwarnings(SENDING)


# The release arrives


def test_the_first_publication_makes_the_repository_one_commit_and_one_tag(
    publisher: Publisher,
) -> None:
    publisher.publish()
    publisher.require_published()
    assert publisher.receipt.changed is True
    assert publisher.repo.private
    assert {
        "model.safetensors",
        "onnx/model.onnx",
        "torchscript/model.pt",
        "README.md",
    } <= publisher.on_hub().keys()
    assert {
        "release.json",
        "SHA256SUMS",
        "parity.json",
        "sample/inputs.safetensors",
    } <= publisher.on_hub().keys()


def test_publishing_again_changes_nothing_and_leaves_the_receipt_as_it_was(
    publisher: Publisher,
) -> None:
    publisher.publish()
    before = publisher.receipt_path.read_bytes()
    publisher.hub.requests.clear()
    publisher.publish()
    assert publisher.receipt_path.read_bytes() == before
    assert {method for method, _, _ in publisher.hub.requests} <= {"GET", "HEAD"}
    publisher.require_published()


def test_without_a_receipt_what_the_hub_holds_is_recorded(publisher: Publisher) -> None:
    publisher.publish()
    publisher.receipt_path.unlink()
    publisher.publish()
    assert publisher.receipt.changed is False
    publisher.require_published()


def test_the_next_version_is_one_more_commit_that_removes_retired_formats(
    publisher: Publisher, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher.publish()
    shutil.rmtree(publisher.artifacts / "onnx")
    fake_artifacts(publisher.artifacts, weights=b"other weights", onnx=False)
    capsys.readouterr()
    publisher.publish(version="v1.1.0")
    output = capsys.readouterr().out
    assert "change model.safetensors" in output and "delete onnx/model.onnx" in output
    publisher.require_published(version="v1.1.0", releases=2)
    assert "onnx/model.onnx" in publisher.on_hub("v1.0.0")


def test_large_files_go_in_parts_and_lists_come_in_pages(publisher: Publisher) -> None:
    hub = publisher.hub.hub
    hub.multipart_over, hub.chunk_size, hub.page_size = 100, 64, 3
    fake_artifacts(publisher.artifacts, weights=bytes(range(256)))
    publisher.publish()
    publisher.require_published()
    assert any(
        re.search(r"/storage/.*/2$", path) for _, path, _ in publisher.hub.requests
    )


def test_files_that_are_there_already_are_not_sent_again(publisher: Publisher) -> None:
    publisher.publish()
    publisher.hub.requests.clear()
    fake_artifacts(publisher.artifacts, card=CARD + "More text.\n")
    publisher.publish(version="v1.0.1")
    assert not [path for method, path, _ in publisher.hub.requests if method == "PUT"]
    publisher.require_published(version="v1.0.1", releases=2)


def test_another_branch_is_made_and_main_stays_as_it_was(publisher: Publisher) -> None:
    publisher.publish(revision="next", version=None)
    assert publisher.on_hub("next") == publisher.release
    assert publisher.on_hub("main") == {}
    assert publisher.receipt.revision == "next" and publisher.receipt.tag is None


def test_a_pull_request_is_opened_once_and_tagged_when_it_is_merged(
    publisher: Publisher, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher.hub.hub.create(REPO)
    publisher.publish(create_pr=True)
    first = publisher.receipt
    assert first.pull_request == f"{publisher.hub.url}/{REPO}/discussions/1"
    assert first.tag is None and first.published is False
    assert publisher.on_hub("refs/pr/1") == publisher.release
    assert publisher.on_hub() == {}
    publisher.receipt_path.unlink()
    publisher.publish(create_pr=True)
    again = publisher.receipt
    assert again.pull_request == first.pull_request and again.changed is False
    assert len(publisher.repo.pulls) == 1
    publisher.repo.merge(1)
    capsys.readouterr()
    publisher.publish(create_pr=True)
    publisher.require_published()
    output = capsys.readouterr().out
    assert "tagging" in output and "no tag yet" not in output


def test_a_pull_request_that_people_closed_is_not_opened_again(
    publisher: Publisher,
) -> None:
    publisher.hub.hub.create(REPO)
    publisher.publish(create_pr=True)
    publisher.repo.pulls[0].status = "closed"
    with pytest.raises(PublishError, match="people closed pull request 1 of ada"):
        publisher.publish(create_pr=True)
    fake_artifacts(publisher.artifacts, weights=b"other weights")
    publisher.publish(create_pr=True)
    assert len(publisher.repo.pulls) == 2


def test_a_gitignore_on_the_hub_drops_nothing(publisher: Publisher) -> None:
    publisher.hub.hub.create(REPO)
    publisher.repo.edit({".gitignore": b"*.safetensors\n*.onnx\nparity.json\n"})
    publisher.publish(version=None)
    held = publisher.on_hub()
    assert held.pop(".gitignore")
    assert held == publisher.release


def test_gitignore_files_that_dvc_writes_stay_home(publisher: Publisher) -> None:
    (publisher.artifacts / "onnx/.gitignore").write_text("/model.onnx\n")
    (publisher.artifacts / ".gitignore").write_text("/onnx\n")
    publisher.publish()
    assert not [name for name in publisher.on_hub() if name.endswith(".gitignore")]


# What is printed, and what is only printed


def test_a_dry_run_prints_the_plan_and_changes_nothing(
    publisher: Publisher, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher.publish(dry_run=True)
    statement = publisher.statement
    assert statement.published is False
    assert statement.reason == "publish.dry_run is true"
    output = capsys.readouterr().out
    assert "create the repository (private)" in output
    assert f"add    model.safetensors ({len(weights_file(b'weights'))} bytes)" in output
    assert REPO not in publisher.hub.hub.repos
    sent = {(method, path) for method, path, _ in publisher.hub.requests}
    sent.remove(("POST", "/api/validate-yaml"))  # a question
    assert {method for method, _ in sent} == {"GET"}


PEOPLE: dict[str, Any] = {
    "LICENSE": b"yours",
    "docs/picture.txt": b"a picture",
    ".eval_results/hle.yaml": b"score: 1",
}


def test_what_people_put_there_stays_when_a_format_is_retired(
    publisher: Publisher, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher.publish()
    publisher.repo.edit(PEOPLE)
    shutil.rmtree(publisher.artifacts / "onnx")
    fake_artifacts(publisher.artifacts, onnx=False)
    publisher.publish(version="v1.1.0")
    held = publisher.on_hub()
    assert held.keys() >= PEOPLE.keys()
    assert not [name for name in held if name.startswith("onnx/")]
    assert "keep   .eval_results/hle.yaml, LICENSE" in capsys.readouterr().out
    publisher.publish(version="v1.1.0")  # nothing is left to do
    assert publisher.receipt.tag == "v1.1.0"


def test_what_may_go_is_named_by_patterns(publisher: Publisher) -> None:
    publisher.publish()
    publisher.repo.edit(PEOPLE)
    publisher.publish(version="v1.1.0", delete=["docs/*"])
    held = publisher.on_hub()
    assert "docs/picture.txt" not in held
    assert {"LICENSE", ".eval_results/hle.yaml"} <= held.keys()


def test_a_repository_of_other_people_is_changed_with_consent_alone(
    publisher: Publisher,
) -> None:
    others: dict[str, Any] = dict.fromkeys(
        ("config.json", "model.bin", "README.md"), b"theirs"
    )
    publisher.hub.hub.create("ada/other").edit(others)
    with pytest.raises(PublishError, match=r"config\.json of it would be replaced"):
        publisher.publish(repo_id="ada/other")
    held = publisher.hub.repo("ada/other").files()
    assert {name: held[name] for name in others} == others
    publisher.publish(repo_id="ada/other", delete=["*.json"])
    held = publisher.hub.repo("ada/other").files()
    assert held["model.bin"] == b"theirs" and held["config.json"] != b"theirs"


def test_a_private_repository_is_not_published_to_as_if_it_were_public(
    publisher: Publisher,
) -> None:
    publisher.publish()
    with pytest.raises(PublishError, match="is private and"):
        publisher.publish(private=False, version="v1.1.0")


@pytest.mark.parametrize(
    "name", ["acme/de--mo", "acme/a..b", "acme/demo.git", "acme/demo-", f"a/{'b' * 95}"]
)
def test_a_name_that_the_hub_refuses_is_refused_before_anything_is_built(
    name: str,
) -> None:
    with pytest.raises(ParamsError, match="repo_id"):
        parse_section(PublishParams, PARAMS | {"repo_id": name})


def test_a_dry_run_leaves_a_true_receipt_alone(publisher: Publisher) -> None:
    publisher.publish()
    before = publisher.receipt_path.read_bytes()
    fake_artifacts(publisher.artifacts, weights=b"other")
    publisher.publish(dry_run=True, version="v2.0.0")
    assert publisher.receipt_path.read_bytes() == before


def test_without_a_repository_the_release_is_assembled_and_nobody_is_asked(
    publisher: Publisher,
) -> None:
    publisher.publish(repo_id=None)
    statement = publisher.statement
    assert statement.published is False
    assert statement.reason == "publish.repo_id is not set"
    assert statement.files.keys() == publisher.release.keys()
    assert publisher.hub.requests == []


def test_the_receipt_and_the_commit_name_the_git_commit_that_it_was_made_from(
    publisher: Publisher, tmp_path: Path
) -> None:
    Project(tmp_path).git("init", "-q")
    (tmp_path / "dvc.lock").write_text("")
    Project(tmp_path).commit("Sources")
    commit = Project(tmp_path).git("rev-parse", "HEAD").strip()
    (tmp_path / "dvc.lock").write_text("written by the run itself\n")
    publisher.publish()
    assert publisher.receipt.git == Checkout(commit=commit, dirty=False)
    assert publisher.repo.history()[0].message == f"Made from git commit {commit}"
    assert not [
        name
        for name, content in publisher.on_hub().items()
        if commit.encode() in content
    ]

    with (tmp_path / "params.yaml").open("a") as file:
        file.write("# changed\n")
    fake_artifacts(publisher.artifacts, weights=b"other weights")
    publisher.publish(version="v1.1.0")
    assert publisher.receipt.git == Checkout(commit=commit, dirty=True)
    message = publisher.repo.history()[0].message
    assert message.endswith(f"\n\nMade from git commit {commit} with changes")


def test_outside_git_the_receipt_names_no_commit(publisher: Publisher) -> None:
    publisher.publish()
    assert publisher.receipt.git is None


# Versions


def test_a_published_version_is_frozen(publisher: Publisher) -> None:
    publisher.publish()
    before = publisher.receipt_path.read_bytes()
    fake_artifacts(publisher.artifacts, weights=b"other weights")
    with pytest.raises(PublishError, match=r"v1\.0\.0") as caught:
        publisher.publish()
    assert "raise publish.version" in caught.value.remedy
    assert len(publisher.titles()) == 2
    assert publisher.receipt_path.read_bytes() == before


def test_a_tag_elsewhere_is_an_error_before_anything_is_sent_and_is_never_moved(
    publisher: Publisher,
) -> None:
    first = publisher.hub.hub.create(REPO).branches["main"]
    publisher.repo.tags["v1.0.0"] = first
    with pytest.raises(PublishError, match=r"v1\.0\.0 of ada/stick is already at"):
        publisher.publish()
    assert publisher.repo.tags == {"v1.0.0": first}
    assert publisher.repo.branches["main"] == first


def test_an_old_version_published_again_finds_its_tag_and_leaves_the_branch_alone(
    publisher: Publisher, tmp_path: Path
) -> None:
    publisher.publish()
    first = publisher.receipt
    later = Publisher(
        publisher.hub, fake_artifacts(tmp_path / "later", weights=b"later")
    )
    later.publish(version="v2.0.0")
    publisher.publish()
    assert publisher.receipt.commit == first.commit
    later.require_published(version="v2.0.0", releases=2)


def test_a_version_is_frozen_even_when_its_tag_was_deleted(
    publisher: Publisher,
) -> None:
    publisher.publish()
    del publisher.repo.tags["v1.0.0"]
    fake_artifacts(publisher.artifacts, weights=b"other weights")
    with pytest.raises(PublishError, match="was published as commit"):
        publisher.publish()


@pytest.mark.parametrize(
    "version", ["1.0.0", "v1.0", "v01.0.0", "v1.0.0 ", "latest", "v1.0.0-"]
)
def test_a_version_that_is_not_semantic_is_refused(version: str) -> None:
    with pytest.raises(ParamsError, match="version"):
        parse_section(PublishParams, PARAMS | {"version": version})


@pytest.mark.parametrize("version", ["v0.0.1", "v1.2.3-rc.1", "v10.0.0+build.5"])
def test_a_semantic_version_is_taken(version: str) -> None:
    assert (
        parse_section(PublishParams, PARAMS | {"version": version}).version == version
    )


def test_pull_requests_against_another_branch_are_refused() -> None:
    with pytest.raises(ParamsError, match="main"):
        parse_section(PublishParams, PARAMS | {"create_pr": True, "revision": "next"})


# The card that people edit


def test_a_card_edited_on_the_hub_is_kept_when_asked(publisher: Publisher) -> None:
    publisher.publish(card="keep")
    edited = CARD.encode() + b"By the community.\n"
    publisher.repo.edit({"README.md": edited})
    fake_artifacts(
        publisher.artifacts, weights=b"other weights", card=CARD + "New numbers.\n"
    )
    publisher.publish(card="keep", version="v1.1.0")
    assert publisher.on_hub()["README.md"] == edited
    assert publisher.on_hub()["model.safetensors"] == weights_file(b"other weights")
    assert "README.md" not in read_release(publisher.artifacts / "release").files


def test_replacing_a_card_that_people_edited_is_announced(
    publisher: Publisher, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher.publish()
    fake_artifacts(publisher.artifacts, card=CARD + "New numbers.\n")
    publisher.publish(version="v1.1.0", dry_run=True)
    assert "edited on the Hub" not in capsys.readouterr().out
    publisher.repo.edit({"README.md": CARD.encode() + b"By the community.\n"})
    publisher.publish(version="v1.1.0")
    assert "edited on the Hub since it was published" in capsys.readouterr().out
    assert publisher.on_hub()["README.md"].decode() == CARD + "New numbers.\n"


# Only what was checked


def test_an_artifact_changed_after_it_was_written_does_not_go_out(
    publisher: Publisher,
) -> None:
    (publisher.artifacts / "onnx/model.onnx").write_bytes(b"changed")
    with pytest.raises(ArtifactError, match=r"onnx/model\.onnx was changed"):
        publisher.publish()
    assert publisher.hub.requests == []
    assert not (publisher.artifacts / "release").exists()


def test_an_artifact_that_parity_did_not_see_does_not_go_out(
    publisher: Publisher,
) -> None:
    report = read_report(publisher.artifacts / "parity/report.json")
    fake_artifacts(publisher.artifacts, weights=b"other weights")
    store_report(publisher.artifacts, report)
    with pytest.raises(ArtifactError, match="not what was checked"):
        publisher.publish()
    write_parity(publisher.artifacts)
    publisher.publish()
    publisher.require_published()


def test_a_parity_that_did_not_pass_stops_the_release(publisher: Publisher) -> None:
    report = write_parity(publisher.artifacts)
    failed = msgspec.structs.replace(report, passed=False)
    store_report(publisher.artifacts, failed)
    with pytest.raises(ArtifactError, match="doesn't say that the formats passed"):
        publisher.publish()


@pytest.mark.parametrize("passed", ["null", '"true"'])
def test_a_parity_that_says_anything_but_true_stops_the_release(
    publisher: Publisher, passed: str
) -> None:
    path = publisher.artifacts / "parity/report.json"
    path.write_text(path.read_text().replace("true", passed, 1))
    with pytest.raises(ArtifactError, match=r"passed"):
        publisher.publish()


def test_a_format_that_parity_left_out_does_not_go_out(publisher: Publisher) -> None:
    report = write_parity(publisher.artifacts)
    del report.checked["torchscript"]
    store_report(publisher.artifacts, report)
    with pytest.raises(ArtifactError, match="torchscript was not checked"):
        publisher.publish()


# Refusals, each in one message with what to do


def refusal(publisher: Publisher, **asked: object) -> PublishError:
    """The error that publishing meets; nothing may come of it, and no secret may be in
    it.
    """
    with pytest.raises(PublishError) as caught:
        publisher.publish(**asked)  # type: ignore[arg-type]
    assert caught.value.remedy
    assert TOKEN not in str(caught.value)
    assert not publisher.receipt_path.exists()
    return caught.value


def test_no_token_is_one_clear_error(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nowhere/token")
    with pytest.raises(PublishError, match="no token") as caught:
        require_token()
    assert "hf auth login" in caught.value.remedy
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert require_token() == TOKEN


def test_the_token_that_hf_auth_login_stored_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    (tmp_path / "token").write_text(TOKEN + "\n")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    assert require_token() == TOKEN


def test_a_wrong_token_is_one_clear_error(publisher: Publisher) -> None:
    error = refusal(publisher, token="hf_someoneElsesOldToken")
    assert "doesn't accept the token" in error.problem
    assert "hf auth login" in error.remedy
    assert "hf_someone" not in str(error)


def test_no_right_to_the_namespace_names_who_and_where(publisher: Publisher) -> None:
    error = refusal(publisher, repo_id="zoo/stick")
    assert "the token of ada" in error.problem and "zoo" in error.problem
    assert "write access" in error.remedy


def test_a_read_token_is_refused_before_anything_is_uploaded(
    publisher: Publisher,
) -> None:
    publisher.hub.add_token("hf_readOnlyToken", Account("ada", role="read"))
    publisher.hub.hub.create(REPO)
    error = refusal(publisher, token="hf_readOnlyToken")
    assert "the token of ada can't write to ada/stick: it may only" in error.problem
    assert not [path for method, path, _ in publisher.hub.requests if method == "PUT"]


def test_an_organisation_with_the_right_to_write_is_fine(publisher: Publisher) -> None:
    publisher.publish(repo_id="lab/stick")
    assert publisher.hub.repo("lab/stick").tags.keys() == {"v1.0.0"}


def test_a_repository_that_may_not_be_created_is_one_clear_error(
    publisher: Publisher,
) -> None:
    publisher.hub.hub.creation_refused = True
    assert "creating ada/stick" in refusal(publisher).problem


def test_a_public_repository_gets_nothing_that_should_be_private(
    publisher: Publisher,
) -> None:
    publisher.hub.hub.create(REPO, private=False)
    assert "is public" in refusal(publisher).problem
    publisher.publish(private=False)
    publisher.require_published()


def test_an_unreachable_endpoint_is_reported_after_a_few_tries(
    publisher: Publisher,
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
    error = refusal(
        publisher,
        hub=lambda _, *arguments, **options: Hub(address, *arguments, **options),
    )
    assert "can't be reached" in error.problem and "HF_ENDPOINT" in error.remedy
    assert publisher.slept == [1, 2, 4, 8]


@pytest.mark.parametrize("endpoint", ["huggingface.co", "ftp://hub.example"])
def test_an_endpoint_that_is_no_address_is_one_clear_error(
    publisher: Publisher, endpoint: str
) -> None:
    error = refusal(
        publisher,
        hub=lambda _, *arguments, **options: Hub(endpoint, *arguments, **options),
    )
    assert "is not an address" in error.problem and "HF_ENDPOINT" in error.remedy
    assert publisher.slept == []


def test_a_receipt_that_cannot_be_written_is_made_up_for_by_the_next_run(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, value: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("checkpoint_release.core.artifacts.typed.write_json", full)
        assert "No space left" in refusal(publisher).problem
    publisher.publish()
    publisher.require_published()


def test_a_server_that_never_answers_is_given_up(publisher: Publisher) -> None:
    publisher.hub.break_with(Fault("hang", path="/api/models/*", times=99))
    error = refusal(publisher, timeout=0.1)
    assert "no answer within 0.1 s" in error.problem
    assert "publish.timeout" in error.remedy


def test_retry_after_is_waited_out(publisher: Publisher) -> None:
    publisher.hub.break_with(
        Fault("status", status=429, headers={"Retry-After": "17"}, path="*/commit/*")
    )
    publisher.publish()
    assert 17 in publisher.slept
    publisher.require_published()


@pytest.mark.parametrize(
    "path", ["*/refs", "*/preupload/*", "/storage/*", "*/commit/*"]
)
def test_a_long_retry_after_is_not_waited_for(publisher: Publisher, path: str) -> None:
    publisher.hub.hub.create(REPO)
    publisher.hub.break_with(
        Fault(
            "status", status=429, headers={"Retry-After": "3600"}, path=path, times=99
        )
    )
    assert "wait 3600 s" in refusal(publisher).problem
    assert publisher.slept == []


def test_a_conflict_that_never_ends_does_not_hang(publisher: Publisher) -> None:
    body = json.dumps(
        {"error": "Cannot create repo: another conflicting operation is in progress"}
    )
    publisher.hub.break_with(
        Fault("status", status=409, body=body, path="/api/repos/create", times=99)
    )
    assert "409" in refusal(publisher).problem
    assert publisher.slept == [1, 2, 4, 8]


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_hub_that_stays_down_is_reported_and_leaves_nothing(
    publisher: Publisher, status: int
) -> None:
    publisher.hub.hub.create(REPO)
    publisher.hub.break_with(
        Fault("status", status=status, path="*/commit/*", times=99)
    )
    assert str(status) in refusal(publisher).problem
    assert publisher.on_hub() == {} and publisher.repo.tags == {}


def test_a_504_after_the_commit_was_made_is_found_out(publisher: Publisher) -> None:
    publisher.hub.break_with(Fault("status", status=504, after=True, path="*/commit/*"))
    publisher.publish()
    publisher.require_published()
    assert (
        len([path for _, path, _ in publisher.hub.requests if "/commit/" in path]) == 1
    )


def test_a_commit_that_lands_only_after_its_504_is_not_made_twice(
    publisher: Publisher,
) -> None:
    """The gateway gives up, the branch still looks as before, and only then the Hub
    finishes.
    """

    class Late(list[float]):
        def append(self, seconds: float) -> None:
            if not self:
                publisher.repo.edit(dict(publisher.release), title="Release v1.0.0")
            super().append(seconds)

    publisher.slept = Late()
    publisher.hub.break_with(Fault("status", status=504, path="*/commit/*"))
    publisher.publish()
    assert publisher.slept == [1]
    publisher.require_published()


def test_someone_elses_commit_meanwhile_is_not_overwritten(
    publisher: Publisher,
) -> None:
    publisher.hub.hub.create(REPO)

    class Overtaken(Hub):
        def card_errors(self, card: str) -> list[str]:  # after the survey
            publisher.repo.edit({"notes.md": b"theirs"})
            return super().card_errors(card)

    with pytest.raises(PublishError, match="meanwhile") as caught:
        publisher.publish(hub=Overtaken)
    assert "run publish again" in caught.value.remedy
    assert publisher.titles() == ["edited on the Hub", "initial commit"]


@pytest.mark.parametrize("name", ["model.safetensors", "README.md"])
def test_a_hub_that_stores_other_bytes_gets_no_tag_and_no_receipt(
    publisher: Publisher, name: str
) -> None:
    publisher.hub.hub.lies[name] = "stored"
    error = refusal(publisher)
    assert "does not hold what was sent" in error.problem and name in error.problem
    assert publisher.repo.tags == {}
    publisher.hub.hub.lies.clear()
    publisher.publish()
    assert publisher.on_hub() == publisher.release
    assert publisher.repo.tags["v1.0.0"] == publisher.repo.branches["main"]


def test_a_full_disk_while_staging_loses_nothing(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.publish(repo_id=None)
    before = publisher.release

    def full(source: Path, destination: Path) -> FileEntry:
        if source.name == "model.onnx":
            raise OSError(errno.ENOSPC, "No space left on device", str(destination))
        return share_file(source, destination)

    monkeypatch.setattr("checkpoint_release.release.assemble.share_file", full)
    with pytest.raises(PublishError, match="No space left") as caught:
        publisher.publish(repo_id=None)
    assert "make room" in caught.value.remedy
    assert re.search(r"takes [\d,]+ bytes", caught.value.problem)
    assert publisher.release == before
    assert not [
        path
        for path in publisher.artifacts.iterdir()
        if path.name.startswith(".release")
    ]


def test_a_card_that_the_hub_refuses_is_one_clear_error(publisher: Publisher) -> None:
    fake_artifacts(publisher.artifacts, card="---\nlicense: [mit\n---\n")
    error = refusal(publisher)
    assert "README.md" in error.problem and "card" in error.remedy


# Secrets


def test_the_token_shows_nowhere(
    publisher: Publisher,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    publisher.hub.break_with(
        Fault("status", status=503, path="/storage/*"),
        Fault(
            "status",
            status=500,
            path="*/commit/*",
            body=json.dumps({"error": f"bad token {TOKEN}"}),
        ),
        Fault("cut", path="*/preupload/*"),
    )
    publisher.publish()
    printed = capfd.readouterr()
    everything = printed.out + printed.err + caplog.text
    everything += publisher.receipt_path.read_text()
    everything += "".join(
        content.decode(errors="replace") for content in publisher.on_hub().values()
    )
    assert "/storage/" in caplog.text and "(token)" in printed.out
    assert TOKEN not in everything and "a-secret-signature" not in everything


def test_passwords_and_signatures_in_addresses_are_scrubbed() -> None:
    text = (
        "PUT https://ada:pw@hub.example/x?X-Amz-Signature=abc failed for hf_abcdefghijk"
    )
    assert scrub(text) == "PUT https://hub.example/x failed for (token)"
