"""Likeness of a spot's surroundings to point sources of a known PSF, alone or a few close together.

A spot in clutter may lead over all that is around it and yet be a knee of a wire or a leaf. Where the PSF is known, a
target is told from these by its shape. One point source is compared with the pixels by their correlation
(`csist.frames.detection.point_sources.shape_correlation`), which a second source close by lowers. So up to three are
fitted here, one after the other as in orthogonal matching pursuit (Pati, Rezaiifar and Krishnaprasad, Asilomar
Conference 27, 40, 1993), beside a curved background. The share of the scatter that they explain, corrected for the
number of their parameters, is the square of a multiple correlation.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from csist._types import FloatArray, IntArray
from csist.frames.medians import surroundings
from csist.physics.psf import PSF, equivalent_sigma

MOST_SOURCES = 3
PARAMETERS = 3
"""Of a source: position and flux."""
STEP_PX, STEP_SIGMAS = 0.5, 0.4
"""Of the grid of positions, the larger one of both."""
FIRST_STEPS = 3.0
"""Largest distance of the first source from the spot."""
APART_STEPS = 1.2
"""Least distance of two sources."""
LARGEST = 0.9995
"""Largest square of a correlation, so that its transform stays finite."""


def transformed(correlation: FloatArray) -> FloatArray:
    """Fisher's transform (n,) of correlations (n,), finite at 1, whose scatter does not depend on their value."""
    largest = LARGEST**0.5
    return np.asarray(np.arctanh(np.clip(correlation, -largest, largest)))


def likeness_to_sources(flattened: NDArray[np.floating], rows: IntArray, columns: IntArray, psf: PSF) -> FloatArray:
    """Multiple correlation (n,), from 0 to 1, of pixels' surroundings with one to three point sources.

    Args:
        flattened: (H, W) background-subtracted counts.
        rows: (n,) of the spots.
        columns: (n,) of the spots.
        psf: point spread function; of one that varies over the frame, the mean counts.
    """
    fit = _fit_of(psf)
    windows = np.nan_to_num(surroundings(flattened, rows, columns, fit.reach).astype(np.float64))
    return _multiple_correlation(windows.reshape(len(rows), (2 * fit.reach + 1) ** 2), fit)


class _Fit(NamedTuple):
    """What is fitted to a window of side 2 reach + 1.

    Args:
        reach: in px.
        curved: (pixels, 6) orthonormal polynomials of second degree, the background.
        templates: (sources, pixels) of unit length, orthogonal to the background.
        products: (sources, sources) of the templates.
        first: (sources,) positions at which the first source may lie.
        close: (sources, sources) positions too close for two sources.
    """

    reach: int
    curved: FloatArray
    templates: FloatArray
    products: FloatArray
    first: NDArray[np.bool_]
    close: NDArray[np.bool_]


@lru_cache(maxsize=32)
def _fit_of(psf: PSF) -> _Fit:
    sigma_px = equivalent_sigma(psf)
    reach = int(np.ceil(3.0 * sigma_px + 1.5))
    along = np.arange(-reach, reach + 1, dtype=float)
    y, x = (each.ravel() for each in np.meshgrid(along, along, indexing="ij"))
    curved = np.linalg.qr(np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1))[0]
    farthest = min(reach - 1.0, np.ceil(2.5 + sigma_px))
    step = max(STEP_PX, STEP_SIGMAS * sigma_px)
    grid = step * np.arange(-(farthest // step), farthest // step + 1.0)
    places = np.stack([each.ravel() for each in np.meshgrid(grid, grid)], axis=1)
    templates = psf.response(x - places[:, :1], y - places[:, 1:])
    templates = templates - (templates @ curved) @ curved.T
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    close = np.hypot(*(places[:, None] - places).T) < APART_STEPS * step
    first = np.hypot(*places.T) <= FIRST_STEPS * step
    return _Fit(reach, curved, templates, templates @ templates.T, first, close)


def _multiple_correlation(windows: FloatArray, fit: _Fit) -> FloatArray:
    """The same (n,) of windows (n, pixels)."""
    windows = windows - (windows @ fit.curved) @ fit.curved.T
    power = np.maximum((windows**2).sum(axis=1), 1e-300)
    match = windows @ fit.templates.T
    free = fit.templates.shape[1] - fit.curved.shape[1]
    every = np.arange(len(windows))
    allowed, closed = np.broadcast_to(fit.first, match.shape), np.zeros(match.shape, dtype=bool)
    chosen = np.empty((len(windows), 0), dtype=np.int64)
    best, left, running = np.zeros(len(windows)), match, np.ones(len(windows), dtype=bool)
    for number in range(1, MOST_SOURCES + 1):
        next_one = np.where(allowed, left, -np.inf).argmax(axis=1)
        chosen = np.concatenate([chosen, next_one[:, None]], axis=1)
        products = fit.products[chosen[:, :, None], chosen[:, None, :]]
        target = match[every[:, None], chosen]
        light = np.linalg.solve(products, target[:, :, None])[:, :, 0]
        # A source with negative light is none, and neither is what would come after it.
        running &= (light > 0.0).all(axis=1)
        unexplained = 1.0 - (light * target).sum(axis=1) / power
        square = 1.0 - unexplained * free / (free - PARAMETERS * number)
        best = np.where(running, np.maximum(best, square), best)
        if number < MOST_SOURCES:
            left = match - np.einsum("nk,nkt->nt", light, fit.products[chosen])
            closed |= fit.close[next_one]
            allowed = ~closed
    return np.sqrt(np.clip(best, 0.0, 1.0))
