"""Whole frames: bad pixels, background, PSF, detection, blobs, unmixing.

The modules are loaded when first used: the options of a frame are known before any solver is.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from csist.frames.background.estimate import Background, estimate_background
    from csist.frames.detection.detect import detect_peaks
    from csist.frames.detection.peaks import Peaks
    from csist.frames.groups import FrameGroup
    from csist.frames.masks.mask import PixelKind, PixelMask, mask_pixels
    from csist.frames.options import FrameOptions
    from csist.frames.psf.measure import estimate_psf
    from csist.frames.psf_estimate import PSFEstimate
    from csist.frames.result import FrameResult
    from csist.frames.solve import solve_frame, unmix_frame

__all__ = [
    "Background",
    "FrameGroup",
    "FrameOptions",
    "FrameResult",
    "PSFEstimate",
    "Peaks",
    "PixelKind",
    "PixelMask",
    "detect_peaks",
    "estimate_background",
    "estimate_psf",
    "mask_pixels",
    "solve_frame",
    "unmix_frame",
]

_HOMES = {
    "Background": "background.estimate",
    "FrameGroup": "groups",
    "FrameOptions": "options",
    "FrameResult": "result",
    "PSFEstimate": "psf_estimate",
    "Peaks": "detection.peaks",
    "PixelKind": "masks.mask",
    "PixelMask": "masks.mask",
    "detect_peaks": "detection.detect",
    "estimate_background": "background.estimate",
    "estimate_psf": "psf.measure",
    "mask_pixels": "masks.mask",
    "solve_frame": "solve",
    "unmix_frame": "solve",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
