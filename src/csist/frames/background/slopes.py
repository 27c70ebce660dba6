"""The slope of a background in a frame that is too small for boxes to show it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from csist._types import FloatArray
from csist.frames.background.meshes import SmoothMesh, places_along

FEWEST_PIXELS = 40
MOST_PIXELS = 10_000
"""Pixels that are looked at."""
ROUNDS = 12
BELOW_SIGMAS, ABOVE_SIGMAS = 4.0, 2.5
"""Deviations from the plane, in its scatter, from which a pixel is left out of it: the light of sources lies above."""
WINGS_PX = 1
"""Distance from bright pixels up to which others are left out with them."""
LEAST_DARK = 0.3
"""Share of the pixels that a plane must explain."""
SIGNIFICANT = 6.0
"""Slope in its standard errors from which there is one."""


def slope_of(values: NDArray[np.floating]) -> SmoothMesh | None:
    """The plane below the sources of a frame, of level 0; None where it has no slope.

    Args:
        values: (H, W) in counts, about 0, NaN where masked.
    """
    step = int(np.ceil((values.size / MOST_PIXELS) ** 0.5))
    part = values[::step, ::step]
    rows, columns = np.nonzero(np.isfinite(part))
    light = part[rows, columns].astype(np.float64)
    y, x = (places_along(step * place, length) for place, length in zip((rows, columns), values.shape, strict=True))
    design = np.stack([np.ones(len(light)), x, y], axis=1)
    if len(light) < FEWEST_PIXELS or np.linalg.matrix_rank(design) < 3:
        return None
    plane, kept = _start(part), np.zeros(len(light), dtype=bool)
    for _ in range(ROUNDS):
        rest = light - design @ plane
        rest -= np.median(rest)
        scatter = 1.4826 * float(np.median(-rest[rest <= 0.0]))
        bright = np.zeros(part.shape, dtype=bool)
        bright[rows, columns] = rest > ABOVE_SIGMAS * scatter
        # Their wings are below the noise of a pixel, and together tilt the plane.
        lit = ndimage.binary_dilation(bright, iterations=WINGS_PX)[rows, columns]
        before, kept = kept, (rest >= -BELOW_SIGMAS * scatter) & ~lit
        if kept.sum() < max(FEWEST_PIXELS, LEAST_DARK * len(light)):
            return None
        if (kept == before).all():
            break
        plane = np.asarray(np.linalg.lstsq(design[kept], light[kept], rcond=None)[0], dtype=np.float64)
    inverse = np.linalg.inv(design[kept].T @ design[kept])
    errors = np.sqrt(np.diag(inverse)) * float((light[kept] - design[kept] @ plane).std())
    if not (np.abs(plane) > SIGNIFICANT * errors)[1:].any():
        return None
    return SmoothMesh(np.array([0.0, plane[1], plane[2], 0.0, 0.0, 0.0]), np.zeros((1, 1)))


def _start(part: NDArray[np.floating]) -> FloatArray:
    """A first plane (3,), by the median differences of pixels that are half a frame apart."""
    slopes = []
    for lines in (part.T, part):
        half = len(lines) // 2
        apart = lines[half:] - lines[: len(lines) - half]
        apart = apart[np.isfinite(apart)]
        slopes.append(float(np.median(apart)) * 0.5 * max(len(lines) - 1, 1) / max(half, 1) if apart.size else 0.0)
    return np.array([0.0, *slopes])
