"""The demo checkpoint: what it holds, and that the script beside it really trains."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from checkpoints.demo_motion import ACTIONS, SEGMENTS, make_clips

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
TRAINERS_KEYS = {
    *(
        "epoch",
        "global_step",
        "model_state_dict",
        "optimizer_state_dict",
        "scheduler_state_dict",
    ),
    *(
        "train_loss",
        "val_loss",
        "best_val_loss",
        "val_smoothness",
        "val_position",
        "training_stage",
        "lora_enabled",
    ),
}


def test_the_motions_are_those_of_a_figure() -> None:
    clips = make_clips(count=60, frames=40, seed=5)
    assert clips.motion.shape == (40, 60, 48) and set(np.unique(clips.actions)) <= set(
        range(len(ACTIONS))
    )
    ends = dict(
        zip(
            SEGMENTS,
            np.moveaxis(clips.motion.reshape(40, 60, 12, 2, 2), 2, 0),
            strict=True,
        )
    )
    for whole, start in (
        ("l_thigh", "l_shin"),
        ("r_upper_arm", "r_forearm"),
        ("lower_torso", "upper_torso"),
    ):
        np.testing.assert_array_equal(
            ends[whole][..., 1, :],
            ends[start][..., 0, :],
            err_msg=f"{whole} to {start}",
        )
    for name, end in ends.items():
        length = np.linalg.norm(end[..., 1, :] - end[..., 0, :], axis=-1)
        np.testing.assert_allclose(
            length, length[:1].repeat(40, 0), rtol=1e-4, err_msg=f"{name} stretches"
        )
    ground = (
        clips.environment[:, 0]
        + (ends["l_shin"][..., 1, 0] + 3) / 6 * np.diff(clips.environment[:, [0, -1]]).T
    )
    assert (ends["l_shin"][..., 1, 1] > ground - 1e-4).all(), (
        "a foot is under the ground"
    )


def test_the_same_seed_makes_the_same_motions() -> None:
    one, same, other = (
        make_clips(count=4, frames=10, seed=seed).motion for seed in (1, 1, 2)
    )
    assert one.tobytes() == same.tobytes() != other.tobytes()


def test_the_history_tells_of_losses_that_fell() -> None:
    with (CHECKPOINTS / "demo-history.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("train_loss", "val_loss", "val_position"):
        losses = [float(row[name]) for row in rows]
        assert min(losses) <= losses[-1] < losses[0] / 5, name


def test_the_file_is_a_whole_training_checkpoint_under_three_megabytes() -> None:
    import torch

    path = CHECKPOINTS / "demo.pth"
    assert path.stat().st_size < 3_000_000
    checkpoint = torch.load(path, weights_only=False)
    assert checkpoint.keys() == TRAINERS_KEYS
    assert checkpoint["optimizer_state_dict"]["state"], "the optimizer has not stepped"
    group = checkpoint["optimizer_state_dict"]["param_groups"][0]
    assert (
        type(group["lr"])
        is type(checkpoint["scheduler_state_dict"]["_last_lr"][0])
        is np.float64
    )
    content = path.read_bytes()
    assert not [
        word
        for word in (b"/home", b"/tmp", b"/root", b"site-packages", b".py")
        if word in content
    ]


@pytest.mark.slow
def test_training_again_falls_again_and_saves_what_the_trainer_saves() -> None:
    import torch

    from checkpoints.train_demo import WARM_UP, train

    threads = torch.get_num_threads()
    try:
        checkpoint, history = train(epochs=WARM_UP + 1, train_clips=256, val_clips=64)
        again, _ = train(epochs=WARM_UP + 1, train_clips=256, val_clips=64)
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)
    assert history[-1]["val_loss"] < 0.6 * history[0]["val_loss"]
    assert history[-1]["train_loss"] < 0.6 * history[0]["train_loss"]
    assert checkpoint.keys() == TRAINERS_KEYS
    assert (
        type(checkpoint["optimizer_state_dict"]["param_groups"][0]["lr"]) is np.float64
    )
    for name, tensor in checkpoint["model_state_dict"].items():
        assert torch.equal(tensor, again["model_state_dict"][name]), (
            f"{name} came out otherwise the second time"
        )
