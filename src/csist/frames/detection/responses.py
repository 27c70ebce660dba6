"""Responses of a frame to Laplacians of Gaussian, the filters for spots of one size."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from csist._types import FloatArray
from csist.checks import check_positive
from csist.frames.kernels import sum_of_products


class Response(NamedTuple):
    """Response of a frame to one filter.

    Args:
        values: (H, W).
        gain: standard deviation of the response to unit white noise.
    """

    values: NDArray[np.floating]
    gain: float


def contrast_response(flattened: NDArray[np.floating], scale: float) -> Response:
    """Scale-normalised Laplacian of Gaussian of a frame (H, W), bright spots positive, in the frame's precision.

    Args:
        flattened: (H, W), mirrored at its borders.
        scale: sigma of the Gaussian in px.
    """
    smooth, bend = _gaussian_taps(check_positive("scales_px", scale))
    kernel = np.outer(smooth, bend) + np.outer(bend, smooth)
    gain = float(scale**2 * np.sqrt((kernel**2).sum()))
    taps = (each[len(each) // 2 :].astype(flattened.dtype) for each in (smooth, -(scale**2) * bend))
    return Response(sum_of_products(np.ascontiguousarray(flattened), *taps), gain)


@lru_cache(maxsize=32)
def _gaussian_taps(scale: float) -> tuple[FloatArray, FloatArray]:
    """A sampled Gaussian out to four sigma, and its second derivative."""
    impulse = np.zeros(2 * int(4.0 * scale + 0.5) + 1)
    impulse[len(impulse) // 2] = 1.0
    smooth, bend = (ndimage.gaussian_filter1d(impulse, scale, order=order, mode="constant") for order in (0, 2))
    return smooth, bend
