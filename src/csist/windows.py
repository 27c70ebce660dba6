"""An array as a stack of windows: its values checked, its sensor and its noise settled.

An image of at most 16 px a side is a window: it holds one group of targets and goes to a method as it is.
Anything larger is a frame: blobs are looked for first and every one is cut out, see `csist.frames`.
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
"""An image with no side longer than this is a window, any other one a frame."""


def is_window(shape: tuple[int, ...]) -> bool:
    """Whether the last two numbers of an array's shape are those of a window.

    >>> is_window((11, 11)), is_window((500, 16, 16)), is_window((16, 17))
    (True, True, False)
    """
    return max(shape[-2:]) <= WINDOW_SIDE_PX


def as_array(image: ArrayLike) -> NDArray[Any]:
    """The image as a plain array; masked pixels become NaN.

    Raises:
        InputError: if it is no array, for example because its frames differ in size.
    """
    if isinstance(image, np.ma.MaskedArray):
        return np.asarray(np.ma.filled(image.astype(np.float64), np.nan))
    try:
        return np.asarray(image)
    except (TypeError, ValueError) as error:
        raise InputError(
            "image must be an array (H, W) or (N, H, W) whose frames are equally large, "
            f"got {type(image).__name__}: {' '.join(str(error).split())[:120]}"
        ) from error


def default_sensor(stack: FloatArray, dtype: np.dtype[Any]) -> Sensor:
    """The sensor assumed for windows of unknown origin: Gaussian PSF of 0.5 px, no background.

    Whole numbers were rounded, anything else was not; an unsigned integer type cannot show more than its
    highest value, so a pixel that has it is saturated.
    """
    whole = bool(np.all((stack == np.rint(stack)) | np.isnan(stack)))
    saturation = float(np.iinfo(dtype).max) if dtype.kind == "u" and dtype.itemsize <= 2 else None
    return Sensor(shape=(stack.shape[1], stack.shape[2]), quantised=whole, saturation=saturation)


def check_window_values(stack: FloatArray, mask_nan: bool) -> None:
    """Check that windows hold no NaN, or that NaN may be left out.

    Raises:
        InputError: if not, or if a window holds nothing but NaN.
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
    """Noise of a pixel in counts: the sensor's, or if that is 0 an estimate from the whole stack, never 0."""
    noise = sensor.read_noise or (estimate_noise(stack - sensor.background) if len(stack) else 0.0)
    if noise == 0.0 and not sensor.quantised:
        # Exact numbers without noise: a thousandth of the brightest stands for what the model leaves out.
        noise = 1e-3 * max(float(np.nanmax(np.abs(stack), initial=0.0)), 1.0)
    return noise


def estimate_noise(images: FloatArray) -> float:
    """Standard deviation in counts of the pixels of a stack that hold no target, by clipping at three sigma."""
    values = images[np.isfinite(images)]
    return float(np.std(sigmaclip(values, 3.0, 3.0).clipped)) if values.size else 0.0
