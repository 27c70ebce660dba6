"""Trajectories: a motion model of the targets of a group with scintillation, and sampling from it.

The motion model is this project's own, because no generator of the published sequences (Zhai et al., SeqCSIST, IEEE
TGRS 2025) is public. Group sizes, lengths and image size are the published ones. Speeds and scintillation are chosen so
that a group crosses several pixels in a sequence while its targets drift by less than their separation.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from csist._types import FloatArray, IntArray
from csist.checks import InputError, check_fields, check_not_negative, check_positive
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, sample_scene_arrays, targets_from_arrays
from csist.targets import Targets

MOST_ROUNDS = 1000
"""Rounds of redrawing before a motion prior whose groups leave the window is considered impossible."""


@dataclass(frozen=True)
class MotionPrior:
    """Prior of the motion of a group: straight, nearly parallel paths.

    Args:
        start: prior of the first frame.
        frames: frames in a sequence.
        group_speed_px: the common velocity is uniform in a disc of this radius, in px per frame.
        own_speed_px: each target's own velocity, uniform in a disc of this radius, is added to it, in px per frame.
        scintillation: standard deviation of a target's intensity from frame to frame, as a share of its mean.
        inner_side_px: side of the central square of the window in px that no target leaves.

    Raises:
        InputError: if a value is out of range.

    >>> MotionPrior().frames, MotionPrior().start.count_range
    (20, (2, 4))
    """

    start: ScenePrior = field(default_factory=lambda: replace(ScenePrior.csist_100k(), count_range=(2, 4)))
    frames: int = 20
    group_speed_px: float = 0.15
    own_speed_px: float = 0.02
    scintillation: float = 0.02
    inner_side_px: float = 7.0

    def __post_init__(self) -> None:
        if int(self.frames) != self.frames or self.frames < 1:
            raise InputError(f"frames must be a whole number >= 1, got {self.frames}")
        for name in ("group_speed_px", "own_speed_px", "scintillation"):
            check_not_negative(name, getattr(self, name))
        check_positive("inner_side_px", self.inner_side_px)

    def to_card(self) -> dict[str, Any]:
        """Return a JSON-ready description."""
        return {**asdict(self), "start": self.start.to_card()}

    @classmethod
    def from_card(cls, card: dict[str, Any]) -> MotionPrior:
        """Build the prior that a card describes; fields that are left out take their defaults.

        Raises:
            InputError: if a field is unknown or has a wrong value.
        """
        check_fields("motion", card, cls.__dataclass_fields__)
        values = dict(card)
        if "start" in values:
            values["start"] = ScenePrior.from_card(values["start"])
        return cls(**values)


def prior_of_frames(prior: ScenePrior, motion: MotionPrior | None) -> ScenePrior:
    """The prior of any frame: that of a sequence is stated for its first frame, and groups drift apart.

    Args:
        prior: of the first frame.
        motion: how targets move; None where each image is a scene of its own.
    """
    return prior if motion is None else replace(prior, single_pixel=False)


def sample_trajectory_arrays(
    motion: MotionPrior, sensor: Sensor, n: int, rng: np.random.Generator
) -> tuple[FloatArray, IntArray]:
    """Draw n sequences of one group each; a group that would leave the inner square is redrawn as a whole.

    Args:
        motion: motion prior.
        sensor: sensor with the shape of the window in px.
        n: number of sequences.
        rng: generator.

    Returns:
        Targets (n, frames, Kmax, 3) with columns x, y, intensity, padded with NaN, in the same order in all frames, and
        counts (n,).

    Raises:
        InputError: if the inner square does not fit into the window, or hardly any group stays in it.
    """
    rows, columns = sensor.shape
    if motion.inner_side_px > min(rows, columns):
        raise InputError(
            f"inner_side_px must be at most {min(rows, columns)}, the window's side, got {motion.inner_side_px}"
        )
    most = motion.start.count_range[1]
    targets, count = np.full((n, motion.frames, most, 3), np.nan), np.zeros(n, dtype=np.int64)
    missing = np.arange(n)
    for _ in range(MOST_ROUNDS):
        first, count[missing] = sample_scene_arrays(motion.start, sensor, len(missing), rng)
        velocity = _disc(motion.group_speed_px, (len(missing), 1), rng) + _disc(
            motion.own_speed_px, (len(missing), most), rng
        )
        time = np.arange(motion.frames)[None, :, None, None]
        targets[missing, :, :, :2] = first[:, None, :, :2] + velocity[:, None] * time
        flicker = 1.0 + motion.scintillation * rng.standard_normal((len(missing), motion.frames, most))
        targets[missing, :, :, 2] = first[:, None, :, 2] * np.maximum(flicker, 0.0)
        middle = 0.5 * np.array([columns - 1.0, rows - 1.0])
        reach = np.abs(targets[missing, :, :, :2] - middle)
        left = np.nanmax(reach, axis=(1, 2, 3), initial=0.0) > 0.5 * motion.inner_side_px
        missing = missing[left]
        if not missing.size:
            return targets, count
    raise InputError(
        f"{missing.size} of {n} groups never stayed in the inner {motion.inner_side_px} px for {motion.frames} frames: "
        "lower group_speed_px or frames, or raise inner_side_px"
    )


def _disc(radius: float, shape: tuple[int, ...], rng: np.random.Generator) -> FloatArray:
    """Draw vectors (*shape, 2) uniformly in a disc."""
    angle = rng.uniform(0.0, 2.0 * np.pi, shape)
    distance = radius * np.sqrt(rng.random(shape))
    return np.stack([distance * np.cos(angle), distance * np.sin(angle)], axis=-1)


def sample_trajectories(
    motion: MotionPrior, sensor: Sensor, n: int, seed: int | np.random.Generator
) -> list[list[Targets]]:
    """Draw n sequences; the same seed gives the same ones.

    Args:
        motion: motion prior.
        sensor: sensor with the shape of the window in px.
        n: number of sequences.
        seed: seed or generator.

    Returns:
        For each sequence, the true targets of each frame, in the same order in all frames.

    Raises:
        InputError: as `sample_trajectory_arrays`.
    """
    targets, count = sample_trajectory_arrays(motion, sensor, n, np.random.default_rng(seed))
    return [targets_from_arrays(each, np.full(motion.frames, k)) for each, k in zip(targets, count, strict=True)]
