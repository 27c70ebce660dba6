"""An elongated PSF of a frame whose PSF was not stated, from its own sources.

A single elongated source may be a pair; several that are elongated alike are not. Where they agree, every source would
otherwise be split into points along the same axis.
"""

from __future__ import annotations

import logging

from csist.checks import InputError
from csist.frames.detection.peaks import Peaks
from csist.frames.measured import FramePSF, MeasuredFrame
from csist.frames.psf.measure import LEAST_SOURCES, psf_of_spots, spots_of

logger = logging.getLogger(__name__)


def elongated_psf(frame: MeasuredFrame, peaks: Peaks, error: float | None) -> FramePSF | None:
    """The elliptical Gaussian that a frame's isolated sources agree on; None where they do not.

    Args:
        frame: the frame.
        peaks: its peaks.
        error: of the PSF, as a share of the light in a window's brightest pixel; None: from the scatter of the sources.
    """
    if len(peaks) < LEAST_SOURCES:
        return None
    try:
        found = psf_of_spots([spots_of(frame, peaks)])
    except InputError:
        return None
    if found.elliptical is None:
        return None
    logger.info("PSF elongated: %s, %d sources", found.elliptical, found.sources)
    # A change of the width by a share changes the brightest pixel by twice that.
    least = max(found.psf_error, 2.0 * found.sigma_px_std / found.sigma_px)
    return FramePSF(found.psf, least if error is None else error, "measured", found)
