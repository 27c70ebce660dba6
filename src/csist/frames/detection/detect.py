"""Point-like spots of a frame, by the detector that suits it.

"contrast" is for scenes with clutter (`csist.frames.detection.contrast`), "matched" for frames limited by noise
(`csist.frames.detection.matched`). Either way the threshold is the Gaussian quantile of the stated false-alarm rate.
"""

from __future__ import annotations

from csist._types import BoolArray, FloatArray
from csist.checks import InputError
from csist.frames.background.estimate import Background
from csist.frames.detection.contrast import ContrastFrame
from csist.frames.detection.matched import matched_map
from csist.frames.detection.peaks import Peaks, find_peaks, threshold_sigmas
from csist.frames.options import CONTRAST, FALSE_ALARM_RATE, MATCHED
from csist.physics.psf import PSF

DETECTORS = (CONTRAST, MATCHED)
"""Detectors that give peaks."""


def detect_peaks(
    frame: FloatArray,
    background: Background,
    masked: BoolArray | None = None,
    psf: PSF | None = None,
    false_alarm_rate: float = FALSE_ALARM_RATE,
    detector: str = CONTRAST,
    *,
    seen: ContrastFrame | None = None,
) -> tuple[Peaks, float]:
    """Point-like spots of a frame.

    Args:
        frame: (H, W) in counts, NaN allowed.
        background: of this frame.
        masked: (H, W) further pixels to leave out.
        psf: point spread function; None looks for spots of all usual sizes.
        false_alarm_rate: stated false alarms per pixel in Gaussian noise.
        detector: "contrast" or "matched".
        seen: the frame as the contrast detector sees it, if it has been looked at.

    Returns:
        The peaks, most significant first, and the threshold in standard deviations.

    Raises:
        InputError: if the detector is unknown, the rate out of range, or "matched" is asked for without a PSF.
    """
    if detector not in DETECTORS:
        raise InputError(f"detector must be one of {', '.join(DETECTORS)}, got {detector!r}")
    if detector == CONTRAST:
        seen = ContrastFrame.of(frame, background, masked, psf) if seen is None else seen
        return seen.peaks(false_alarm_rate)
    if psf is None:
        raise InputError("the matched detector needs the PSF: give psf or sensor, or use detector='contrast'")
    threshold = threshold_sigmas(false_alarm_rate)
    peaks = find_peaks(matched_map(frame, background, psf, masked), threshold)
    return peaks.in_white_noise() if seen is None or seen.noise_limited else peaks, threshold
