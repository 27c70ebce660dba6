"""`csist.unmix`: one call from an image of any size to its targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from csist._types import FloatArray
from csist.checks import InputError, check_not_negative, check_stack
from csist.physics.psf import PSF, GaussianPSF
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior
from csist.targets import Targets
from csist.windows import WINDOW_SIDE_PX, as_array, check_window_values, default_sensor, is_window, window_noise

BRIGHTEST, SIGMA_RANGE_PX = 60, (0.4, 3.0)
"""Number of targets on which the width of an unknown PSF is fitted for a picture, and bounds of that width in px."""


def unmix(
    image: ArrayLike,
    sensor: Sensor | None = None,
    prior: ScenePrior | None = None,
    method: str = "continuous",
    **options: Any,
) -> Targets | list[Targets]:
    """Find the point targets of an image: their number, positions and fluxes, with uncertainties.

    Args:
        image: counts, (H, W), or a stack (N, H, W). The masked pixels of a masked array count as NaN.
        sensor: sensor of the image; its shape is ignored. None for a Gaussian PSF of 0.5 px without background
            in windows, and for a PSF and background measured by `csist.frames` in frames.
        prior: prior of a group of targets; None for `ScenePrior.flat()`.
        method: a name of `csist.list_methods`; frames need "continuous".
        **options: for windows, `mask_nan` (leave NaN pixels out instead of refusing them), `noise_std` (noise
            in counts; None: the sensor's, or if that is 0 estimated from the stack), `ratio`, `pretrained`
            and those of the method; for frames, those of `csist.frames.pipeline.unmix_frame`.

    Returns:
        `Targets` for an image, or a list of `Targets`, one per image, for a stack.

    Raises:
        InputError: if the image cannot be used (other dimensions, below 3 px, infinities, NaN in a window),
            or an option is unknown or out of range.

    >>> from csist.physics.sensor import Sensor
    >>> image = Sensor(read_noise=1.0).observe(Targets(x=[5.2], y=[4.9], intensity=[240]), 0)
    >>> found = unmix(image, prior=ScenePrior.csist_100k(), mode="fast", noise_std=1.0)
    >>> len(found), abs(float(found.x[0]) - 5.2) < 0.05
    (1, True)
    """
    from csist.create import create_method

    array = as_array(image)
    stack = check_stack(array)
    if is_window(stack.shape):
        ready = create_method(**window_recipe(stack, array.dtype, sensor, prior, method, **options))
        found: list[Targets] = list(ready.predict(stack)) if len(stack) else []
    else:
        check_frame_method(method)
        options.pop("mask_nan", None)  # frames always mask NaN
        found = [solve_frame(frame, sensor, prior, **options)[0] for frame in stack]
    return found[0] if array.ndim == 2 else found


def window_recipe(
    stack: FloatArray,
    dtype: np.dtype[Any],
    sensor: Sensor | None = None,
    prior: ScenePrior | None = None,
    method: str = "continuous",
    *,
    mask_nan: bool = False,
    noise_std: float | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Return the arguments of `create_method` for these windows, with all values that depend on the whole stack.

    Parts of the stack can then be passed to the method one after the other with the same results.

    Args:
        stack: windows (N, H, W), NaN allowed with `mask_nan`.
        dtype: type in which the values were stored.
        sensor: sensor; None for `default_sensor`.
        prior: scene prior, for the continuous method and `NAME+refine`.
        method: registry name.
        mask_nan: whether NaN pixels are left out.
        noise_std: noise per pixel in counts; None: the sensor's, or if that is 0 estimated from the stack.
        **options: further arguments of `create_method`.

    Raises:
        InputError: if a value or option is out of range or not supported by the method.
    """
    from csist.methods.table import abilities, canonical_name

    key, can = canonical_name(method), abilities(method)
    if noise_std is not None:
        check_not_negative("noise_std", noise_std)
    check_window_values(stack, mask_nan)
    sensor = sensor or default_sensor(stack, dtype)
    sensor = sensor.with_shape((stack.shape[1], stack.shape[2]))
    if can.masks:
        noise = window_noise(stack, sensor) if noise_std is None else noise_std
        known = {"prior": prior, "mask_nan": mask_nan, "noise_std": noise}
        return {"name": key, "sensor": sensor, **known, **options}
    if "mode" in options or (prior is not None and not can.prior):
        name = "mode" if "mode" in options else "prior"
        raise InputError(f"{name} is for the method 'continuous', {key!r} does not use it: leave it out")
    if np.isnan(stack).any():
        raise InputError(f"method {key!r} cannot leave pixels out (NaN): use the method 'continuous'")
    if can.prior:
        noise_std = window_noise(stack, sensor) if noise_std is None else noise_std
        options |= {} if prior is None else {"prior": prior}
    if noise_std is not None:
        sensor = replace(sensor, read_noise=noise_std)
    return {"name": key, "sensor": sensor, **options}


def check_frame_method(method: str) -> None:
    """Check that a method can unmix frames.

    Raises:
        InputError: if it cannot, or does not exist.
    """
    from csist.methods.table import abilities, canonical_name, methods_that

    if not abilities(method).frames:
        raise InputError(
            f"method {canonical_name(method)!r} unmixes windows of at most {WINDOW_SIDE_PX} px a side, "
            f"this is a larger frame: use the method {methods_that('frames')[0]!r}"
        )


def solve_frame(
    frame: FloatArray, sensor: Sensor | None = None, prior: ScenePrior | None = None, **options: Any
) -> tuple[Targets, Any]:
    """Return the targets of a frame (H, W) and its groups.

    Raises:
        InputError: if the frame cannot be used or an option is unknown.
    """
    # Imported here: importing it compiles code that windows do not need.
    from csist.frames.pipeline import unmix_frame

    solve: Callable[..., tuple[Targets, Any]] = unmix_frame
    try:
        return solve(frame, sensor, prior, **options)
    except TypeError as error:
        if options and "unexpected keyword" in str(error):
            raise InputError(f"a frame does not take {', '.join(options)}: {error}") from error
        raise


def frame_model(
    frame: FloatArray, targets: Targets, sensor: Sensor | None = None, psf: PSF | None = None
) -> FloatArray:
    """Return the model image (H, W) in counts of background and targets, for residuals and pictures.

    Args:
        frame: (H, W) in counts.
        targets: detected targets.
        sensor: sensor given to `solve_frame`.
        psf: PSF given to `solve_frame`, which takes precedence over the sensor's; without either, the Gaussian
            that minimises the residual of the brightest targets.
    """
    from scipy.optimize import minimize_scalar

    from csist.frames.background import estimate_background, mask_pixels

    if psf is None and sensor is not None:
        psf = sensor.psf
    masked = mask_pixels(frame, _ceiling(sensor), psf).masked
    finest = 32 if psf is None else max(32, int(np.ceil(4.0 * psf.radius_px)))
    level = estimate_background(frame, masked, None, (4 * finest, finest)).level
    if psf is None:
        flattened = np.where(masked, 0.0, frame - level)
        brightest = targets[np.argsort(-np.nan_to_num(targets.intensity), kind="stable")[:BRIGHTEST]]

        def misfit(sigma_px: float) -> float:
            light = np.where(masked, 0.0, _light(flattened.shape, brightest, GaussianPSF(sigma_px)))
            return float((light * (light - 2.0 * flattened)).sum())

        found = minimize_scalar(misfit, bounds=SIGMA_RANGE_PX, method="bounded", options={"xatol": 0.01})
        psf = GaussianPSF(float(found.x))
    return level + _light(level.shape, targets, psf)


def _ceiling(sensor: Sensor | None) -> float | None:
    return None if sensor is None or not np.isfinite(sensor.ceiling) else sensor.ceiling


def _light(shape: tuple[int, ...], targets: Targets, psf: PSF) -> FloatArray:
    """Return the image (H, W) of the targets alone, each rendered only within the radius of the PSF."""
    image = np.zeros(shape)
    reach = int(np.ceil(psf.radius_px)) + 1
    for x, y, intensity in zip(targets.x, targets.y, np.nan_to_num(targets.intensity), strict=True):
        row, column = max(round(float(y)) - reach, 0), max(round(float(x)) - reach, 0)
        part = image[row : max(round(float(y)) + reach + 1, 0), column : max(round(float(x)) + reach + 1, 0)]
        if part.size:
            dy, dx = row + np.arange(part.shape[0]) - y, column + np.arange(part.shape[1]) - x
            part += intensity * psf.response(dx[None, :], dy[:, None])
    return image


def count_masked(frame: FloatArray, sensor: Sensor | None = None, psf: PSF | None = None) -> int:
    """Return the number of pixels that `solve_frame` masks: NaN, dead and hot ones."""
    from csist.frames.background import find_ceiling, mask_pixels
    from csist.frames.tiles import tiles

    if psf is None and sensor is not None:
        psf = sensor.psf
    ceiling = _ceiling(sensor)
    if ceiling is None:
        ceiling = find_ceiling(frame)
    whole = (frame.shape[0], frame.shape[1])
    parts = (frame[tile.part] for tile in tiles(whole, margin=0))
    return sum(
        part.size if np.isnan(part).all() else int(mask_pixels(part, ceiling, psf).masked.sum()) for part in parts
    )
