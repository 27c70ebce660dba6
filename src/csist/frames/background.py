"""Bad pixels, background and noise of a whole frame, estimated so that point sources stay in the frame.

The background is found on meshes of ever smaller boxes. A box is summarised by a clipped median, or, where
bright sources skew it, by the mode estimate 2.5 median - 1.5 mean of crowded-field photometry (Bertin & Arnouts,
A&AS 117, 393, 1996, section 3); the 3 x 3 median of the mesh replaces boxes that a source fills. The noise is the
robust scatter about the background in the boxes of the finest mesh, so it contains the fine texture of clutter.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import ndimage

from csist.checks import InputError, check_stack
from csist.frames.kernels import clip_sorted, steep_pixels
from csist.physics.psf import PSF
from csist.physics.sensor import ROUNDING_VARIANCE

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

BOX_SIDES_PX = (128, 32)
"""Boxes of the background meshes, coarse to fine; the finest is 10 to 20 times as wide as a usual PSF."""

CLIP_SIGMAS = 3.0
CLIP_ROUNDS = 8
SKEW_LIMIT = 0.3
"""(mean - median) / scatter above which a box is too crowded even for the mode estimate: its median is used."""

LONE_SIGMAS = 25.0
"""Excess in noise standard deviations that a hot or dead pixel must have."""
LONE_SHARE = 0.08
"""Largest share of that excess which its neighbours may show; a Gaussian PSF of 0.4 px puts 0.13 there."""

MOST_BOX_PIXELS = 2048
"""Pixels of a box that are looked at; its level is then known to a thirtieth of the noise."""

BLOCK_PIXELS = 2**20

LONE_SIDE_PX = 5
"""Side of the surroundings whose median a lone pixel is compared with."""
LONE_MARGIN_PX = LONE_SIDE_PX // 2 + 1
"""Margin that the surroundings of a border pixel's neighbour need."""
FEWEST_SCATTER_PIXELS = 60
"""Pixels that the scatter about a plane needs."""
MOST_SCATTER_PIXELS = 1_500
"""Pixels, spread evenly over a frame, on which the scatter about that median is measured."""

FULL_SCALES = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16))
"""Where converters clip; a whole-numbered frame whose maximum is one of these is taken as clipped there."""


@dataclass(frozen=True)
class PixelMask:
    """Pixels that say nothing, or only "at least this much".

    Args:
        masked: (H, W) NaN, dead or hot; never used.
        saturated: (H, W) at the ceiling; used as a lower bound.
        ceiling: level in counts at which the frame clips, infinite if it does not.
        nan: number of NaN pixels.
        dead: number of pixels far below all their neighbours.
        hot: number of pixels far above all their neighbours.
    """

    masked: BoolArray
    saturated: BoolArray
    ceiling: float
    nan: int
    dead: int
    hot: int


@dataclass(frozen=True)
class Background:
    """Background and noise of a frame.

    Args:
        level: (H, W) in counts.
        noise: (H, W) standard deviation of a pixel in counts, > 0.
    """

    level: FloatArray
    noise: FloatArray


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
    # One row tells of most frames that were not; blocks of rows spare the memory where the frame is huge.
    step = max(1, BLOCK_PIXELS // frame.shape[1])
    parts = (frame[start : start + step] for start in range(1, len(frame), step))
    return all(bool((np.isnan(part) | (part == np.rint(part))).all()) for part in chain((frame[:1],), parts))


def find_ceiling(frame: FloatArray) -> float:
    """Level at which a frame of unknown origin clips: its maximum if that is a converter's, else infinity."""
    top = float(np.nanmax(frame))
    return top if top in FULL_SCALES and is_whole_numbered(frame) else np.inf


def mask_pixels(frame: FloatArray, ceiling: float | None = None, psf: PSF | None = None) -> PixelMask:
    """Find NaN, dead, hot and saturated pixels.

    A hot (dead) pixel stands out from the median of its surroundings by more than `LONE_SIGMAS` while no neighbour
    shows more than `LONE_SHARE` of that: no optics makes so sharp a spot.

    Args:
        frame: (H, W) in counts.
        ceiling: level in counts at which the sensor clips; None guesses it with `find_ceiling`.
        psf: lowers the share for PSFs much smaller than a pixel.
    """
    nan = np.isnan(frame)
    ceiling = find_ceiling(frame) if ceiling is None else ceiling
    share = LONE_SHARE
    if psf is not None:
        # A source at the pixel's centre lights its neighbours least.
        share = min(share, 0.5 * float(psf.response(1.0, 0.0) / psf.response(0.0, 0.0)))
    filled = np.where(nan, np.nanmedian(frame), frame) if nan.any() else frame
    step = max(1, round((filled.size / MOST_SCATTER_PIXELS) ** 0.5))
    rows, columns = (v.ravel() for v in np.mgrid[0 : filled.shape[0] : step, 0 : filled.shape[1] : step])
    padded = np.pad(filled, LONE_MARGIN_PX, mode="reflect")
    spread = np.median(np.abs(_excess(padded, rows, columns))) * 1.4826
    scatter = max(float(spread), np.sqrt(ROUNDING_VARIANCE) if is_whole_numbered(frame) else 0.0)
    hot, dead = np.zeros(frame.shape, dtype=bool), np.zeros(frame.shape, dtype=bool)
    if scatter > 0.0:
        # Half: the medians of neighbours differ too.
        rows, columns = np.nonzero(steep_pixels(filled, 0.5 * LONE_SIGMAS * scatter) & ~nan)
        lone = _lone(padded, rows, columns, LONE_SIGMAS * scatter, share)
        hot[rows[lone > 0], columns[lone > 0]] = True
        dead[rows[lone < 0], columns[lone < 0]] = True
    masked = nan | hot | dead
    saturated = ~masked & (filled >= ceiling)
    return PixelMask(masked, saturated, ceiling, int(nan.sum()), int(dead.sum()), int(hot.sum()))


def _excess(padded: FloatArray, rows: IntArray, columns: IntArray) -> FloatArray:
    """Excess (n,) of pixels over the median of their surroundings, in a frame with a margin of `LONE_MARGIN_PX`."""
    first = LONE_MARGIN_PX - LONE_SIDE_PX // 2
    surroundings = sliding_window_view(padded, (LONE_SIDE_PX, LONE_SIDE_PX))[rows + first, columns + first]
    median = np.median(surroundings.reshape(len(rows), LONE_SIDE_PX**2), axis=1)
    return np.asarray(padded[rows + LONE_MARGIN_PX, columns + LONE_MARGIN_PX] - median)


def _lone(padded: FloatArray, rows: IntArray, columns: IntArray, least: float, share: float) -> IntArray:
    """1, -1 or 0 (n,): whether a pixel stands out, up or down, by more than `least`, and its neighbours do not."""
    excess = _excess(padded, rows, columns)
    sign, lone = np.sign(excess), np.abs(excess) > least
    for down, right in ((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j):
        lone &= sign * _excess(padded, rows + down, columns + right) < share * np.abs(excess)
    return np.where(lone, sign, 0.0).astype(np.int64)


def _boxes(values: NDArray[np.floating], side: int) -> tuple[NDArray[np.floating], tuple[int, int]]:
    """Values as rows, one for each box of about `side` px, NaN-padded; and the number of boxes (rows, columns).

    Of a box with more than `MOST_BOX_PIXELS` every second or third row and column are taken, and so on.
    """
    shape = tuple(max(1, round(n / side)) for n in values.shape)
    size = tuple(-(-n // boxes) for n, boxes in zip(values.shape, shape, strict=True))
    padded = np.full([boxes * s for boxes, s in zip(shape, size, strict=True)], np.nan, values.dtype)
    padded[: values.shape[0], : values.shape[1]] = values
    step = int(np.ceil((size[0] * size[1] / MOST_BOX_PIXELS) ** 0.5))
    rows = padded.reshape(shape[0], size[0], shape[1], size[1])[:, ::step, :, ::step].swapaxes(1, 2)
    return rows.reshape(shape[0] * shape[1], -1), (shape[0], shape[1])


def clipped_statistics(rows: NDArray[np.floating]) -> tuple[FloatArray, FloatArray]:
    """Background level and scatter of each row, NaN where a row has fewer than 5 valid values."""
    values = np.sort(rows, axis=1)  # NaN goes to the end
    counts = np.isfinite(values).sum(axis=1)
    enough = counts >= 5
    median, scatter, mean = clip_sorted(values, np.maximum(counts, 1), CLIP_SIGMAS, CLIP_ROUNDS).T
    skewed = np.abs(mean - median) > SKEW_LIMIT * scatter
    level = np.where(skewed, median, 2.5 * median - 1.5 * mean)
    return np.where(enough, level, np.nan), np.where(enough, scatter, np.nan)


def fill_mesh(mesh: FloatArray, otherwise: float) -> FloatArray:
    """A mesh whose NaN boxes take the value of the nearest valid one, `otherwise` if there is none."""
    empty = np.isnan(mesh)
    if empty.all():
        return np.full_like(mesh, otherwise)
    if empty.any():
        nearest = ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True)
        mesh = mesh[tuple(nearest)]
    return mesh


def _weights(length: int, boxes: int, extrapolated: bool) -> FloatArray:
    """Matrix (length, boxes) that interpolates linearly between box centres; beyond the last linear or constant."""
    size = -(-length // boxes)
    starts = np.minimum(np.arange(boxes) * size, length)
    centres = 0.5 * (starts + np.minimum(starts + size, length) - 1.0)
    weights = np.zeros((length, boxes))
    if boxes == 1:
        return weights + 1.0
    pixels = np.arange(length)
    left = np.clip(np.searchsorted(centres, pixels) - 1, 0, boxes - 2)
    share = (pixels - centres[left]) / np.maximum(centres[left + 1] - centres[left], 1.0)
    if not extrapolated:
        share = np.clip(share, 0.0, 1.0)
    weights[pixels, left] = 1.0 - share
    weights[pixels, left + 1] = share
    return weights


def spread_mesh(mesh: FloatArray, shape: tuple[int, int], extrapolated: bool) -> FloatArray:
    """A mesh of boxes interpolated bilinearly to a frame of the given shape.

    Args:
        mesh: values at the box centres.
        shape: (rows, columns) of the frame.
        extrapolated: go on linearly, instead of constant, in the outer halves of the outer boxes.
    """
    rows, columns = (_weights(n, boxes, extrapolated) for n, boxes in zip(shape, mesh.shape, strict=True))
    return np.asarray(rows @ mesh @ columns.T)


def local_scatter(values: FloatArray, side: int, otherwise: float) -> FloatArray:
    """Clipped scatter (H, W) of the values in boxes of about `side` px; `otherwise` where nothing is valid."""
    rows, shape = _boxes(values.astype(np.float32), side)  # sorted twice as fast
    scatter = clipped_statistics(rows)[1].reshape(shape)
    mesh = ndimage.median_filter(fill_mesh(scatter, otherwise), size=3, mode="nearest")
    return spread_mesh(mesh, (values.shape[0], values.shape[1]), extrapolated=False)


def estimate_background(
    frame: FloatArray,
    masked: BoolArray | None = None,
    noise_std: float | None = None,
    box_sides_px: tuple[int, ...] = BOX_SIDES_PX,
) -> Background:
    """Background and noise of a frame; point sources and small blobs are left in the frame.

    Args:
        frame: (H, W) in counts; NaN is left out.
        masked: (H, W) further pixels to leave out.
        noise_std: noise of a pixel in counts if it is known; None measures it.
        box_sides_px: sides of the mesh boxes in px, coarse to fine.

    Raises:
        InputError: if no pixel is valid or a box is not wider than 2 px.

    >>> flat = np.full((40, 40), 7.0)
    >>> flat[20, 20] = 90.0
    >>> float(estimate_background(flat).level[20, 20])
    7.0
    """
    if not box_sides_px or min(box_sides_px) < 3:
        raise InputError(f"box_sides_px must hold sides of at least 3 px, got {box_sides_px}")
    frame = check_frame(frame)
    residual = frame.copy()
    if masked is not None:
        residual[masked] = np.nan
    if np.isnan(residual).all():
        raise InputError(f"frame has no valid pixel: all {frame.size} are masked")
    level = np.zeros(frame.shape)
    for side in box_sides_px:
        rows, shape = _boxes(residual, side)
        values, scatter = (part.reshape(shape) for part in clipped_statistics(rows))
        mesh = fill_mesh(values, 0.0 if np.isfinite(values).any() else float(np.nanmedian(residual)))
        usual = ndimage.median_filter(mesh, size=3, mode="nearest")
        # Only boxes that stand out: the median would flatten a slope in the outer boxes.
        odd = np.abs(mesh - usual) > fill_mesh(scatter, 0.0)
        step = spread_mesh(np.where(odd, usual, mesh), (frame.shape[0], frame.shape[1]), extrapolated=True)
        level += step
        residual -= step
    lowest = noise_floor(frame)
    if noise_std is not None:
        noise = np.full(frame.shape, max(noise_std, lowest))
    else:
        noise = np.maximum(local_scatter(residual, box_sides_px[-1], lowest), lowest)
    return Background(level, noise)


def scatter_about_plane(values: FloatArray) -> float:
    """Robust standard deviation in counts about the plane that fits best; NaN is left out, and said of too few pixels.

    Args:
        values: (h, w) in counts.
    """
    rows, columns = np.nonzero(np.isfinite(values))
    if len(rows) < FEWEST_SCATTER_PIXELS:
        return float("nan")
    known = values[rows, columns]
    design = np.stack([np.ones(len(rows)), rows - rows.mean(), columns - columns.mean()], axis=1)
    plane = np.linalg.lstsq(design, known)[0]  # also where all of them lie in one row
    return float(1.4826 * np.median(np.abs(known - design @ plane)))


def noise_floor(frame: FloatArray) -> float:
    """Smallest noise of a pixel in counts that a frame can have: that of rounding if its values are whole numbers.

    Elsewhere a millionth of the range of its values, so that a constant patch is not infinitely significant.
    """
    if is_whole_numbered(frame):
        return float(np.sqrt(ROUNDING_VARIANCE))
    return max(1e-6 * float(np.nanmax(frame) - np.nanmin(frame)), 1e-12 * float(np.nanmax(np.abs(frame))), 1e-300)
