"""Bad and saturated pixels of a frame, and the level at which it clips."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from csist._types import BoolArray, FloatArray, IntArray
from csist.checks import InputError, check_stack
from csist.frames.kernels import is_whole, steep_pixels
from csist.frames.masks.bad_lines import bad_lines
from csist.frames.masks.footprint import outside_footprint
from csist.frames.medians import row_medians, surroundings
from csist.physics.psf import PSF
from csist.physics.sensor import ROUNDING_VARIANCE

LONE_SIGMAS = 25.0
"""Excess in noise standard deviations that a hot or dead pixel must have."""
LONE_SHARE = 0.08
"""Largest share of that excess which its neighbours may show; a Gaussian PSF of 0.4 px puts 0.13 there."""
LONE_SIDE_PX = 5
"""Side of the surroundings whose median a lone pixel is compared with."""
MOST_SCATTER_PIXELS = 1_500
"""Pixels, spread evenly over a frame, on which the scatter about that median is measured."""
FULL_SCALES = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 15, 16, 31))
"""Levels at which converters and signed integers clip; a whole-numbered frame whose maximum is one of these is taken as
clipped there."""


class PixelKind(IntEnum):
    """What a pixel of a frame can be used for."""

    VALID = 0
    NAN = 1
    DEAD = 2
    """Far below all its neighbours."""
    HOT = 3
    """Far above all its neighbours."""
    SATURATED = 4
    """At the ceiling: a lower bound only."""
    OUTSIDE = 5
    """Outside the frame's footprint, see `csist.frames.masks.footprint`."""
    LINE = 6
    """In a bad row or column, see `csist.frames.masks.bad_lines`."""
    STREAK = 7
    """In a long straight trail, see `csist.frames.masks.streaks`."""


@dataclass(frozen=True, eq=False)
class PixelMask:
    """Which pixels of a frame are usable.

    Args:
        kind: (H, W) uint8, a `PixelKind` per pixel.
        ceiling: level in counts at which the frame clips, infinite if it does not.
    """

    kind: NDArray[np.uint8]
    ceiling: float

    @cached_property
    def masked(self) -> BoolArray:
        """(H, W) pixels that are never used: all but the valid and the saturated ones."""
        return np.asarray((self.kind != PixelKind.VALID) & (self.kind != PixelKind.SATURATED))

    @cached_property
    def saturated(self) -> BoolArray:
        """(H, W) pixels at the ceiling, used as lower bounds."""
        return np.asarray(self.kind == PixelKind.SATURATED)

    def count(self, kind: PixelKind) -> int:
        """Number of pixels of a kind."""
        return int(np.count_nonzero(self.kind == kind))

    @property
    def counts(self) -> dict[str, int]:
        """Number of pixels of each kind but the valid ones, by lower-case name."""
        numbers = np.bincount(self.kind[self.kind > 0], minlength=len(PixelKind))
        return {kind.name.lower(): int(numbers[kind]) for kind in PixelKind if kind is not PixelKind.VALID}

    def of(self, kind: str) -> BoolArray:
        """(H, W) pixels of a kind, given by its lower-case name."""
        return np.asarray(self.kind == PixelKind[kind.upper()])

    def with_kind(self, pixels: BoolArray, kind: PixelKind) -> PixelMask:
        """The same with a further kind of unusable pixels (H, W); those that are unusable stay what they are."""
        return replace(self, kind=np.where(pixels & ~self.masked, np.uint8(kind), self.kind))


def check_frame(frame: NDArray[np.generic]) -> FloatArray:
    """Return a frame as float64 (H, W); NaN is allowed, but not everywhere.

    Raises:
        InputError: if it is not one image of at least 3 x 3 real numbers with a valid pixel.
    """
    stack = check_stack(frame, "frame")
    if len(stack) != 1:
        raise InputError(f"frame must be one image (H, W), got a stack of {len(stack)}: pass its images one by one")
    if np.isnan(stack[0]).all():
        raise InputError(f"frame has no valid pixel: all {stack[0].size} are NaN")
    return np.asarray(stack[0])


def is_whole_numbered(frame: FloatArray) -> bool:
    """Whether every valid pixel is a whole number, so that the frame was rounded."""
    return is_whole(np.ascontiguousarray(frame))


def find_ceiling(frame: FloatArray) -> float:
    """Level at which a frame of unknown origin clips: its maximum if that is a converter's, else infinity."""
    top = float(np.fmax.reduce(frame, axis=None))
    return top if top in FULL_SCALES and is_whole_numbered(frame) else np.inf


def lone_share(psf: PSF | None) -> float:
    """Largest share of a lone pixel's excess that its neighbours may show, given the PSF if it is known."""
    if psf is None:
        return LONE_SHARE
    # A source at the centre of a pixel puts the least light into its neighbours.
    return min(LONE_SHARE, 0.5 * float(psf.response(1.0, 0.0) / psf.response(0.0, 0.0)))


def mask_pixels(frame: FloatArray, ceiling: float | None = None, psf: PSF | None = None) -> PixelMask:
    """Find pixels that are NaN, outside the footprint, in bad lines, dead, hot or saturated.

    A hot (dead) pixel stands out from the median of its surroundings by more than `LONE_SIGMAS` while no neighbour
    shows more than `LONE_SHARE` of that: no optics produces such a sharp spot.

    Args:
        frame: (H, W) in counts.
        ceiling: level in counts at which the sensor clips; None guesses it with `find_ceiling`.
        psf: lowers the share for PSFs much smaller than a pixel.
    """
    frame = np.ascontiguousarray(frame)
    nan, whole_numbered = np.isnan(frame), is_whole_numbered(frame)
    outside = outside_footprint(frame, nan, whole_numbered)
    unusable = nan if outside is None else nan | outside
    if unusable.all():
        outside, unusable = None, nan
    seen = np.where(unusable, np.nan, frame) if unusable.any() else frame
    line = bad_lines(seen) & ~unusable
    ceiling = find_ceiling(seen) if ceiling is None else ceiling
    skipped = unusable | line
    filled = np.where(skipped, np.nanmedian(seen), seen) if skipped.any() else frame
    step = max(1, round((filled.size / MOST_SCATTER_PIXELS) ** 0.5))
    rows, columns = (v.ravel() for v in np.mgrid[0 : filled.shape[0] : step, 0 : filled.shape[1] : step])
    spread = np.median(np.abs(_excess(filled, rows, columns))) * 1.4826
    scatter = max(float(spread), np.sqrt(ROUNDING_VARIANCE) if whole_numbered else 0.0)
    kind = np.zeros(frame.shape, dtype=np.uint8)
    if np.isfinite(ceiling):
        kind[filled >= ceiling] = PixelKind.SATURATED
    if skipped.any():
        kind[line] = PixelKind.LINE
        kind[unusable] = PixelKind.OUTSIDE
        kind[nan] = PixelKind.NAN
    if scatter > 0.0:
        # Half the limit: the medians of neighbours differ too.
        rows, columns = steep_pixels(filled, 0.5 * LONE_SIGMAS * scatter).T
        usable = ~skipped[rows, columns]
        rows, columns = rows[usable], columns[usable]
        lone = _lone(filled, rows, columns, LONE_SIGMAS * scatter, lone_share(psf))
        kind[rows[lone > 0], columns[lone > 0]] = PixelKind.HOT
        kind[rows[lone < 0], columns[lone < 0]] = PixelKind.DEAD
    return PixelMask(kind, ceiling)


def _excess(frame: FloatArray, rows: IntArray, columns: IntArray) -> FloatArray:
    """Excess (n,) over the median of their surroundings of pixels of a frame, mirrored at its borders."""
    around = surroundings(frame, rows, columns, LONE_SIDE_PX // 2).reshape(len(rows), LONE_SIDE_PX**2)
    return np.asarray(around[:, LONE_SIDE_PX**2 // 2] - row_medians(around))


def _lone(frame: FloatArray, rows: IntArray, columns: IntArray, least: float, share: float) -> IntArray:
    """1 for a hot, -1 for a dead, 0 for any other pixel (n,): its excess is above `least`, its neighbours' is not."""
    excess = _excess(frame, rows, columns)
    sign, lone = np.sign(excess), np.abs(excess) > least
    for down, right in ((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j):
        lone &= sign * _excess(frame, rows + down, columns + right) < share * np.abs(excess)
    return np.where(lone, sign, 0.0).astype(np.int64)
