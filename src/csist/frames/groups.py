"""What is reported of the groups of a frame besides their targets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from csist._types import FloatArray, IntArray
from csist.frames.masks.mask import PixelMask
from csist.frames.shapes.source import ExtendedSource
from csist.methods.continuous.group import AMBIGUOUS
from csist.targets import Flag


@dataclass(frozen=True)
class FrameGroup:
    """One group of a frame besides its targets: a blob, or linked targets of a crowded frame.

    Args:
        number: of the group; `Targets.group` refers to it.
        column: first column of the smallest rectangle that holds the group's windows.
        row: first row of that rectangle.
        shape: (rows, columns) of that rectangle in px.
        peaks: number of detected peaks.
        windows: number of windows that were fitted; 0 if none could be.
        significance: of its strongest peak, in standard deviations.
        count: number of targets reported.
        count_probability: (n,) probability of 0, 1, 2, ... point targets; empty where they do not explain it. With the
            probabilities of an extended source and of a streak the sum is 1.
        chi_squared: of the best fit, summed over the windows; NaN where there is none.
        degrees_of_freedom: measured pixels minus parameters, summed.
        flags: bits of `Flag`.
        samples: one array (m, k, 3) per window: posterior samples of x, y in px and intensity in counts of k targets,
            in frame coordinates, given their number and the noise of the fit; empty unless asked for.
        sources: its extended sources and streaks, the brightest first.
        extended_probability: probability that its light is one extended source.
        streak_probability: probability that it is a streak.
    """

    number: int
    column: int
    row: int
    shape: tuple[int, int]
    peaks: int
    windows: int
    significance: float
    count: int
    count_probability: FloatArray
    chi_squared: float
    degrees_of_freedom: int
    flags: Flag
    samples: tuple[FloatArray, ...] = ()
    sources: tuple[ExtendedSource, ...] = ()
    extended_probability: float = 0.0
    streak_probability: float = 0.0

    @property
    def probability_of_count(self) -> float:
        """Probability of the number of targets reported; 0 where it is not known."""
        return float(self.count_probability[self.count]) if self.count < len(self.count_probability) else 0.0

    def without(self, number: int) -> FrameGroup:
        """The group where `number` of its targets are reported elsewhere."""
        probability = self.count_probability[number:].copy()
        if probability.size:
            probability[0] += self.count_probability[:number].sum()
        return replace(self, count=self.count - number, count_probability=probability)


def ambiguity(probability: FloatArray, count: int) -> Flag:
    """Return AMBIGUOUS_COUNT if other counts than the reported one have a probability above 10 %.

    The targets of a blob in several windows are the most probable ones of each window; the most probable sum may be
    another one, which this flag states.

    Args:
        probability: (n,) of 0, 1, 2, ... targets; empty where it is not known.
        count: number of targets reported.
    """
    own = float(probability[count]) if count < len(probability) else 0.0
    return Flag.AMBIGUOUS_COUNT if probability.size and own < 1.0 - AMBIGUOUS else Flag(0)


def sources_of(groups: Iterable[FrameGroup]) -> tuple[ExtendedSource, ...]:
    """The extended sources and streaks of some groups."""
    return tuple(source for group in groups for source in group.sources)


def pixel_flags(pixels: PixelMask, positions: FloatArray, reach: int) -> IntArray:
    """MASKED and SATURATED bits of each position (n, 2), by the pixels within `reach` along rows and columns."""
    bits = np.zeros(len(positions), dtype=np.int64)
    for k, (x, y) in enumerate(positions):
        part = np.s_[
            max(round(y) - reach, 0) : round(y) + reach + 1,
            max(round(x) - reach, 0) : round(x) + reach + 1,
        ]
        bits[k] |= int(Flag.MASKED) if pixels.masked[part].any() else 0
        bits[k] |= int(Flag.SATURATED) if pixels.saturated[part].any() else 0
    return bits


def probability_within(radius_px: float, x_std: FloatArray, y_std: FloatArray) -> FloatArray:
    """Probability (n,) that a position with errors x_std and y_std (n,) in px is right within a radius in px.

    Both errors are taken as equal, at the same mean square. An error that is not known counts as none.
    """
    variance = np.nan_to_num(0.5 * (x_std**2 + y_std**2))
    return np.asarray(-np.expm1(-0.5 * radius_px**2 / np.maximum(variance, 1e-300)))
