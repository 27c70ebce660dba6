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
from csist.checks import InputError, unmasked
from csist.physics.sensor import Sensor

WINDOW_SIDE_PX = 16
"""Largest side of a window; any larger image is a frame."""

EXACT_SHARE = 1e-3
"""Noise as a share of the brightest pixel where the values have neither noise nor rounding."""


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
    try:
        return np.asarray(unmasked(image))
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
        raise InputError(f"image {int(missing.all(axis=(1, 2)).argmax())} contains only NaN: remove it")


def window_noise(stack: FloatArray, sensor: Sensor, noise_std: float | None = None) -> float:
    """Return the noise in counts of a pixel without targets, before rounding.

    The noise is, in this order, the one that is stated, the sensor's read noise with the photons of its background,
    and, if the read noise is 0, an estimate from the stack. It can be 0 only for a quantised sensor. A stack times a
    factor has the noise times this factor.

    Args:
        stack: windows (N, H, W) in counts.
        sensor: gives read noise, gain, background and rounding.
        noise_std: noise that the user states; None if it is not known.
    """
    if noise_std is not None:
        noise = noise_std
    elif sensor.read_noise > 0.0:
        noise = sensor.pixel_noise
    else:
        measured = estimate_noise(stack - sensor.background) if len(stack) else 0.0
        noise = max(measured**2 - sensor.rounding_variance, 0.0) ** 0.5
    if noise == 0.0 and not sensor.quantised:
        # Noise-free values that are not rounded: allow for a model error of a share of the brightest pixel.
        noise = EXACT_SHARE * float(np.nanmax(np.abs(stack), initial=0.0)) or 1.0
    return noise


def estimate_noise(images: FloatArray) -> float:
    """Estimate the standard deviation in counts of the pixels without targets, by clipping at three sigma."""
    values = images[np.isfinite(images)]
    return float(np.std(sigmaclip(values, 3.0, 3.0).clipped)) if values.size else 0.0


def check_error(error: ArrayLike | None, shape: tuple[int, ...], name: str = "error") -> FloatArray | None:
    """Return the standard deviation of each pixel as float64, an array that broadcasts to a stack (N, H, W).

    Args:
        error: (H, W) for all images, or (N, H, W); None for no map. A value that is NaN, infinite or 0 marks a pixel
            to be left out.
        shape: of the image or the stack.
        name: of the map, for the message.

    Raises:
        InputError: if its shape is another one, or a value is negative or all are to be left out.
    """
    if error is None:
        return None
    array = as_array(error)
    if array.dtype.kind not in "buif":
        raise InputError(f"{name} must hold real numbers, got dtype {array.dtype}")
    if array.shape not in (shape, shape[-2:]):
        raise InputError(f"{name} must have the image's shape {shape} or {shape[-2:]}, got {array.shape}")
    values = array.astype(np.float64)
    if (values < 0.0).any():
        raise InputError(f"{name} must be standard deviations >= 0, got {float(np.nanmin(values))}: check its kind")
    if not (np.isfinite(values) & (values > 0.0)).any():
        raise InputError(f"{name} has no finite value > 0: no pixel could be used")
    return values if values.ndim == 3 else values[None]


def leave_out(stack: FloatArray, error: FloatArray | None = None, mask: ArrayLike | None = None) -> FloatArray:
    """Return a stack (N, H, W) with NaN in the pixels that a mask or an error map leaves out; a copy if there are any.

    Args:
        stack: in counts.
        error: (N or 1, H, W) of `check_error`.
        mask: (H, W) or (N, H, W), true where a pixel must not be used.

    Raises:
        InputError: if the mask's shape is another one or no pixel is left.
    """
    bad = np.zeros((1, *stack.shape[1:]), dtype=bool)
    if error is not None:
        bad = ~(np.isfinite(error) & (error > 0.0))
    if mask is not None:
        array = np.asarray(mask)
        if array.shape not in (stack.shape, stack.shape[1:]) and array.shape != (len(stack), *stack.shape[1:]):
            raise InputError(f"mask must have the image's shape {stack.shape[1:]}, got {array.shape}")
        bad = bad | (np.nan_to_num(array, nan=1.0) != 0)
    if not bad.any():
        return stack
    left = np.where(bad, np.nan, stack)
    if len(stack) and np.isnan(left).all():
        raise InputError("mask and error leave no pixel of the image: true (non-zero) marks the pixels to leave out")
    return left
