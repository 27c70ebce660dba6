"""Why a frame has no targets, in one line for its user."""

from __future__ import annotations

from csist._types import FloatArray
from csist.frames.masks.mask import PixelMask
from csist.frames.measured import FramePSF
from csist.words import counted

FEWEST_VALID_SHARE = 0.1
"""Share of the pixels that must be usable for a frame without targets to count as empty sky."""


def reason_for_nothing(image: FloatArray, pixels: PixelMask, psf: FramePSF, threshold: float, blobs: int) -> str:
    """The reason why no target was found, the first that applies.

    Args:
        image: (H, W) in counts.
        pixels: which pixels of it are usable.
        psf: that was used.
        threshold: significance in standard deviations that a peak must have.
        blobs: number of blobs that were fitted.

    >>> import numpy as np
    >>> from csist.physics.psf import GaussianPSF
    >>> pixels, psf = PixelMask(np.zeros((9, 9), np.uint8), np.inf), FramePSF(GaussianPSF(1.0), 0.0, "given")
    >>> reason_for_nothing(np.full((9, 9), 7.0), pixels, psf, 5.0, 0)
    'all 81 usable pixels have the same value, 7'
    """
    usable = image[~pixels.masked]
    if pixels.saturated.sum() == usable.size:
        return f"all {usable.size} usable pixels are at the ceiling of {pixels.ceiling:.6g} counts"
    if usable.min() == usable.max():
        return f"all {usable.size} usable pixels have the same value, {usable[0]:.6g}"
    if usable.size < FEWEST_VALID_SHARE * image.size:
        return f"only {usable.size} of {image.size} pixels are usable"
    rows, columns = image.shape
    if min(rows, columns) < 2.0 * psf.footprint_px:
        return f"a frame of {columns} x {rows} px is smaller than the PSF (sigma {psf.sigma_px:.3g} px)"
    if blobs:
        return f"{counted(blobs, 'peak')} above the threshold, more probably noise than targets"
    return f"no peak above the threshold of {threshold:.3g} standard deviations"
