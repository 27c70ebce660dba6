"""The PSF of a frame whose sources are too wide to be measured pixel by pixel: on pixels put together.

In blocks of 2 x 2 or 4 x 4 pixels a wide source is a narrow one, and everything that holds for narrow ones does for it:
the filters that find it, the window that it is fitted in, what counts as a point (`csist.frames.psf.measure`).
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from csist._types import FloatArray
from csist.checks import InputError
from csist.frames.detection.peaks import Peaks
from csist.frames.detection.spots import Widths
from csist.frames.measured import FramePSF, FrameRules, MeasuredFrame, measure_frame
from csist.frames.psf.measure import psf_of_spots, spots_of
from csist.frames.psf_estimate import PSFEstimate
from csist.physics.psf import EllipticalGaussianPSF

logger = logging.getLogger(__name__)

BLOCKS = (2, 4)
"""Sides of the blocks in px, tried in this order."""
LEAST_SIDE = 24
"""Least side of a frame in blocks."""
NARROWEST_PX = 1.2
"""Least sigma in blocks: narrower sources show with smaller ones."""
LEAST_SOURCES = 3
"""Sources that must agree on a width."""
MEASURED_SHARE = 0.25
"""Share of the isolated peaks that must have a width of its own for a frame not to be looked at in blocks."""


def wide_psf(frame: MeasuredFrame, rules: FrameRules, peaks: Peaks, widths: Widths) -> FramePSF | None:
    """The PSF of a frame whose peaks are parts of wider sources; None where they are not or do not agree.

    Args:
        frame: the frame.
        rules: how it was measured.
        peaks: its peaks.
        widths: of the isolated ones among them.
    """
    if len(widths.sigmas_px) > MEASURED_SHARE * widths.tried:
        return None
    # Sources that show no peak at all are wider still; few blocks cost little.
    for side in BLOCKS if len(peaks) else BLOCKS[-1:]:
        if min(frame.image.shape) < LEAST_SIDE * side:
            return None
        image = in_blocks(np.where(frame.pixels.masked, np.nan, frame.image), side)
        if np.isnan(image).all():
            return None
        noise_std = None if rules.noise_std is None else rules.noise_std / side
        blocks = measure_frame(image, FrameRules(rules.ceiling, noise_std))
        try:
            estimate = psf_of_spots([spots_of(blocks)], LEAST_SOURCES)
        except InputError:
            continue
        if estimate.sigma_px >= NARROWEST_PX:
            found = _in_pixels(estimate, side)
            logger.info("PSF measured in blocks of %d px: sigma %.2f px", side, found.sigma_px)
            # A change of the width by a share changes the brightest pixel by twice that.
            error = max(found.psf_error, 2.0 * found.sigma_px_std / found.sigma_px)
            return FramePSF(found.psf, error, "measured", found)
    return None


def in_blocks(image: FloatArray, side: int) -> FloatArray:
    """Means of blocks of `side` x `side` pixels of an image (H, W), NaN left out; rows and columns over are dropped.

    >>> in_blocks(np.array([[1.0, 3.0, 9.0], [np.nan, 5.0, 9.0]]), 2).tolist()
    [[3.0]]
    """
    rows, columns = (n // side for n in image.shape)
    parts = image[: rows * side, : columns * side].reshape(rows, side, columns, side)
    valid = np.isfinite(parts)
    count = valid.sum(axis=(1, 3))
    total = np.where(valid, parts, 0.0).sum(axis=(1, 3))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _in_pixels(estimate: PSFEstimate, side: int) -> PSFEstimate:
    """An estimate in units of blocks in px."""
    ellipse = estimate.elliptical
    if ellipse is not None:
        ellipse = EllipticalGaussianPSF(side * ellipse.sigma_x_px, side * ellipse.sigma_y_px, ellipse.angle_deg)
    return replace(
        estimate,
        sigma_px=side * estimate.sigma_px,
        sigma_px_std=side * estimate.sigma_px_std,
        profile=estimate.profile * [side, side, side**-2],
        elliptical=ellipse,
    )
