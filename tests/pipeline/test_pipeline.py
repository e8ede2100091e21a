"""The pipeline as a user drives it: dvc repro and its kin, in a checkout of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.support.project import ROOT, Project, tree

STAGES = [
    *("load", "export-safetensors", "export-onnx", "export-torchscript"),
    *("parity-check", "benchmark", "model-card", "publish"),
]
AFTER_EXPORT = ["parity-check", "benchmark", "model-card", "publish"]


def listing(folder: Path) -> set[str]:
    return {name for name in tree(folder) if not name.endswith(".gitignore")}


def test_one_command_makes_a_checked_and_documented_release(built: Project) -> None:
    release = listing(built.path / "artifacts/release")
    assert {
        "README.md",
        "model.safetensors",
        "config.json",
        "training_args.json",
    } <= release
    assert {"onnx/model.onnx", "torchscript/model.pt"} <= release
    pictures = {"pictures/example.svg", "pictures/proof.svg", "pictures/sizes.svg"}
    assert pictures <= release
    card = (built.path / "artifacts/release/README.md").read_text()
    assert all(f"]({picture})" in card for picture in pictures)
    assert (
        json.loads((built.path / "artifacts/parity.json").read_text())["passed"] is True
    )
    receipt = json.loads((built.path / "artifacts/publish.json").read_text())
    assert receipt["published"] is False and "publish.repo_id" in receipt["reason"]


def test_a_second_run_does_nothing(project: Project) -> None:
    again = project.dvc("repro")
    assert project.ran(again.stdout) == []
    assert "up to date" in again.stdout
    assert project.git("status", "--porcelain") == ""


EVIDENCE = {"parity", "parity.json", "model-card", "release", "publish.json"}
"""Artifacts that hold measured figures, and so follow the machine."""


def locked(path: Path) -> dict[str, dict[str, str]]:
    """What a dvc.lock states that is the same on every machine: stage → path → md5."""
    stages = YAML(typ="safe").load(path)["stages"]
    found = {}
    for name, stage in stages.items():
        entries = {}
        for entry in (*stage["deps"], *stage["outs"]):
            if entry["path"].removeprefix("artifacts/") not in EVIDENCE:
                entries[entry["path"]] = entry["md5"]
        found[name] = entries
    return found


def test_a_clone_without_a_cache_arrives_at_the_committed_lock(built: Project) -> None:
    """The checkout of these tests started without a cache, from the dvc.lock of this
    repository.
    """
    committed = locked(ROOT / "dvc.lock")
    assert locked(built.path / "dvc.lock") == committed
    assert set(committed) == set(STAGES)
    assert "artifacts/onnx" in committed["export-onnx"]


def test_another_opset_reruns_its_export_and_what_follows(project: Project) -> None:
    import onnx

    project.set(onnx__opset=20)
    assert project.ran(project.dvc("repro").stdout) == ["export-onnx", *AFTER_EXPORT]
    model = onnx.load(
        project.path / "artifacts/release/onnx/model.onnx", load_external_data=False
    )
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 20)]


@pytest.mark.slow
def test_a_format_switched_off_is_gone_and_comes_back_from_the_cache(
    project: Project,
) -> None:
    before = tree(project.path / "artifacts/release")
    project.set(formats__onnx=False)
    off = project.dvc("repro")
    assert project.ran(off.stdout) == ["export-onnx", *AFTER_EXPORT]
    assert listing(project.path / "artifacts/onnx") == {"manifest.json"}
    assert not [
        name for name in listing(project.path / "artifacts/release") if "onnx" in name
    ]
    card = (project.path / "artifacts/release/README.md").read_text()
    assert "model.onnx" not in card and "model.safetensors" in card

    project.set(formats__onnx=True)
    on = project.dvc("repro")
    assert "Stage 'export-onnx' is cached" in on.stdout
    assert "export-onnx" not in project.ran(on.stdout)
    assert tree(project.path / "artifacts/release") == before


@pytest.mark.slow
def test_only_safetensors_is_a_release_too(project: Project) -> None:
    project.set(formats__onnx=False, formats__torchscript=False)
    project.dvc("repro")
    release = listing(project.path / "artifacts/release")
    assert "model.safetensors" in release and not any(
        name.endswith((".onnx", ".pt")) for name in release
    )


def test_artifacts_travel_through_a_remote(built: Project, tmp_path: Path) -> None:
    one = built.copy(tmp_path / "one")
    one.dvc("push")
    one.git("clone", "-q", str(one.path), str(tmp_path / "two"))
    two = Project(tmp_path / "two")
    two.dvc("pull")
    for name in (
        "checkpoint",
        "safetensors",
        "onnx",
        "torchscript",
        "model-card",
        "release",
    ):
        assert tree(two.path / "artifacts" / name) == tree(
            built.path / "artifacts" / name
        )
    assert "up to date" in two.dvc("status").stdout


def test_dvc_shows_the_pipeline_its_metrics_and_its_plots(project: Project) -> None:
    dag = project.dvc("dag", "--dot").stdout
    assert all(f'"{stage}"' in dag for stage in STAGES)
    shown = json.loads(project.dvc("metrics", "show", "--json").stdout)
    metrics = shown[""]["data"]["artifacts/parity.json"]["data"]
    assert metrics["passed"] is True and metrics["cases"] == 11
    shares = metrics["share_of_limit"]
    assert set(shares) == {"safetensors", "onnx", "torchscript"}
    # Five digits after the point are what DVC prints.
    assert all(0.00001 < share <= 1 for share in shares.values())
    shown = project.dvc("plots", "show", "--json").stdout
    assert json.loads(shown), "no plots"
    project.set(onnx__opset=18)
    assert "onnx.opset" in project.dvc("params", "diff").stdout
    assert (
        "artifacts/release"
        in project.dvc("artifacts", "get", "--help", check=False).stdout
        + (project.path / "dvc.yaml").read_text()
    )


@pytest.mark.slow
def test_an_experiment_changes_a_parameter_from_the_command_line(
    project: Project,
) -> None:
    project.dvc("exp", "run", "-S", "onnx.opset=20")
    assert (
        json.loads((project.path / "artifacts/onnx/manifest.json").read_text())[
            "facts"
        ]["opset"]
        == 20
    )


CHECKPOINTS = ROOT / "tests/fixtures"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", sorted(path.name for path in CHECKPOINTS.iterdir() if path.is_dir())
)
def test_another_checkpoint_needs_one_change(project: Project, name: str) -> None:
    shutil.copy(
        CHECKPOINTS / name / "checkpoint.pth", project.path / "checkpoints/mine.pth"
    )
    project.set(checkpoint__path="checkpoints/mine.pth")
    assert set(project.ran(project.dvc("repro").stdout)) == set(STAGES)
    assert (
        json.loads((project.path / "artifacts/parity.json").read_text())["passed"]
        is True
    )


BAD_PARAMS = {
    "onnx: {opset: 9": ("onnx__opset", 9, "onnx.opset"),
    "a text for an opset": ("onnx__opset", "17", "onnx.opset"),
    "an unknown key": ("onnx__opsett", 17, "onnx.opsett"),
    "no checkpoint": (
        "checkpoint__path",
        "checkpoints/nowhere.pth",
        "checkpoints/nowhere.pth",
    ),
}


@pytest.mark.parametrize("case", BAD_PARAMS)
def test_an_impossible_parameter_is_one_clear_error_and_costs_nothing(
    project: Project, case: str
) -> None:
    key, value, named = BAD_PARAMS[case]
    before = tree(project.path / "artifacts")
    project.set(**{key: value})
    failed = project.dvc("repro", check=False)
    assert failed.returncode != 0
    assert named in failed.stderr and "Traceback" not in failed.stderr
    assert tree(project.path / "artifacts") == before


def bad_checkpoints(folder: Path) -> dict[str, tuple[bytes, str]]:
    """Name → what the file holds, and what the message must say."""
    import io

    import torch

    def saved(value: object) -> bytes:
        buffer = io.BytesIO()
        torch.save(value, buffer)
        return buffer.getvalue()

    demo = torch.load(folder / "checkpoints/demo.pth", weights_only=False)[
        "model_state_dict"
    ]
    short = {
        name: tensor
        for name, tensor in demo.items()
        if name != "motion_embedding.0.weight"
    }
    wrong = {
        **demo,
        "pose_decoder.3.weight": demo["pose_decoder.3.weight"][:, :-1].clone(),
    }
    nan = {
        **demo,
        "pose_decoder.3.bias": torch.full_like(
            demo["pose_decoder.3.bias"], float("nan")
        ),
    }
    whole = saved(demo)
    return {
        "an empty file": (b"", "empty"),
        "a truncated file": (whole[: len(whole) // 2], "mine.pth"),
        "not a checkpoint": (b"<html>Sign in to download</html>", "mine.pth"),
        "no weights": (saved({"epoch": 3}), "no state dict"),
        "another architecture": (
            saved(torch.nn.LSTM(4, 4).state_dict()),
            "weight_ih_l0",
        ),
        "a missing tensor": (saved(short), "motion_embedding.0.weight"),
        "contradicting shapes": (saved(wrong), "pose_decoder.3.weight"),
        "NaN among the weights": (saved(nan), "pose_decoder.3.bias"),
    }


@pytest.mark.slow
def test_a_bad_checkpoint_is_one_clear_error_and_costs_nothing(
    project: Project,
) -> None:
    before = {
        name: tree(project.path / "artifacts" / name)
        for name in ("checkpoint", "release", "onnx")
    }
    project.set(checkpoint__path="checkpoints/mine.pth")
    for case, (content, named) in bad_checkpoints(project.path).items():
        (project.path / "checkpoints/mine.pth").write_bytes(content)
        failed = project.dvc("repro", "load", check=False)
        assert failed.returncode != 0, case
        assert named in failed.stderr, f"{case}: {failed.stderr}"
        assert "what to do:" in failed.stderr and "Traceback" not in failed.stderr, case
        assert {
            name: tree(project.path / "artifacts" / name) for name in before
        } == before, case
