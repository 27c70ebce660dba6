"""Peaks that point targets do not explain: an extended source, a cloud's edge.

Each peak with a valley around it is reported as one target with the centroid and the flux of its surroundings, the flag
POOR_FIT and no error bars.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from csist._types import FloatArray, IntArray
from csist.frames.detection.peaks import Peaks, keep_strongest
from csist.frames.grouping import link, ridges
from csist.frames.measured import FramePSF, MeasuredFrame
from csist.targets import Flag, Targets

SEPARATE_PX = 4.0
"""Peaks closer than this, or than `SEPARATE_SIGMAS`, are one source where point targets do not explain a blob."""
SEPARATE_SIGMAS = 3.0
EXTENDED_PX = 12.0
"""Peaks within this distance and without a valley between them belong to one extended source."""


def separation_px(psf: FramePSF) -> float:
    """Smallest distance of two sources that point targets do not explain."""
    return max(SEPARATE_PX, SEPARATE_SIGMAS * psf.sigma_px)


def peaks_as_targets(
    frame: MeasuredFrame, psf: FramePSF, peaks: Peaks, window: tuple[slice, slice], bits: IntArray
) -> Targets:
    """One target per extended source among some peaks; its score is the peak's.

    Args:
        frame: the frame.
        psf: its PSF.
        peaks: (m,) peaks, most significant first.
        window: rows and columns around them.
        bits: (m,) bits of `Flag` of the peaks, which all targets get.
    """
    rows, columns = window
    data = np.nan_to_num(frame.flattened[window], nan=0.0)
    inside = replace(peaks, x=peaks.x - columns.start, y=peaks.y - rows.start)
    sources = link(inside.positions, 0.0, ridges(inside.positions, data, EXTENDED_PX))
    strongest = np.unique(sources, return_index=True)[1]
    kept = keep_strongest(inside[np.sort(strongest)], separation_px(psf))
    x, y, flux = _measure_bodies(data, kept, psf.footprint_px)
    flags = int(Flag.POOR_FIT) | int(np.bitwise_or.reduce(bits))
    return Targets(
        x=x + columns.start,
        y=y + rows.start,
        intensity=flux,
        score=kept.score,
        flags=np.full(len(kept), flags),
    )


def _measure_bodies(data: FloatArray, peaks: Peaks, footprint_px: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Centroid x, y and flux (m,) of the light above half of each peak's height.

    Args:
        data: (h, w) background-subtracted counts.
        peaks: in the coordinates of `data`; each pixel belongs to the nearest one.
        footprint_px: radius within which a peak's height is looked for.
    """
    grid = np.indices(data.shape)
    i, j = grid[0], grid[1]
    x, y, flux = peaks.x.copy(), peaks.y.copy(), np.zeros(len(peaks))
    nearest = KDTree(peaks.positions).query(np.stack([j.ravel(), i.ravel()], axis=1))[1].reshape(data.shape)
    for k, (column, row) in enumerate(np.rint(peaks.positions).astype(int)):
        mine = np.where(nearest == k, data, 0.0)
        footprint = np.hypot(j - column, i - row) <= footprint_px
        top = mine[footprint].max()
        bright = np.zeros(data.shape, dtype=np.int64)
        ndimage.label(mine > 0.5 * top, output=bright)
        label = bright[row, column]
        body = (bright == label) & (bright > 0) if label else footprint & (bright > 0)
        if top > 0.0 and body.any():
            weight = mine[body] - 0.5 * top
            x[k], y[k] = (weight * j[body]).sum() / weight.sum(), (weight * i[body]).sum() / weight.sum()
        flux[k] = mine[ndimage.binary_dilation(body, iterations=2) | footprint].sum()
    return x, y, flux
