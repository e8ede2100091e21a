"""Train the demo checkpoint, checkpoints/demo.pth.

    python -m checkpoints.train_demo

A small StickFigureTransformer learns to restore motion: it is given clips with noise on
every coordinate and with whole stretches of frames missing, the action of each frame,
and an embedding of the action's name; it answers with the clean poses, where the figure
is, how it moves and the ground it stands on. Some batches leave the actions out, see
the figure through a moving camera, or see a partner who mirrors it, so that every input
that the model can take has been trained.

No text encoder is at hand here. The text embeddings are fixed random unit vectors, one
for each action's name, of the size that BAAI/bge-large-en-v1.5 has: the demo does not
understand text.

One thread and seeded generators: on one machine, with one version of torch, the weights
come out the same to the last bit. The file is laid out as the training project lays out
its training checkpoints.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from checkpoint_release.models.stick_figure.model import (
    StickFigureOutput,
    StickFigureTransformer,
)
from checkpoints.demo_motion import ACTIONS, Clips, make_clips

Array = npt.NDArray[Any]

MODEL: dict[str, Any] = {
    "input_dim": 48,
    "output_dim": 48,
    "d_model": 40,
    "nhead": 4,
    "num_layers": 4,
    "embedding_dim": 1024,
    "num_actions": 64,
    "dropout": 0.0,
}
FRAMES = 48
BATCH = 16
NOISE = 0.05  # standard deviation on every coordinate, in metres
LEARNING_RATE = 3e-3
WARM_UP = 3  # epochs


@dataclass(frozen=True)
class Example:
    """A batch as the model takes it, and the clean clips that it should answer with."""

    inputs: dict[str, Tensor]
    actions: Tensor
    targets: StickFigureOutput


def train(
    epochs: int, train_clips: int = 1536, val_clips: int = 256
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Train the demo.

    Returns:
        The checkpoint as the trainer saves it, and the losses epoch by epoch.
    """
    *_, last = epoch_by_epoch(epochs, train_clips, val_clips)
    return last


def epoch_by_epoch(
    epochs: int, train_clips: int, val_clips: int
) -> Iterator[tuple[dict[str, Any], list[dict[str, float]]]]:
    """Train the demo.

    Yields:
        After each epoch the checkpoint as the trainer saves it, and the losses epoch by
        epoch so far. The next epoch changes the checkpoint's tensors.
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    model = StickFigureTransformer(**MODEL)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, weight_decay=0.01
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda epoch: learning_rate_factor(epoch, epochs)
    )
    training = make_clips(train_clips, FRAMES, seed=1)
    validation = list(batches(make_clips(val_clips, FRAMES, seed=2), seed=3))

    history: list[dict[str, float]] = []
    global_step = 0
    for epoch in range(epochs):
        losses = train_epoch(model, optimizer, batches(training, seed=100 + epoch))
        global_step += len(losses)
        rate = float(scheduler.get_last_lr()[0])
        scheduler.step()
        row = {"epoch": epoch, "learning_rate": rate, "train_loss": mean(losses)}
        row |= evaluate(model, validation)
        history.append(row)
        figures = [f"{name} {value:.4g}" for name, value in row.items()]
        print("  ".join(figures), flush=True)
        checkpoint = {
            "epoch": epoch,
            "global_step": global_step,
            "model_state_dict": model.state_dict(),
            "optimizer_state_dict": optimizer.state_dict(),
            "scheduler_state_dict": scheduler.state_dict(),
            "best_val_loss": min(row["val_loss"] for row in history),
            "train_loss": row["train_loss"],
            "val_loss": row["val_loss"],
            "val_smoothness": row["val_smoothness"],
            "val_position": row["val_position"],
            "training_stage": "pretraining",
            "lora_enabled": False,
        }
        yield checkpoint, history


def train_epoch(
    model: StickFigureTransformer,
    optimizer: torch.optim.Optimizer,
    examples: Iterable[Example],
) -> list[float]:
    """Take one step with each example; returns their losses."""
    model.train()
    losses = []
    for example in examples:
        loss, _ = loss_of(model(**example.inputs), example)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def learning_rate_factor(epoch: int, epochs: int) -> Any:
    """Linear warm-up, then half a cosine to a hundredth.

    It is a float, and from the warm-up's end on a numpy float64.
    """
    if epoch < WARM_UP:
        return (epoch + 1) / (WARM_UP + 1)
    progress = min(1.0, (epoch - WARM_UP) / max(1, epochs - WARM_UP))
    return 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * progress))


def batches(clips: Clips, seed: int) -> Iterator[Example]:
    """The clips in random order, corrupted and conditioned at random.

    The same seed gives the same batches.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    order = random.permutation(clips.motion.shape[1])
    for chosen in np.split(order, range(BATCH, len(order), BATCH)):
        clean, actions = clips.motion[:, chosen], clips.actions[:, chosen]
        seen: Array = clean
        conditions = {}
        if random.random() < 0.8:
            conditions["action_sequence"] = actions
        if random.random() < 0.25:
            camera = camera_path(len(chosen), random)
            conditions["camera_data"] = camera
            seen = (clean - np.tile(camera[..., :2], 24)) * camera[..., 2:]
        if random.random() < 0.25:
            conditions["partner_motion"] = mirrored(clean)
        seen = seen + NOISE * random.standard_normal(seen.shape)
        inputs = {
            "motion": without_stretches(seen, random),
            "text_embedding": text_of(actions),
            **conditions,
        }
        yield Example(
            {name: tensor(array) for name, array in inputs.items()},
            tensor(actions),
            StickFigureOutput(
                tensor(clean),
                tensor(clips.position[chosen]),
                tensor(clips.velocity[chosen]),
                F.one_hot(tensor(actions), MODEL["num_actions"]).float(),
                tensor(clips.physics[:, chosen]),
                tensor(clips.environment[chosen]),
            ),
        )


def without_stretches(motion: Array, random: np.random.Generator) -> Array:
    """Set up to two stretches of up to 12 frames of each clip to zero.

    `motion` is [frames, clips, 48].
    """
    frame = np.arange(len(motion))[:, None]
    for _ in range(2):
        length = random.integers(0, 13, motion.shape[1])
        start = random.integers(0, len(motion), motion.shape[1])
        missing = (frame >= start) & (frame < start + length)
        motion = np.where(missing[..., None], 0, motion)
    return motion


def camera_path(clips: int, random: np.random.Generator) -> Array:
    """[FRAMES, clips, 3]: x and y of a camera that moves evenly, and its zoom."""
    start, end = random.uniform([-1, -0.3, 0.7], [1, 0.3, 1.4], (2, clips, 3))
    path: Array = start + np.linspace(0, 1, FRAMES)[:, None, None] * (end - start)
    return path


def mirrored(motion: Array) -> Array:
    """A partner [frames, clips, 48] who does the same two metres away, face to face."""
    partner = motion.copy()
    partner[..., 0::2] = 2 - partner[..., 0::2]
    return partner


def text_of(actions: Array) -> Array:
    """[frames, clips] of actions → the first action's unit vector, [clips, 1024]."""
    vectors = []
    for action in ACTIONS:
        random = np.random.Generator(np.random.PCG64(list(action.name.encode())))
        vector = random.standard_normal(MODEL["embedding_dim"])
        vectors.append(vector / np.linalg.norm(vector))
    chosen: Array = np.stack(vectors)[actions[0]]
    return chosen


def tensor(array: Array) -> Tensor:
    """Integers as int64, all else as float32."""
    return torch.from_numpy(
        array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
    )


def loss_of(
    output: StickFigureOutput, example: Example
) -> tuple[Tensor, dict[str, Tensor]]:
    """What is minimised, and the two of its parts that the trainer reports."""
    target = example.targets
    smoothness = F.mse_loss(output.pose.diff(dim=0), target.pose.diff(dim=0))
    position = F.mse_loss(output.position, target.position)
    loss = (
        F.mse_loss(output.pose, target.pose)
        + F.mse_loss(limbs(output.pose), limbs(target.pose))
        + smoothness
        + 0.1 * position
        + 0.1 * F.mse_loss(output.velocity, target.velocity)
        + 0.02
        * F.cross_entropy(output.action_logits.flatten(0, 1), example.actions.flatten())
        + 0.02 * F.mse_loss(output.physics, target.physics)
        + 0.1 * F.mse_loss(output.environment, target.environment)
    )
    return loss, {"val_smoothness": smoothness, "val_position": position}


def limbs(pose: Tensor) -> Tensor:
    """Each segment's direction and length, wherever the figure is.

    [frames, clips, 48] → [frames, clips, 12, 2].
    """
    start, end = pose.reshape(*pose.shape[:2], 12, 2, 2).unbind(dim=3)
    return end - start


@torch.no_grad()
def evaluate(
    model: StickFigureTransformer, examples: list[Example]
) -> dict[str, float]:
    """Mean losses over batches that were never trained on."""
    model.eval()
    losses: dict[str, list[float]] = {
        "val_loss": [],
        "val_smoothness": [],
        "val_position": [],
    }
    for example in examples:
        loss, parts = loss_of(model(**example.inputs), example)
        for name, value in {"val_loss": loss, **parts}.items():
            losses[name].append(value.item())
    return {name: mean(values) for name, values in losses.items()}


def mean(values: list[float]) -> float:
    """The mean in float64."""
    return float(np.mean(values))


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--output", type=Path, default=Path("checkpoints/demo.pth"))
    arguments = parser.parse_args()
    checkpoint, history = train(arguments.epochs)
    torch.save(checkpoint, arguments.output)
    path = arguments.output.with_name(f"{arguments.output.stem}-history.csv")
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(history[0])
        for row in history:
            writer.writerow([f"{value:.6g}" for value in row.values()])


if __name__ == "__main__":
    main()
