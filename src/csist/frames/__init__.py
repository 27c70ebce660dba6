"""Whole frames: background, detection, grouping, unmixing."""

from csist.frames.background import Background, PixelMask, estimate_background, mask_pixels
from csist.frames.detect import Peaks, detect_peaks
from csist.frames.pipeline import FrameGroup, unmix_frame

__all__ = [
    "Background",
    "FrameGroup",
    "Peaks",
    "PixelMask",
    "detect_peaks",
    "estimate_background",
    "mask_pixels",
    "unmix_frame",
]
