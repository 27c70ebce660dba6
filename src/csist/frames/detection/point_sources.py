"""Whether a frame's strong spots are point sources: then they are no clutter, however many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from csist._types import BoolArray, FloatArray, IntArray
from csist.frames.detection.peaks import Peaks, find_peaks, keep_strongest
from csist.frames.detection.responses import Response
from csist.frames.detection.spots import typical_sigma
from csist.frames.kernels import raise_to_noise
from csist.frames.medians import surroundings
from csist.physics.psf import GaussianPSF

SPOT_SIGMAS = 10.0
"""Significance against the noise alone from which a spot's shape is examined."""
SPOTS_APART_PX = 3.0
"""Weaker spots closer than this to another one are parts of it."""
POINT_CORRELATION = 0.8
"""Correlation with the PSF from which a spot looks like a point source."""
GROUPED_CORRELATION = 0.6
"""The same of a spot that has others close by, whose light lowers the correlation."""
LEAST_AMPLITUDE = 3.0
"""Least amplitude of a spot in units of the noise, for its correlation without the noise to mean anything."""
POINT_SHARE = 0.5
"""Share of the strongest spots that must look like point sources, for the frame to be taken as a field of them."""
BRIGHT_SIGMAS = 300.0
"""Significance from which a source's light is spread farther by the filters than its own disc."""
WIDEST_RESPONSE = 2.2
"""Width of the widest filter in units of the PSF's sigma, about."""
MOST_JUDGED_SPOTS = 200
"""Strongest spots that this share is taken of."""


class PointSources(NamedTuple):
    """Spots that look like point sources.

    Args:
        pixels: (H, W) that hold their light.
        number: of them.
        sigma_px: of the PSF, or their typical one.
    """

    pixels: BoolArray
    number: int
    sigma_px: float


def shape_correlation(
    flattened: NDArray[np.floating],
    rows: IntArray,
    columns: IntArray,
    sigma_px: float,
    noise: FloatArray | None = None,
) -> FloatArray:
    """Correlation (n,), from -1 to 1, of pixels' surroundings with a Gaussian spot on an unknown constant.

    The highest value of the pixel and its eight neighbours within the frame. With the noise (H, W) of each pixel, the
    power that it adds is left out, so that a faint spot is as alike as a bright one; what is no more than noise is not
    alike at all.
    """
    reach = int(np.ceil(2.5 * sigma_px))
    offsets = np.arange(-reach, reach + 1)
    disc = np.hypot(offsets[None, :], offsets[:, None]) <= reach + 0.3
    template = GaussianPSF(sigma_px).response(offsets[None, :], offsets[:, None])[disc]
    template = template - template.mean()
    template /= np.sqrt((template**2).sum())
    around = surroundings(flattened, rows, columns, reach + 1).astype(np.float64)
    windows, every = sliding_window_view(around, disc.shape, axis=(1, 2)), np.arange(len(rows))
    best = np.full(len(rows), -1.0)
    for down, right in ((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)):
        row = np.clip(rows + down, 0, flattened.shape[0] - 1) - rows + 1
        column = np.clip(columns + right, 0, flattened.shape[1] - 1) - columns + 1
        values = windows[every, row, column][:, disc]
        values = values - values.mean(axis=1, keepdims=True)
        amplitude, power = values @ template, (values**2).sum(axis=1)
        if noise is not None:
            own = noise[rows, columns]
            power = np.maximum(power - (disc.sum() - 2) * own**2, amplitude**2)
            amplitude = np.where(amplitude >= LEAST_AMPLITUDE * own, amplitude, 0.0)
        np.maximum(best, amplitude / np.sqrt(np.maximum(power, 1e-300)), out=best)
    return best


def spots_above(sigmas: float, noise: FloatArray, responses: Sequence[Response]) -> Peaks:
    """Spots that stand out of the noise alone, strongest first.

    Args:
        sigmas: significance that they have at least.
        noise: (H, W) standard deviation of a pixel in counts.
        responses: of the Laplacians of Gaussian to the background-subtracted frame.
    """
    significance = np.full(noise.shape, -np.inf, dtype=np.float32)
    for values, gain in responses:
        raise_to_noise(significance, values, gain, noise)
    return keep_strongest(find_peaks(significance, sigmas), SPOTS_APART_PX)


def point_sources(
    flattened: NDArray[np.floating], noise: FloatArray, spots: Peaks, sigma_px: float | None
) -> PointSources | None:
    """The spots that look like point sources, if most of them do; else None.

    Args:
        flattened: (H, W) background-subtracted counts, 0 where masked.
        noise: (H, W) standard deviation of a pixel in counts.
        spots: the frame's strong ones, strongest first.
        sigma_px: of the PSF; None takes the typical sigma of the strongest spots.
    """
    if not len(spots):
        return None
    if sigma_px is None:
        sigma_px = typical_sigma(flattened, spots, noise)
    rows, columns = np.rint(spots.y).astype(int), np.rint(spots.x).astype(int)
    point_like = shape_correlation(flattened, rows, columns, sigma_px) >= POINT_CORRELATION
    if point_like[:MOST_JUDGED_SPOTS].mean() < POINT_SHARE:
        return None
    mask = _discs(flattened.shape, rows[point_like], columns[point_like], 3.0 * sigma_px + 1.0)
    mask |= light_of(flattened.shape, spots[point_like & (spots.significance > BRIGHT_SIGMAS)], sigma_px)
    return PointSources(mask, int(point_like.sum()), sigma_px)


def faint_sources(
    flattened: NDArray[np.floating], noise: FloatArray, spots: Peaks, sigma_px: float | None
) -> PointSources | None:
    """The spots that look like point sources, faint ones too, with all pixels that the filters see their light in.

    None if most spots look like something else.

    Args:
        flattened: (H, W) background-subtracted counts, 0 where masked.
        noise: (H, W) standard deviation of a pixel in counts.
        spots: all that stand out of the noise, strongest first.
        sigma_px: of the PSF; None takes the typical sigma of the strongest spots.
    """
    if not len(spots):
        return None
    sigma_px = typical_sigma(flattened, spots, noise) if sigma_px is None else sigma_px
    rows, columns = np.rint(spots.y).astype(int), np.rint(spots.x).astype(int)
    likeness = shape_correlation(flattened, rows, columns, sigma_px, noise)
    if (likeness >= POINT_CORRELATION).mean() < POINT_SHARE:
        return None
    found = likeness >= GROUPED_CORRELATION
    return PointSources(light_of(flattened.shape, spots[found], sigma_px), int(found.sum()), sigma_px)


def light_of(shape: tuple[int, ...], spots: Peaks, sigma_px: float) -> BoolArray:
    """Pixels (H, W) that the filters see the light of some spots in."""
    light = np.zeros(shape, dtype=bool)
    rows, columns = np.rint(spots.y).astype(int), np.rint(spots.x).astype(int)
    for row, column, significance in zip(rows.tolist(), columns.tolist(), spots.significance.tolist(), strict=True):
        radius = _spread_radius(sigma_px, significance)
        reach = int(radius)
        part = np.s_[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1]
        inside = light[part]
        down, right = np.ogrid[: inside.shape[0], : inside.shape[1]]
        inside |= np.hypot(down + part[0].start - row, right + part[1].start - column) <= radius
    return light


def _spread_radius(sigma_px: float, significance: float) -> float:
    """Radius in px within which the filters spread the light of a source of some significance."""
    spread = float(np.hypot(sigma_px, WIDEST_RESPONSE * sigma_px))
    return spread * float(np.sqrt(2.0 * np.log(significance))) + 1.0


def _discs(shape: tuple[int, ...], rows: IntArray, columns: IntArray, radius_px: float) -> BoolArray:
    """Pixels (H, W) within a radius of the given positions."""
    reach = np.arange(-int(radius_px), int(radius_px) + 1)
    down, right = (reach[v] for v in np.nonzero(np.hypot(reach[:, None], reach) <= radius_px))
    i, j = rows[:, None] + down, columns[:, None] + right
    inside = (i >= 0) & (i < shape[0]) & (j >= 0) & (j < shape[1])
    mask = np.zeros(shape, dtype=bool)
    mask[i[inside], j[inside]] = True
    return mask
