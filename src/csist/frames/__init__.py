"""Whole frames: background, detection, grouping, unmixing."""

from csist.frames.background import Background, PixelMask, estimate_background, mask_pixels
from csist.frames.blobs import FrameGroup
from csist.frames.detect import Peaks, detect_peaks
from csist.frames.pipeline import unmix_frame
from csist.frames.psf import GUESSED, PSFEstimate, estimate_psf

__all__ = [
    "GUESSED",
    "Background",
    "FrameGroup",
    "PSFEstimate",
    "Peaks",
    "PixelMask",
    "detect_peaks",
    "estimate_background",
    "estimate_psf",
    "mask_pixels",
    "unmix_frame",
]
