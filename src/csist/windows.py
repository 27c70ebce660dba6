"""Preparation of windows: checks of their values, default sensor and noise.

An image of at most 16 px per side is a window: it holds one group of targets and is passed to a method as it is. A
larger image is a frame, in which blobs are detected and cut out first, see `csist.frames`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import sigmaclip

from csist._types import FloatArray
from csist.checks import InputError
from csist.physics.sensor import Sensor

WINDOW_SIDE_PX = 16
"""Largest side of a window; any larger image is a frame."""


def is_window(shape: tuple[int, ...]) -> bool:
    """Return whether the last two dimensions of an array's shape are those of a window.

    >>> is_window((11, 11)), is_window((500, 16, 16)), is_window((16, 17))
    (True, True, False)
    """
    return max(shape[-2:]) <= WINDOW_SIDE_PX


def as_array(image: ArrayLike) -> NDArray[Any]:
    """Convert an image to a plain array; masked pixels become NaN.

    Raises:
        InputError: if it cannot be converted, for example because its frames differ in size.
    """
    if isinstance(image, np.ma.MaskedArray):
        return np.asarray(np.ma.filled(image.astype(np.float64), np.nan))
    try:
        return np.asarray(image)
    except (TypeError, ValueError) as error:
        raise InputError(
            "image must be an array (H, W) or (N, H, W) with frames of equal size, "
            f"got {type(image).__name__}: {' '.join(str(error).split())[:120]}"
        ) from error


def default_sensor(stack: FloatArray, dtype: np.dtype[Any]) -> Sensor:
    """Return the sensor assumed for windows of unknown origin: Gaussian PSF of 0.5 px, no background.

    The sensor is quantised if all values are whole numbers. For unsigned integer types of up to 16 bits, the
    saturation level is the highest value of the type.
    """
    whole = bool(np.all((stack == np.rint(stack)) | np.isnan(stack)))
    saturation = float(np.iinfo(dtype).max) if dtype.kind == "u" and dtype.itemsize <= 2 else None
    return Sensor(shape=(stack.shape[1], stack.shape[2]), quantised=whole, saturation=saturation)


def check_window_values(stack: FloatArray, mask_nan: bool) -> None:
    """Check that windows hold no NaN, or that NaN pixels are to be masked.

    Raises:
        InputError: if there are NaN without masking, or all pixels of a window are NaN.
    """
    missing = np.isnan(stack)
    if not missing.any():
        return
    count = missing.sum(axis=(1, 2))
    if not mask_nan:
        raise InputError(
            f"image {int(count.argmax())} holds NaN in {int(count.max())} pixels: "
            "use mask_nan=True (--mask-nan) to leave them out"
        )
    if missing.all(axis=(1, 2)).any():
        raise InputError(f"image {int(missing.all(axis=(1, 2)).argmax())} holds nothing but NaN: remove it")


def window_noise(stack: FloatArray, sensor: Sensor) -> float:
    """Return the noise per pixel in counts: that of the sensor, or if 0 an estimate from the stack.

    It can be 0 only for a quantised sensor.
    """
    noise = sensor.read_noise or (estimate_noise(stack - sensor.background) if len(stack) else 0.0)
    if noise == 0.0 and not sensor.quantised:
        # Noise-free values that are not rounded: allow for a model error of a thousandth of the brightest pixel.
        noise = 1e-3 * max(float(np.nanmax(np.abs(stack), initial=0.0)), 1.0)
    return noise


def estimate_noise(images: FloatArray) -> float:
    """Estimate the standard deviation in counts of the pixels without targets, by clipping at three sigma."""
    values = images[np.isfinite(images)]
    return float(np.std(sigmaclip(values, 3.0, 3.0).clipped)) if values.size else 0.0
