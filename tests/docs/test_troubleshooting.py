"""Every message that docs/troubleshooting.md explains is one that a user gets: each is
provoked here.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoint_release.core.errors import PublishError
from checkpoint_release.release.hub import Hub
from checkpoint_release.release.tokens import require_token
from tests.support.containers import Call, pickled, zipped
from tests.support.documents import Document
from tests.support.hub_server import Account, Fault
from tests.support.project import ROOT, Project
from tests.support.publishing import (
    REPO,
    SENDING,
    Publisher,
    become_job,
    fake_artifacts,
)

pytestmark = pytest.mark.filterwarnings(SENDING)

PAGE = "docs/troubleshooting.md"
FIXTURES = ROOT / "tests/fixtures"
MINE = "checkpoints/mine.pth"

FromFolder = Callable[[Project], str]
FromHub = Callable[[Publisher], str]


def fixture(name: str) -> Path:
    return FIXTURES / name / "checkpoint.pth"


def weights() -> dict[str, torch.Tensor]:
    return torch.load(fixture("v3_48_state_dict"), weights_only=True)


def with_lora() -> dict[str, torch.Tensor]:
    checkpoint = torch.load(fixture("v3_lora_injected"), weights_only=False)
    return checkpoint["model_state_dict"]


def adapter() -> dict[str, torch.Tensor]:
    return {"layer.lora_A": torch.ones(2, 4), "layer.lora_B": torch.ones(4, 2)}


def with_nan() -> dict[str, torch.Tensor]:
    return weights() | {"pose_decoder.3.bias": torch.full((48,), float("nan"))}


def incomplete() -> dict[str, torch.Tensor]:
    whole = weights()
    del whole["pose_decoder.3.bias"]
    return whole


def malicious() -> bytes:
    return zipped(pickled({"w": Call("os.system", "true")}))


def stage(project: Project, name: str, **environment: str) -> str:
    """The message of a stage that fails."""
    command = ("python", "-m", f"pipeline.{name}")
    done = project.run(*command, check=False, environment=environment)
    assert done.returncode == 1, done.stdout
    return done.stderr


def loading(make: Callable[[], Any]) -> FromFolder:
    """The stage `load` on a checkpoint that holds a value, or is these bytes."""

    def provoke(project: Project) -> str:
        path = project.path / MINE
        value = make()
        if isinstance(value, bytes):
            path.write_bytes(value)
        else:
            torch.save(value, path)
        project.set(checkpoint__path=MINE)
        return stage(project, "load")

    return provoke


def setting(run: str = "load", **values: Any) -> FromFolder:
    """A stage with options set."""

    def provoke(project: Project) -> str:
        project.set(**values)
        return stage(project, run)

    return provoke


def an_edited_artifact(project: Project) -> str:
    with (project.path / "artifacts/onnx/model.onnx").open("ab") as file:
        file.write(b"\0")
    return stage(project, "publish")


def an_export_after_the_proof(project: Project) -> str:
    project.set(onnx__opset=20)
    project.run("python", "-m", "pipeline.export_onnx")
    return stage(project, "publish")


def no_token(project: Project) -> str:
    project.set(publish__repo_id="organisation/name")
    return stage(project, "publish", HF_TOKEN="", HF_HOME=str(project.path / "home"))


def unknown_model_code(project: Project) -> str:
    config = project.path / "artifacts/safetensors/config.json"
    text = config.read_text()
    config.write_text(text.replace("checkpoint_release.models.", "somebody.", 1))
    return failing_command(project, "run", "artifacts/safetensors", "--describe")


def leftovers_of_python(project: Project) -> str:
    (project.path / "artifacts/release/__pycache__").mkdir()
    return failing_command(project, "verify", "artifacts/release")


def failing_command(project: Project, *arguments: str) -> str:
    command = ("python", "-m", "checkpoint_release", *arguments)
    done = project.run(*command, check=False)
    assert done.returncode == 1
    return done.stdout + done.stderr


def a_missing_checkpoint(project: Project) -> str:
    project.set(checkpoint__path="checkpoints/nowhere.pth")
    return project.dvc("repro", check=False).stderr


def reproducing(**values: Any) -> FromFolder:
    """`dvc repro` with options set, which fails before any stage runs."""

    def provoke(project: Project) -> str:
        project.set(**values)
        return project.dvc("repro", check=False).stderr

    return provoke


def two_at_once(project: Project) -> str:
    with held(project.path / ".dvc/tmp/lock"):
        return project.dvc("repro", check=False).stderr


def a_cut_lock(project: Project) -> str:
    lock = project.path / "dvc.lock"
    text = lock.read_text()
    lock.write_text(text[: text.rindex("path:") + len("path:")] + "\n")
    return project.dvc("repro", check=False).stderr


def a_cut_table(project: Project) -> str:
    (project.path / ".dvc/tmp/rwlock").write_text("")
    return project.dvc("repro", check=False).stderr


def a_shard(project: Project) -> str:
    name = "checkpoints/model-00001-of-00002.bin"
    torch.save(weights(), project.path / name)
    project.set(checkpoint__path=name)
    return stage(project, "load")


def wrapped() -> dict[str, torch.Tensor]:
    return {f"model.{name}": tensor for name, tensor in weights().items()}


def a_flipped_bit(project: Project) -> str:
    path = project.path / MINE
    torch.save(weights(), path)
    content = bytearray(path.read_bytes())
    tensor = weights()["pose_decoder.3.bias"].numpy().tobytes()
    content[content.index(tensor)] ^= 1
    path.write_bytes(content)
    project.set(checkpoint__path=MINE)
    return stage(project, "load")


@contextmanager
def held(lock: Path) -> Iterator[None]:
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


MESSAGES: dict[str, FromFolder] = {
    "names code that could do harm": loading(malicious),
    "the checkpoint holds no state dict": loading(lambda: {"epoch": 3}),
    "the checkpoint holds … state dicts": loading(
        lambda: {"model": weights(), "ema": weights()}
    ),
    "and a LoRA adapter beside them": loading(
        lambda: {"model": weights(), "lora": adapter()}
    ),
    "aren't those of a StickFigureTransformer": loading(
        lambda: torch.nn.LSTM(4, 4).state_dict()
    ),
    "the checkpoint's tensors don't make a whole StickFigureTransformer": loading(
        incomplete
    ),
    "and the file doesn't say their alpha": loading(with_lora),
    "and no base weights": loading(adapter),
    "is shard … of": a_shard,
    "the rest fits: set": loading(wrapped),
    "is damaged: its bytes have the checksum": a_flipped_bit,
    "NaN and": loading(with_nan),
    "unknown key; allowed here": setting(onnx__opsett=20),
    "expected an integer from 14 to 25": setting(onnx__opset=9),
    "and onnx.exporter … can't write it": setting(
        "export_onnx", onnx__opset=25, onnx__exporter="torchscript"
    ),
    "model.inputs leaves out": setting(model__inputs=["motion"]),
    "watches other code than model.source names": setting(
        model__source=["checkpoint_release/models"]
    ),
    "was changed after it was written": an_edited_artifact,
    "is not what was checked": an_export_after_the_proof,
    "as its model code, which is not known here": unknown_model_code,
    "Python leaves it where a module is imported": leftovers_of_python,
    "failed to reproduce 'load': …No such file or directory": a_missing_checkpoint,
    "Unable to acquire lock": two_at_once,
    "dvc.lock' validation failed": a_cut_lock,
    "Unable to read RWLock-file": a_cut_table,
    "ERROR: unexpected error": reproducing(checkpoint__path=None),
    "Cannot interpolate data of type 'list'": reproducing(
        model__source=["params.yaml"]
    ),
    "there is no token for the Hub": no_token,
}


def refused(publisher: Publisher, **options: Any) -> str:
    with pytest.raises(PublishError) as caught:
        publisher.publish(**options)
    return str(caught.value)


def a_token_that_only_reads(publisher: Publisher) -> str:
    publisher.hub.add_token("hf_reader", Account("ada", role="read"))
    return refused(publisher, token="hf_reader")


def a_version_again(publisher: Publisher) -> str:
    publisher.publish()
    publisher.receipt_path.unlink()  # as in another clone
    fake_artifacts(publisher.artifacts, weights=b"other weights")
    return refused(publisher)


def no_network(publisher: Publisher) -> str:
    def nowhere(url: str, token: str, **options: Any) -> Hub:
        return Hub("http://127.0.0.1:9", token, **options)

    return refused(publisher, hub=nowhere)


def a_hub_that_stores_something_else(publisher: Publisher) -> str:
    publisher.hub.hub.lies["model.safetensors"] = "stored"
    return refused(publisher)


def a_card_that_is_refused(publisher: Publisher) -> str:
    fake_artifacts(publisher.artifacts, card="---\nlicense: nobody's\n---\n")
    return refused(publisher)


def a_full_storage(publisher: Publisher) -> str:
    body = '{"error": "Private repository storage limit reached"}'
    batch = Fault("status", status=403, body=body, path="*/objects/batch", times=99)
    publisher.hub.break_with(batch)
    return refused(publisher)


def a_window_that_never_ends(publisher: Publisher) -> str:
    window = {"RateLimit": '"api";r=0;t=290'}
    publisher.hub.break_with(
        Fault("status", status=429, headers=window, path="*/commit/*", times=99)
    )
    return refused(publisher)


def a_licence_of_people(publisher: Publisher) -> str:
    publisher.publish()
    publisher.repo.edit({"LICENSE": b"theirs"})
    Path("extra/LICENSE").write_text("ours")
    return refused(publisher, version="v1.1.0")


def a_closed_pull_request(publisher: Publisher) -> str:
    publisher.hub.hub.create(REPO)
    publisher.publish(create_pr=True)
    publisher.repo.pulls[0].status = "closed"
    return refused(publisher, create_pr=True)


def a_repository_that_was_renamed(publisher: Publisher) -> str:
    publisher.hub.hub.create("ada/figure")
    publisher.hub.hub.renamed[REPO] = "ada/figure"
    return refused(publisher)


def a_job_that_nobody_trusts(publisher: Publisher) -> str:
    with pytest.MonkeyPatch.context() as patched:
        become_job(publisher, patched)
        return refused(publisher, token=require_token)


def a_hub_without_xet(publisher: Publisher) -> str:
    publisher.hub.hub.create(REPO)
    return refused(publisher, transfer="xet")


HUB_MESSAGES: dict[str, FromHub] = {
    "can't write to": a_token_that_only_reads,
    "is already at … a version is never moved": a_version_again,
    "can't be reached": no_network,
    "the Hub does not hold what was sent": a_hub_that_stores_something_else,
    "the Hub refuses the card": a_card_that_is_refused,
    "the Hub has no room for it": a_full_storage,
    "asks to wait … publish.patience": a_window_that_never_ends,
    "would be replaced, and no release put it there": a_licence_of_people,
    "people closed pull request": a_closed_pull_request,
    "is called … on the Hub by now": a_repository_that_was_renamed,
    "in exchange for the job's ID token": a_job_that_nobody_trusts,
    "publish.transfer is xet": a_hub_without_xet,
}


def test_every_message_on_the_page_is_provoked_here() -> None:
    page = Document(PAGE, (ROOT / PAGE).read_text())
    assert page.first_cells == [*MESSAGES, *HUB_MESSAGES]


@pytest.mark.slow
@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_is_what_its_user_gets(message: str, project: Project) -> None:
    assert_says(MESSAGES[message](project), message)


@pytest.mark.parametrize("message", HUB_MESSAGES)
def test_a_message_is_what_a_publisher_gets(message: str, publisher: Publisher) -> None:
    assert_says(HUB_MESSAGES[message](publisher), message)


def assert_says(printed: str, message: str) -> None:
    """The parts of a message stand in what was printed, in order."""
    rest = " ".join(printed.split())
    for part in message.split("…"):
        _, found, rest = rest.partition(part.strip())
        assert found, printed
