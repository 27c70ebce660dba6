"""`csist.unmix`: one call from an image of any size to its targets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from csist._types import FloatArray
from csist.checks import InputError, check_kind, check_not_negative, check_stack
from csist.physics.psf import PSF, as_psf
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, as_prior
from csist.targets import Targets
from csist.windows import (
    WINDOW_SIDE_PX,
    as_array,
    check_error,
    check_window_values,
    default_sensor,
    is_window,
    leave_out,
    window_noise,
)


def unmix(
    image: ArrayLike,
    sensor: Sensor | None = None,
    prior: ScenePrior | str | None = None,
    method: str = "continuous",
    **options: Any,
) -> Targets | list[Targets]:
    """Find the point targets of an image: their number, positions and fluxes, with uncertainties.

    Args:
        image: counts, (H, W), or a stack (N, H, W). The masked pixels of a masked array count as NaN.
        sensor: sensor of the image; its shape is ignored. None for a Gaussian PSF of 0.5 px without background
            in windows, and for a PSF and background measured by `csist.frames` in frames.
        prior: prior of a group of targets, or the name of one, "flat" or "csist-100k"; None for `ScenePrior.flat()`.
        method: a name of `csist.list_methods`; frames need "continuous".
        **options: `error` (standard deviation of each pixel in counts, (H, W) or (N, H, W), with all that adds to
             it) and `mask` (of the same shape, true where a pixel is left out), for methods that can use them; for
             windows, `mask_nan` (leave NaN pixels out instead of refusing them), `noise_std` (noise in counts; None:
             the sensor's, or if that is 0 estimated from the stack), `psf` (a PSF or its sigma in px, in place of the
             sensor's), `start` (positions at which the continuous method
             tries targets, `Targets` or (n, 2), for a stack one each per image), `ratio`, `pretrained` and those of
             the method; for frames, those of `csist.unmix_frame`.

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

    check_kind("sensor", sensor, Sensor, "Sensor(GaussianPSF(0.5)) is one")
    prior = as_prior(prior)
    array = as_array(image)
    stack = check_stack(array)
    error = check_error(options.pop("error", None), array.shape)
    mask = options.pop("mask", None)
    if is_window(stack.shape):
        check_noise_map(method, error is not None)
        known = _named_in_windows(options, array.ndim, method)
        check_window_values(stack, options.get("mask_nan", False) or mask is not None)
        left = leave_out(stack, error, mask)
        options["mask_nan"] = options.get("mask_nan", False) or left is not stack
        stack = left
        psf = options.pop("psf", None)
        if psf is not None:
            sensor = replace(sensor or default_sensor(stack, array.dtype), psf=_psf_of_window(psf))
        ready = create_method(**window_recipe(stack, array.dtype, sensor, prior, method, **options))
        known |= {} if error is None else {"error": error}
        found: list[Targets] = list(ready.solve(stack, **known).targets) if len(stack) else []
    else:
        # Imported here: the frames' part is not needed for windows.
        from csist.frames.solve import unmix_frame

        check_frame_method(method)
        options.pop("mask_nan", None)  # frames always mask NaN
        stack = leave_out(stack, error, mask)
        found = [
            unmix_frame(frame, sensor, prior, error=None if error is None else error[n % len(error)], **options).targets
            for n, frame in enumerate(stack)
        ]
    return found[0] if array.ndim == 2 else found


def _psf_of_window(given: Any) -> PSF:
    """The PSF of windows.

    Raises:
        InputError: if it is neither a PSF nor a sigma.
    """
    psf = as_psf(given)
    if psf is None:
        raise InputError(
            f"the psf of a window must be a PSF or a sigma in px, it cannot be measured there, got {given!r}"
        )
    return psf


def _named_in_windows(options: dict[str, Any], dimensions: int, method: str) -> dict[str, Any]:
    """Start positions, taken out of the options, as an argument of `Continuous.solve`.

    Args:
        options: `start` is the positions of an image, or a list of one each per image of a stack; None for none. A
            name, as of the start of an iteration on a grid, stays among the options.
        dimensions: of the image or stack.
        method: registry name.

    Raises:
        InputError: if the method does not take them.
    """
    from csist.frames.options import as_positions
    from csist.methods.table import abilities, canonical_name

    searches = abilities(method).frames
    if isinstance(options.get("start"), str) and not searches:
        return {}
    start = options.pop("start", None)
    if start is None:
        return {}
    if not searches:
        raise InputError(f"method {canonical_name(method)!r} does not search from start positions: leave start out")
    return {"start": [as_positions(each) for each in ([start] if dimensions == 2 else start)]}


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
        noise_std: noise in counts of a pixel without targets; None: see `csist.windows.window_noise`.
        **options: further arguments of `create_method`.

    Raises:
        InputError: if a value or option is out of range or not supported by the method.
    """
    from csist.methods.table import abilities, canonical_name

    key, can = canonical_name(method), abilities(method)
    if noise_std is not None:
        check_not_negative("noise_std", noise_std)
    if not isinstance(mask_nan, bool | np.bool_):
        raise InputError(f"mask_nan must be True or False, got {mask_nan!r}")
    check_window_values(stack, mask_nan)
    sensor = sensor or default_sensor(stack, dtype)
    sensor = sensor.with_shape((stack.shape[1], stack.shape[2]))
    if can.masks:
        known = {"prior": prior, "mask_nan": mask_nan, "noise_std": window_noise(stack, sensor, noise_std)}
        return {"name": key, "sensor": sensor, **known, **options}
    if "mode" in options or (prior is not None and not can.prior):
        name = "mode" if "mode" in options else "prior"
        raise InputError(f"{name} is for the method 'continuous', {key!r} does not use it: leave it out")
    if np.isnan(stack).any():
        raise InputError(f"method {key!r} cannot leave pixels out (NaN): use the method 'continuous'")
    if can.prior:
        noise_std = window_noise(stack, sensor, noise_std)
        options |= {} if prior is None else {"prior": prior}
    if noise_std is not None:
        sensor = sensor.with_pixel_noise(noise_std)
    return {"name": key, "sensor": sensor, **options}


def check_noise_map(method: str, given: bool) -> None:
    """Check that a method can use the noise of each pixel, if it is given.

    Raises:
        InputError: if it cannot.
    """
    from csist.methods.table import abilities, canonical_name, methods_that

    if given and not abilities(method).noise_maps:
        raise InputError(
            f"method {canonical_name(method)!r} has one noise for all pixels: leave the error map out, "
            f"or use the method {methods_that('noise_maps')[0]!r}"
        )


def check_frame_method(method: str) -> None:
    """Check that a method can unmix frames.

    Raises:
        InputError: if it cannot, or does not exist.
    """
    from csist.methods.table import abilities, canonical_name, methods_that

    if not abilities(method).frames:
        raise InputError(
            f"method {canonical_name(method)!r} unmixes windows of at most {WINDOW_SIDE_PX} px per side, "
            f"this is a larger frame: use the method {methods_that('frames')[0]!r}"
        )
