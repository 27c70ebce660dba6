"""`csist.unmix`: one call from an image of any size to its targets.

An image of at most 16 px a side is a window: it holds one group of targets and goes to a method as it is.
Anything larger is a frame: blobs are detected first and each one is cut out, see `csist.unmix_frame`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from csist.checks import InputError, check_not_negative, check_stack
from csist.datasets.scenes import ScenePrior
from csist.physics.sensor import Sensor
from csist.targets import Targets

FloatArray = NDArray[np.float64]

WINDOW_SIDE_PX = 16
"""An image with no side longer than this is a window, any other one a frame."""

FRAME_METHODS = ("continuous",)
"""Methods that can unmix the blobs of a frame, whose windows have a background and any size."""


def is_window(shape: tuple[int, ...]) -> bool:
    """Whether the last two numbers of an array's shape are those of a window.

    >>> is_window((11, 11)), is_window((500, 16, 16)), is_window((16, 17))
    (True, True, False)
    """
    return max(shape[-2:]) <= WINDOW_SIDE_PX


def unmix(
    image: ArrayLike,
    sensor: Sensor | None = None,
    prior: ScenePrior | None = None,
    method: str = "continuous",
    **options: Any,
) -> Targets | list[Targets]:
    """Find the point targets of an image: how many, where, how bright, and how sure.

    Args:
        image: counts, (H, W), or a stack (N, H, W). A masked array's masked pixels are NaN.
        sensor: what took it; its shape does not matter. None for a Gaussian PSF of 0.5 px without background
            in windows, and for what `csist.frames` finds out in frames.
        prior: what is known of a group; None for `ScenePrior.flat()`.
        method: a name of `csist.list_methods`; frames need "continuous".
        **options: for windows, `mask_nan` (leave NaN pixels out instead of refusing them), `noise_std` (noise
            in counts; None: the sensor's, or if that is 0 estimated from the stack), `ratio`, `pretrained`
            and the method's own; for frames those of `csist.unmix_frame`.

    Returns:
        `Targets` for an image, a list with one for each image of a stack.

    Raises:
        InputError: if the image cannot be used (other dimensions, below 3 px, infinities, NaN in a window),
            or an option is unknown or out of range.

    >>> from csist.physics.sensor import Sensor
    >>> image = Sensor(read_noise=1.0).observe(Targets(x=[5.2], y=[4.9], intensity=[240]), 0)
    >>> found = unmix(image, prior=ScenePrior.csist_100k(), mode="fast", noise_std=1.0)
    >>> len(found), abs(float(found.x[0]) - 5.2) < 0.05
    (1, True)
    """
    from csist.methods.registry import create_method

    array = as_array(image)
    stack = check_stack(array)
    if is_window(stack.shape):
        ready = create_method(**window_recipe(stack, array.dtype, sensor, prior, method, **options))
        found: list[Targets] = list(ready.predict(stack)) if len(stack) else []
    else:
        # Imported here: the frames' part is not needed for windows.
        from csist.frames.solve import unmix_frame

        check_frame_method(method)
        options.pop("mask_nan", None)  # masked without being asked: a frame has blobs elsewhere
        found = [unmix_frame(frame, sensor, prior, **options).targets for frame in stack]
    return found[0] if array.ndim == 2 else found


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


def window_recipe(
    stack: FloatArray,
    dtype: np.dtype[Any],
    sensor: Sensor | None = None,
    prior: ScenePrior | None = None,
    method: str = "continuous",
    mask_nan: bool = False,
    noise_std: float | None = None,
    **options: Any,
) -> dict[str, Any]:
    """The arguments of `create_method` for the method of these windows, all that depends on the whole stack settled.

    Parts of the stack can then be given to the method one after the other: the answers are the same.

    Args:
        stack: windows (N, H, W), NaN allowed with `mask_nan`.
        dtype: type in which the values were stored.
        sensor: sensor; None for `default_sensor`.
        prior: scene prior, for the continuous method and `NAME+refine`.
        method: registry name.
        mask_nan: whether NaN pixels are left out.
        noise_std: noise of a pixel in counts; None: the sensor's, or if that is 0 estimated from the stack.
        **options: further arguments of `create_method`.

    Raises:
        InputError: if a value or option is out of range or does not suit the method.
    """
    from csist.methods.registry import canonical_name, takes_prior

    key = canonical_name(method)
    if noise_std is not None:
        check_not_negative("noise_std", noise_std)
    check_window_values(stack, mask_nan)
    sensor = sensor or default_sensor(stack, dtype)
    sensor = sensor.with_shape((stack.shape[1], stack.shape[2]))
    if key in FRAME_METHODS:
        noise = window_noise(stack, sensor) if noise_std is None else noise_std
        known = {"prior": prior, "mask_nan": mask_nan, "noise_std": noise}
        return {"name": key, "sensor": sensor, **known, **options}
    if "mode" in options or (prior is not None and not takes_prior(key)):
        name = "mode" if "mode" in options else "prior"
        raise InputError(f"{name} is for the method 'continuous', {key!r} takes none: leave it out")
    if np.isnan(stack).any():
        raise InputError(f"method {key!r} cannot leave pixels out (NaN): use the method 'continuous'")
    if takes_prior(key):
        noise_std = window_noise(stack, sensor) if noise_std is None else noise_std
        options |= {} if prior is None else {"prior": prior}
    if noise_std is not None:
        sensor = replace(sensor, read_noise=noise_std)
    return {"name": key, "sensor": sensor, **options}


def window_noise(stack: FloatArray, sensor: Sensor) -> float:
    """Noise of a pixel in counts: the sensor's, or if that is 0 an estimate from the whole stack, never 0."""
    from csist.methods.continuous.method import estimate_noise

    noise = sensor.read_noise or (estimate_noise(stack - sensor.background) if len(stack) else 0.0)
    if noise == 0.0 and not sensor.quantised:
        # Exact numbers without noise: a thousandth of the brightest stands for what the model leaves out.
        noise = 1e-3 * max(float(np.nanmax(np.abs(stack), initial=0.0)), 1.0)
    return noise


def check_frame_method(method: str) -> None:
    """Check that a method can unmix frames.

    Raises:
        InputError: if it cannot, or does not exist.
    """
    from csist.methods.registry import canonical_name

    key = canonical_name(method)
    if key not in FRAME_METHODS:
        raise InputError(
            f"method {key!r} unmixes windows of at most {WINDOW_SIDE_PX} px a side, this is a larger frame: "
            f"use the method {FRAME_METHODS[0]!r}"
        )
