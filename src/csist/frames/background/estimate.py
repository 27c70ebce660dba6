"""Background level and noise of a whole frame, estimated so that point sources stay in the frame.

The background is found on meshes of ever smaller boxes. A box is summarised by a clipped median, or, where
bright sources skew it, by the mode estimate 2.5 median - 1.5 mean of crowded-field photometry (Bertin & Arnouts,
A&AS 117, 393, 1996, section 3); the 3 x 3 median of the mesh replaces boxes that a source fills. The noise is the
robust scatter about the background in the boxes of the finest mesh, so it contains the fine texture of clutter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from csist._types import BoolArray, FloatArray
from csist.checks import InputError
from csist.frames.background.line_offsets import line_offsets
from csist.frames.background.meshes import SmoothMesh, fill_mesh, smooth_mesh, spread_mesh
from csist.frames.background.slopes import slope_of
from csist.frames.kernels import FEWEST_ON_PLANE, add_products, clip_sorted, plane_scatter
from csist.frames.masks.mask import check_frame, is_whole_numbered
from csist.physics.psf import PSF, equivalent_sigma
from csist.physics.sensor import ROUNDING_VARIANCE

BOX_SIDES_PX = (128, 32)
"""Sides of the boxes of the meshes, coarse to fine; the finest is 10 to 20 times as wide as a usual PSF."""
FINEST_BOX_SIGMAS = 20.0
"""Least side of the finest boxes in units of the PSF's sigma, where the PSF is known."""
FEWEST_SLOPED = 3
"""Boxes along an axis by which the background may slope along it; of fewer, a plane is subtracted first."""
COARSER = 4
"""Side of the coarse boxes in units of that of the finest ones."""

CLIP_SIGMAS = 3.0
CLIP_ROUNDS = 8
SKEW_LIMIT = 0.3
"""(mean - median) / scatter above which a box is too crowded even for the mode estimate: its median is used."""

MOST_BOX_PIXELS = 2048
"""Pixels of a box that are sampled; its level is then known to a thirtieth of the noise."""

FLOOR_SAMPLES = 20_000
"""Pixels of a frame that are sampled for its smallest possible noise."""

PLANE_ROUNDS = 4
PLANE_CLIP = 5.0


class BackgroundSource(Protocol):
    """What a background can be drawn from."""

    def spread(self) -> Background:
        """Level and noise of each pixel."""

    def compact(self) -> BackgroundSource:
        """The same in little memory."""


@dataclass(frozen=True, eq=False)
class BackgroundMesh:
    """Background and noise as the values of the boxes, which take little memory.

    Args:
        shape: (rows, columns) of the frame.
        levels: one mesh per box size in counts, coarse to fine; the background is the sum of all.
        noise: (r, c) standard deviation of a pixel in counts.
        noise_floor: smallest noise in counts, > 0.
        offsets: (r,) of the rows and (c,) of the columns in counts, which are added; None for none.
    """

    shape: tuple[int, int]
    levels: tuple[SmoothMesh, ...]
    noise: FloatArray
    noise_floor: float
    offsets: tuple[FloatArray, FloatArray] | None = None

    def spread(self) -> Background:
        """Level and noise of each pixel."""
        down, across = zip(*(mesh.factors(self.shape) for mesh in self.levels), strict=True)
        level = np.zeros(self.shape) if self.offsets is None else np.add.outer(*self.offsets)
        add_products(level, np.concatenate(down, axis=1), np.concatenate(across))
        noise = spread_mesh(self.noise, self.shape)
        if self.noise.min() < self.noise_floor:
            np.maximum(noise, self.noise_floor, out=noise)
        return Background(level, noise, self)

    def compact(self) -> BackgroundSource:
        """The boxes themselves."""
        return self


@dataclass(frozen=True, eq=False)
class Background:
    """Background and noise of a frame.

    Args:
        level: (H, W) in counts.
        noise: (H, W) standard deviation of a pixel in counts, > 0.
        mesh: the boxes that both were spread from; None if they do not come from boxes.
    """

    level: FloatArray
    noise: FloatArray
    mesh: BackgroundMesh | None = field(default=None, repr=False)

    def floor_of(self, frame: FloatArray) -> float:
        """Smallest possible noise of a pixel of the frame (H, W), in counts."""
        return noise_floor(frame) if self.mesh is None else self.mesh.noise_floor

    def spread(self) -> Background:
        """The background itself, as `BackgroundMesh.spread`."""
        return self

    def compact(self) -> BackgroundSource:
        """The boxes if there are any, else the background itself."""
        return self if self.mesh is None else self.mesh


def _boxes(values: NDArray[np.floating], side: int) -> tuple[NDArray[np.floating], tuple[int, int]]:
    """Values as rows, one for each box of about `side` px, NaN-padded; and the number of boxes (rows, columns).

    Boxes with more than `MOST_BOX_PIXELS` are subsampled: every second, third, ... row and column.

    Args:
        values: (H, W).
        side: in px.
    """
    shape = tuple(max(1, round(n / side)) for n in values.shape)
    size = tuple(-(-n // boxes) for n, boxes in zip(values.shape, shape, strict=True))
    padded = np.full([boxes * s for boxes, s in zip(shape, size, strict=True)], np.nan, values.dtype)
    padded[: values.shape[0], : values.shape[1]] = values
    step = int(np.ceil((size[0] * size[1] / MOST_BOX_PIXELS) ** 0.5))
    rows = padded.reshape(shape[0], size[0], shape[1], size[1])[:, ::step, :, ::step].swapaxes(1, 2)
    return rows.reshape(shape[0] * shape[1], -1), (shape[0], shape[1])


def clipped_statistics(rows: NDArray[np.floating], step: float) -> tuple[FloatArray, FloatArray]:
    """Background level and scatter of each row, NaN where a row has fewer than 5 valid values.

    Args:
        rows: (n, m), NaN is left out.
        step: between the values of whole numbers; 0 for others.
    """
    values = np.sort(rows, axis=1)  # NaN goes to the end
    counts = np.isfinite(values).sum(axis=1)
    enough = counts >= 5
    median, scatter, mean = clip_sorted(values, np.maximum(counts, 1), CLIP_SIGMAS, CLIP_ROUNDS, step).T
    skewed = np.abs(mean - median) > SKEW_LIMIT * scatter
    level = np.where(skewed, median, 2.5 * median - 1.5 * mean)
    return np.where(enough, level, np.nan), np.where(enough, scatter, np.nan)


def scatter_mesh(values: NDArray[np.floating], side: int, otherwise: float, step: float = 0.0) -> FloatArray:
    """Clipped scatter (r, c) of the values (H, W) in boxes of about `side` px; `otherwise` where nothing is valid.

    Of whole numbers, `step` is what they differ by.
    """
    rows, shape = _boxes(values.astype(np.float32, copy=False), side)  # sorted twice as fast
    scatter = clipped_statistics(rows, step)[1].reshape(shape)
    return np.asarray(ndimage.median_filter(fill_mesh(scatter, otherwise), size=3, mode="nearest"))


def local_scatter(values: FloatArray, side: int, otherwise: float) -> FloatArray:
    """Clipped scatter (H, W) of the values in boxes of about `side` px; `otherwise` where nothing is valid."""
    mesh = scatter_mesh(values, side, otherwise)
    return spread_mesh(mesh, (values.shape[0], values.shape[1]))


def box_sides(psf: PSF | None) -> tuple[int, int]:
    """Sides in px of the boxes of the background, coarse to fine: `BOX_SIDES_PX`, wider for a wide PSF."""
    finest = BOX_SIDES_PX[-1]
    if psf is not None:
        finest = max(finest, int(np.ceil(FINEST_BOX_SIGMAS * equivalent_sigma(psf))))
    return COARSER * finest, finest


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
    shape = (frame.shape[0], frame.shape[1])
    masked = None if masked is None or not masked.any() else masked
    whole_numbered = is_whole_numbered(frame)
    usual, unit, lowest = _usual_level(frame, masked, whole_numbered)
    step = float(whole_numbered) / unit
    with np.errstate(over="ignore"):
        residual = np.divide(frame - usual, unit, out=np.empty(shape, np.float32), casting="same_kind")
    if masked is not None:
        residual[masked] = np.nan
    levels: list[SmoothMesh] = []
    offsets = line_offsets(residual)
    if offsets is not None:
        residual -= offsets[0][:, None].astype(np.float32)
        residual -= offsets[1].astype(np.float32)
        offsets = unit * offsets[0], unit * offsets[1]

    def subtract(mesh: SmoothMesh) -> None:
        down, across = (part.astype(np.float32) for part in mesh.factors(shape))
        add_products(residual, -down, across)
        levels.append(mesh.in_counts(unit, 0.0 if levels else usual))

    if min(shape) < (FEWEST_SLOPED - 0.5) * box_sides_px[-1] and (plane := slope_of(residual)) is not None:
        subtract(plane)
    for side in box_sides_px:
        subtract(_level_mesh(residual, side, step))
    if noise_std is not None:
        noise = np.full((1, 1), max(noise_std, lowest))
    else:
        noise = unit * scatter_mesh(residual, box_sides_px[-1], lowest / unit, step)
    return BackgroundMesh(shape, tuple(levels), noise, lowest, offsets).spread()


def _usual_level(frame: FloatArray, masked: BoolArray | None, whole_numbered: bool) -> tuple[float, float, float]:
    """Median of a frame (H, W) in counts, the usual difference from it, and the noise floor.

    In these units single precision holds a frame of any level and scale. For whole numbers the unit is a power of two,
    so that they stay what they are.

    Raises:
        InputError: if no pixel is valid.
    """
    level, usual = _level_and_difference(frame, masked)
    if np.isnan(level):
        raise InputError(f"frame has no valid pixel: all {frame.size} are masked")
    floor = _floor(whole_numbered, level, usual)
    if usual > 0.0 and whole_numbered:
        usual = float(2.0 ** np.round(np.log2(usual)))
    return level, usual or 1.0, floor


def _level_mesh(residual: NDArray[np.floating], side: int, step: float) -> SmoothMesh:
    """Level of the boxes of about `side` px of a frame (H, W), NaN where masked; see `_boxes`."""
    rows, shape = _boxes(residual, side)
    values, scatter = (part.reshape(shape) for part in clipped_statistics(rows, step))
    mesh = fill_mesh(values, 0.0 if np.isfinite(values).any() else float(np.nanmedian(residual)))
    return smooth_mesh(mesh, (residual.shape[0], residual.shape[1]), fill_mesh(scatter, 0.0))


def scatter_about_plane(values: FloatArray, step: float = 0.0) -> float:
    """Robust standard deviation in counts about the best-fitting plane; NaN pixels are left out, too few give NaN.

    Args:
        values: (h, w) in counts.
        step: between the values that a pixel can have, in counts; 0 if they are no whole numbers.
    """
    rows, columns = np.nonzero(np.isfinite(values))
    if len(rows) < FEWEST_ON_PLANE:
        return float("nan")
    places = rows.astype(np.float64), columns.astype(np.float64)
    return plane_scatter(*places, values[rows, columns], PLANE_ROUNDS, PLANE_CLIP, step)


def noise_floor(frame: FloatArray) -> float:
    """Smallest possible noise of a pixel in counts: the rounding noise if all values are whole numbers.

    Otherwise a millionth of the usual difference from the median, so that a constant patch is not infinitely
    significant; a few extreme pixels do not change it.
    """
    return _floor(is_whole_numbered(frame), *_level_and_difference(frame, None))


def _floor(whole_numbered: bool, level: float, usual: float) -> float:
    """The noise floor, from the median of a frame and the usual difference from it."""
    if whole_numbered:
        return float(np.sqrt(ROUNDING_VARIANCE))
    return max(1e-6 * usual, 1e-12 * abs(level), 1e-300)


def _level_and_difference(frame: FloatArray, masked: BoolArray | None) -> tuple[float, float]:
    """Median of a frame (H, W) and of the differences from it that are not 0; NaN without a valid pixel."""
    for step in (max(1, frame.size // FLOOR_SAMPLES), 1):
        values = frame.ravel()[::step]
        valid = np.isfinite(values)
        if masked is not None:
            valid &= ~masked.ravel()[::step]
        if valid.any():
            values = values if valid.all() else values[valid]
            level = float(np.median(values))
            apart = np.abs(values - level)
            apart = apart[apart > 0.0]
            return level, float(np.median(apart)) if apart.size else 0.0
    return float("nan"), 0.0
