"""Positions that the user names as a start: each becomes a peak, so that a window is cut around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import KDTree

from csist.frames.detection.matched import matched_map
from csist.frames.detection.peaks import Peaks

if TYPE_CHECKING:
    from csist.frames.measured import FramePSF, MeasuredFrame

NEAR_SIGMAS = 1.0
"""A named position closer than this to a peak, in the PSF's sigma, belongs to it."""
LEAST_SIGNIFICANCE = 1e-3


def with_named(peaks: Peaks, frame: MeasuredFrame, psf: FramePSF, positions: tuple[tuple[float, float], ...]) -> Peaks:
    """The peaks of a frame with the named positions that have no peak, significant as the matched filter says there.

    Args:
        peaks: of the frame.
        frame: the frame.
        psf: its PSF.
        positions: x and y in px; those outside the frame are left out.
    """
    height, width = frame.image.shape
    named = np.array([(x, y) for x, y in positions if -0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5])
    if not len(named):
        return peaks
    if len(peaks):
        distance, _ = KDTree(peaks.positions).query(named)
        named = named[np.asarray(distance > NEAR_SIGMAS * psf.sigma_px)]
    z = matched_map(frame.image, frame.background, psf.psf, frame.pixels.masked)
    columns, rows = (np.rint(place).astype(np.int64) for place in named.reshape(-1, 2).T)
    significance = np.maximum(z[rows, columns], LEAST_SIGNIFICANCE)
    return peaks.merged(Peaks(named[:, 0], named[:, 1], significance, np.ones(len(named))) if len(named) else peaks[:0])
