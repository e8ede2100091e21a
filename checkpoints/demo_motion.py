"""Stick-figure motion from formulas: what the demo checkpoint is trained on.

A clip is a figure that does one action, or one and then another, on level or sloping
ground. Joint angles are periodic functions of a phase; the feet decide how high the
pelvis is. Lengths are in metres for a figure of 1.6 m, x to the right, y up, 25 frames
a second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from checkpoint_release.models.stick_figure.interface import SEGMENTS as ALL_SEGMENTS

Array = npt.NDArray[np.float64]

FRAMES_PER_SECOND = 25
SEGMENTS = ALL_SEGMENTS[48]
# share of each segment in the body's mass
MASSES = np.array([8, 18, 26, 3, 2, 3, 2, 10, 5, 10, 5, 8]) / 100
ENVIRONMENT = np.linspace(-3, 3, 32)  # where along x the ground's height is asked for

# A pose: how far the trunk leans, then how far each limb is swung forward from hanging
# down, elbows bending forward and knees backward from the straight limb; all in
# radians. Last, how far the feet are off the ground.
LEAN, L_SHOULDER, L_ELBOW, R_SHOULDER, R_ELBOW, L_HIP, L_KNEE, R_HIP, R_KNEE, LIFT = (
    range(10)
)


def _stand(pose: Array, phase: Array) -> None:
    wave = np.sin(phase)
    pose[:, LEAN] = 0.03 * wave
    pose[:, L_SHOULDER] = pose[:, R_SHOULDER] = 0.05 * wave


def _walk(pose: Array, phase: Array) -> None:
    pose[:, LEAN] = 0.05
    _stride(pose, phase, swing=0.45, bend=0.6, arm=0.4, elbow=0.3)


def _run(pose: Array, phase: Array) -> None:
    pose[:, LEAN] = 0.2
    _stride(pose, phase, swing=0.8, bend=1.3, arm=0.8, elbow=1.5)
    pose[:, LIFT] = 0.06 * np.cos(phase) ** 2


def _stride(
    pose: Array, phase: Array, *, swing: float, bend: float, arm: float, elbow: float
) -> None:
    """Arms and legs swing in opposition; a knee bends while its leg comes forward."""
    wave = np.sin(phase)
    pose[:, L_HIP], pose[:, R_HIP] = 0.1 + swing * wave, 0.1 - swing * wave
    pose[:, L_KNEE] = 0.1 + bend * np.clip(np.cos(phase), 0, None)
    pose[:, R_KNEE] = 0.1 + bend * np.clip(-np.cos(phase), 0, None)
    pose[:, L_SHOULDER], pose[:, R_SHOULDER] = -arm * wave, arm * wave
    pose[:, L_ELBOW] = pose[:, R_ELBOW] = elbow


def _jump(pose: Array, phase: Array) -> None:
    wave = np.sin(phase)
    crouch, flight = np.clip(-wave, 0, None), np.clip(wave, 0, None)
    pose[:, LIFT] = 0.5 * flight * (2 - flight)
    pose[:, LEAN] = 0.3 * crouch
    pose[:, L_HIP] = pose[:, R_HIP] = 0.04 + 0.9 * crouch
    pose[:, L_KNEE] = pose[:, R_KNEE] = 0.08 + 1.5 * crouch
    pose[:, L_SHOULDER] = pose[:, R_SHOULDER] = 2.4 * flight - 0.7 * crouch


def _wave(pose: Array, phase: Array) -> None:
    pose[:, R_SHOULDER], pose[:, R_ELBOW] = 2.3, 0.5 + 0.5 * np.sin(phase)


def _squat(pose: Array, phase: Array) -> None:
    push = _push(phase)
    pose[:, LEAN] = 0.35 * push
    pose[:, L_HIP] = pose[:, R_HIP] = 0.04 + 1.3 * push
    pose[:, L_KNEE] = pose[:, R_KNEE] = 0.08 + 2.0 * push
    pose[:, L_SHOULDER] = pose[:, R_SHOULDER] = 1.4 * push


def _kick(pose: Array, phase: Array) -> None:
    wave = np.sin(phase)
    out = np.clip(wave, 0, None)
    pose[:, LEAN] = -0.25 * out
    pose[:, R_HIP] = 0.04 + 1.4 * out - 0.3 * np.clip(-wave, 0, None)
    pose[:, R_KNEE] = 0.08 + 0.9 * _push(phase) * (1 - out)
    pose[:, L_SHOULDER], pose[:, R_SHOULDER] = 0.6 * out, -0.6 * out


def _punch(pose: Array, phase: Array) -> None:
    wave = np.sin(phase)
    left, right = np.clip(wave, 0, None), np.clip(-wave, 0, None)
    pose[:, LEAN], pose[:, L_HIP], pose[:, R_HIP] = 0.1, 0.35, -0.2
    pose[:, L_SHOULDER], pose[:, L_ELBOW] = 0.5 + 1.0 * left, 2.0 - 1.9 * left
    pose[:, R_SHOULDER], pose[:, R_ELBOW] = 0.5 + 1.0 * right, 2.0 - 1.9 * right


def _jumping_jack(pose: Array, phase: Array) -> None:
    push = _push(phase)
    pose[:, L_HIP], pose[:, R_HIP] = -0.45 * push, 0.45 * push
    pose[:, L_SHOULDER], pose[:, R_SHOULDER] = -2.7 * push, 2.7 * push
    pose[:, L_ELBOW], pose[:, R_ELBOW] = -0.2, 0.2
    pose[:, LIFT] = 0.1 * np.sin(phase) ** 2


def _bow(pose: Array, phase: Array) -> None:
    push = _push(phase)
    pose[:, LEAN] = 1.1 * push
    pose[:, L_HIP] = pose[:, R_HIP] = 0.04 - 0.1 * push


def _push(phase: Array) -> Array:
    """Rises from 0 to 1 and falls again."""
    push: Array = (1 - np.cos(phase)) / 2
    return push


@dataclass(frozen=True)
class Action:
    """What a figure can do.

    Attributes:
        name: for people.
        move: sets the joints of a pose [frames, 10] for a phase [frames] in radians.
        tempo: cycles a second.
        speed: metres a second.
    """

    name: str
    move: Callable[[Array, Array], None]
    tempo: float
    speed: float = 0.0


ACTIONS = (
    Action("stand", _stand, 0.4),
    Action("walk", _walk, 0.9, 1.2),
    Action("run", _run, 1.4, 2.2),
    Action("jump", _jump, 0.8),
    Action("wave", _wave, 1.5),
    Action("squat", _squat, 0.6),
    Action("kick", _kick, 0.7),
    Action("punch", _punch, 1.1),
    Action("jumping_jack", _jumping_jack, 1.0),
    Action("bow", _bow, 0.5),
)


@dataclass(frozen=True)
class Clips:
    """A batch of clips; the arrays are float32 but for `actions`.

    Attributes:
        motion: [frames, clips, 48], (x1, y1, x2, y2) of every segment, in the order of
            SEGMENTS.
        actions: [frames, clips] int64, indices into ACTIONS.
        position, velocity: [clips, 2], the pelvis's means over the clip, in m and m/s.
        physics: [frames, clips, 6], the pelvis's velocity (m/s) and acceleration (m/s²
            / 10), and the whole body's momentum for a mass of one.
        environment: [clips, 32], the ground's height in metres at ENVIRONMENT.
    """

    motion: npt.NDArray[np.float32]
    actions: npt.NDArray[np.int64]
    position: npt.NDArray[np.float32]
    velocity: npt.NDArray[np.float32]
    physics: npt.NDArray[np.float32]
    environment: npt.NDArray[np.float32]


def make_clips(count: int, frames: int, seed: int) -> Clips:
    """Clips with random actions; the same seed gives the same ones."""
    random = np.random.Generator(np.random.PCG64(seed))
    clips = [_clip(frames, random) for _ in range(count)]
    motion = np.stack([clip.motion for clip in clips], axis=-1)
    actions = np.stack([clip.actions for clip in clips], axis=-1)
    pelvis = np.stack([clip.pelvis for clip in clips], axis=-1)
    mass = np.stack([clip.mass for clip in clips], axis=-1)
    environment = np.stack([clip.environment for clip in clips], axis=-1)
    velocity = np.gradient(pelvis, 1 / FRAMES_PER_SECOND, axis=0)
    acceleration = np.gradient(velocity, 1 / FRAMES_PER_SECOND, axis=0)
    momentum = np.gradient(mass, 1 / FRAMES_PER_SECOND, axis=0)
    physics = np.concatenate([velocity, acceleration / 10, momentum], axis=1)
    return Clips(
        motion=motion.swapaxes(1, 2).astype(np.float32),
        actions=actions.astype(np.int64),
        position=pelvis.mean(axis=0).T.astype(np.float32),
        velocity=velocity.mean(axis=0).T.astype(np.float32),
        physics=physics.swapaxes(1, 2).astype(np.float32),
        environment=environment.T.astype(np.float32),
    )


@dataclass(frozen=True)
class _Clip:
    """One clip.

    Attributes:
        motion: [frames, 48].
        actions: [frames].
        pelvis, mass: [frames, 2], the pelvis and the centre of mass.
        environment: [32].
    """

    motion: Array
    actions: npt.NDArray[np.int64]
    pelvis: Array
    mass: Array
    environment: Array


def _clip(frames: int, random: np.random.Generator) -> _Clip:
    first, second = random.integers(len(ACTIONS), size=2)
    change = frames
    if random.random() < 0.4:
        change = int(random.integers(frames // 4, 3 * frames // 4))
    tempo, amplitude, size = random.uniform(0.85, 1.15, 3)
    facing = random.choice([-1.0, 1.0])
    slope, height = random.uniform([-0.15, -1.0], [0.15, -0.7])
    middle = random.uniform(-0.5, 0.5)
    start = random.uniform(0, 2 * np.pi)

    seconds = np.arange(frames) / FRAMES_PER_SECOND
    share = np.clip((np.arange(frames) - change) / 8 + 0.5, 0, 1)
    # of the second action: smooth over eight frames
    share = share * share * (3 - 2 * share)
    poses, speed = np.zeros((frames, 10)), np.zeros(frames)
    for index, weight in ((first, 1 - share), (second, share)):
        action = ACTIONS[index]
        phase = start + 2 * np.pi * tempo * action.tempo * seconds
        poses += weight[:, None] * joint_angles(action, phase)
        speed += weight * tempo * action.speed
    poses *= amplitude

    x = np.cumsum(speed) / FRAMES_PER_SECOND
    x = facing * (x - x.mean()) + middle
    # [frames, 12, 2 ends, 2], the pelvis at the origin, facing right
    figure = size * _segments(poses)
    figure[..., 0] *= facing
    figure[..., 0] += x[:, None, None]
    feet = figure[:, (8, 10), 1]  # [frames, 2 feet, 2]
    clearance = feet[..., 1] - (height + slope * feet[..., 0])
    figure[..., 1] += (size * poses[:, LIFT] - clearance.min(axis=1))[:, None, None]

    pelvis = figure[:, 11].mean(axis=1)
    mass = (figure.mean(axis=2) * MASSES[:, None]).sum(axis=1)
    actions = np.where(np.arange(frames) < change, first, second)
    ground = height + slope * ENVIRONMENT
    return _Clip(figure.reshape(frames, 48), actions, pelvis, mass, ground)


def joint_angles(action: Action, phase: Array) -> Array:
    """[frames] of phase in radians → [frames, 10] of pose."""
    pose = np.zeros((len(phase), 10))
    pose[:, [L_ELBOW, R_ELBOW]] = 0.2
    pose[:, [L_KNEE, R_KNEE]] = 0.08
    pose[:, [L_HIP, R_HIP]] = 0.04
    action.move(pose, phase)
    return pose


def _segments(pose: Array) -> Array:
    """[frames, 10] of pose → end points, [frames, 12, 2 ends, 2].

    The pelvis's middle is at the origin.
    """

    def along(angle: Array, length: float) -> Array:
        # an angle of 0 hangs down
        return length * np.stack([np.sin(angle), -np.cos(angle)], axis=-1)

    lean = pose[:, LEAN]
    pelvis = np.zeros((len(pose), 2))
    waist = pelvis - along(-lean, 0.26)
    neck = waist - along(-1.2 * lean, 0.28)
    head = neck - along(-1.3 * lean, 0.24)
    hips = np.array([0.08, 0.0])
    ends = [(neck, head), (waist, neck), (pelvis, waist)]
    for shoulder, elbow in ((L_SHOULDER, L_ELBOW), (R_SHOULDER, R_ELBOW)):
        upper = pose[:, shoulder] - lean
        joint = neck + along(upper, 0.28)
        ends += [(neck, joint), (joint, joint + along(upper + pose[:, elbow], 0.26))]
    for side, hip, knee in ((-1, L_HIP, L_KNEE), (1, R_HIP, R_KNEE)):
        top = pelvis + side * hips
        joint = top + along(pose[:, hip], 0.42)
        ends += [
            (top, joint),
            (joint, joint + along(pose[:, hip] - pose[:, knee], 0.42)),
        ]
    ends.append((pelvis - hips, pelvis + hips))
    return np.stack([np.stack(pair, axis=1) for pair in ends], axis=1)
