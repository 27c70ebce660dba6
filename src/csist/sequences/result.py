"""What the joint posterior of a sequence says: targets of each frame, and tracks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from csist._types import FloatArray
from csist.methods.continuous.diagnostics import Diagnostics
from csist.targets import Flag, Targets

if TYPE_CHECKING:
    from csist.frames.shapes.source import ExtendedSource

NO_FLAGS = Flag(0)
STATE = ("x", "y", "vx", "vy", "intensity")


class Outline(NamedTuple):
    """Size and direction of an extended source or streak, without the blur of the PSF.

    Args:
        long_px: length of a streak, diameter of a disc or full width at half maximum of an ellipse, along its longer
            axis.
        short_px: the same across it; 0 for a streak.
        angle_deg: angle of the longer axis from x towards y (clockwise on the screen), -90 to 90 degrees.
    """

    long_px: float
    short_px: float
    angle_deg: float


def outline_of(sources: Sequence[Outline | ExtendedSource]) -> Outline:
    """The median size, and the mean direction: an axis is the same after half a turn.

    >>> outline_of([Outline(6.0, 2.0, 88.0), Outline(6.2, 2.0, -88.0)])[:2], abs(outline_of([Outline(6, 2, -90)])[2])
    ((6.1, 2.0), 90.0)
    """
    long_px, short_px = (float(np.median([getattr(one, name) for one in sources])) for name in Outline._fields[:2])
    turn = np.exp(2j * np.deg2rad([one.angle_deg for one in sources])).mean()
    return Outline(long_px, short_px, float(np.rad2deg(0.5 * np.angle(turn))))


@dataclass(frozen=True, eq=False)
class Track:
    """The path of one target.

    Args:
        id: number of the track.
        first: first frame in which the target is there; later than that of the sequence if it appears.
        last: last such frame; earlier than that of the sequence if it leaves.
        state: (5,) x, y in px, velocity in px per unit of time, and mean intensity in counts, in the track's first
            frame. The unit is that of the times given to `csist.unmix_sequence`; without them it is the frame.
        covariance: (5, 5) of the state.
        existence_probability: that a target lies within 0.25 px of the path, the mean over the frames.
        bend: (2,) acceleration in px per unit of time squared; zero where the motion is linear.
        time: of the track's first frame.
        outline: of a group that is an extended source or a streak; None of other targets.
    """

    id: int
    first: int
    last: int
    state: FloatArray
    covariance: FloatArray
    existence_probability: float
    bend: FloatArray = field(default_factory=lambda: np.zeros(2))
    time: float = 0.0
    outline: Outline | None = None

    def shifted(self, dx: float, dy: float) -> Track:
        """Return a copy shifted by (dx, dy) px."""
        return replace(self, state=self.state + np.array([dx, dy, 0.0, 0.0, 0.0]))

    def at(self, time: float) -> tuple[FloatArray, FloatArray]:
        """State (5,) and covariance (5, 5) at a time, by the velocity; also between frames and after the last.

        With acceleration, its mean is added to the state and its uncertainty is left out. Without times given to
        `csist.unmix_sequence`, the time is the number of the frame.
        """
        since = time - self.time
        step = np.eye(5)
        step[0, 2] = step[1, 3] = since
        state = step @ self.state
        state[:2] += 0.5 * since**2 * self.bend
        state[2:4] += since * self.bend
        return state, step @ self.covariance @ step.T


@dataclass(frozen=True, eq=False)
class JointGroup:
    """A group of whole frames that was solved in all of them together.

    Args:
        number: of the group; `Targets.group` refers to it.
        first: first frame in which it was detected.
        last: last such frame.
        count_probability: (Kmax + 1,) probability of 0, 1, 2, ... targets.
        flags: bits of `Flag`.
        diagnostics: how well the posterior was sampled.
    """

    number: int
    first: int
    last: int
    count_probability: FloatArray
    flags: Flag
    diagnostics: Diagnostics

    @property
    def count(self) -> int:
        """Most probable number of targets."""
        return int(np.argmax(self.count_probability))


@dataclass(frozen=True, eq=False)
class SequenceResult:
    """Targets and tracks of a sequence.

    Args:
        frames: targets of each frame; their column `track` holds the number of the track, -1 for a target of whole
            frames that belongs to none.
        tracks: path of each target.
        count_probability: (Kmax + 1,) probability of 0, 1, 2, ... targets; in whole frames, of the total of all groups
            that were solved in all frames together.
        flags: bits of `Flag` of the group.
        diagnostics: how well the posterior was sampled.
        notes: what was left out of the frames or assumed, one line each.
        groups: of whole frames, those that were solved in all frames together; empty for windows.
        shift_px: (T, 2) x, y by which a camera that shakes shifts each frame, its drift left out; None where it stands.
            It is in `frames`, and not in `tracks`.
    """

    frames: list[Targets]
    tracks: list[Track]
    count_probability: FloatArray
    flags: Flag = NO_FLAGS
    diagnostics: Diagnostics = field(default_factory=Diagnostics)
    notes: list[str] = field(default_factory=list)
    groups: list[JointGroup] = field(default_factory=list)
    shift_px: FloatArray | None = None

    @property
    def count(self) -> int:
        """Most probable number of targets."""
        return int(np.argmax(self.count_probability))
