"""Groups put into a frame, which is unmixed with them in several passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from csist._types import FloatArray
from csist.checks import InputError
from csist.frames.masks.mask import check_frame
from csist.frames.measured import FrameRules, MeasuredFrame, measure_frame
from csist.frames.options import FrameOptions
from csist.frames.result import add_light
from csist.frames.solve import settle_psf, solve_frame
from csist.injection.groups import BORDER_PX, InjectedGroup, draw_plan, of_group, place_groups
from csist.injection.plan import InjectionPlan
from csist.injection.result import InjectionResult
from csist.targets import Targets
from csist.windows import check_error, leave_out


def inject_groups(
    image: NDArray[np.generic],
    plan: InjectionPlan | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    error: ArrayLike | None = None,
    **options: Any,
) -> InjectionResult:
    """Put simulated groups into a frame, unmix it, and compare.

    Args:
        image: (H, W) in counts; it is not changed.
        plan: what is injected; None for 200 pairs over a range of fluxes and separations.
        progress: called with (groups done, groups in all).
        error: (H, W) standard deviation of each pixel of the frame in counts, with all that adds to it; the photons of
            the groups are added where a gain is given. None if it is not known.
        **options: of the run, as of `csist.unmix_frame`; the PSF must be given or measured.

    Raises:
        InputError: if the frame cannot be used or has no room for a group, if the PSF is not known, or if an option is
            unknown or out of range.

    >>> from csist.injection import Spread
    >>> from csist.physics.psf import GaussianPSF
    >>> from csist.physics.sensor import Sensor
    >>> sky = Sensor(GaussianPSF(1.0), shape=(80, 80), background=20.0, read_noise=1.0).observe(Targets.empty(), 0)
    >>> plan = InjectionPlan(groups=4, flux=Spread((500.0,)), counts=(1,))
    >>> result = inject_groups(sky, plan, psf=1.0, mode="fast")
    >>> result.rows()[0]["completeness"]
    1.0
    """
    return inject_into(image, plan or InjectionPlan(), FrameOptions.of(**options), progress, error)


def inject_into(
    image: NDArray[np.generic],
    plan: InjectionPlan,
    options: FrameOptions,
    progress: Callable[[int, int], None] | None = None,
    error: ArrayLike | None = None,
) -> InjectionResult:
    """`inject_groups` with the options of the run in one object."""
    frame = check_frame(image)
    rules = FrameRules.of(options)
    noise_map = check_error(error, frame.shape)
    if noise_map is not None:
        frame, noise_map = leave_out(frame[None], noise_map)[0], noise_map[0]
    psf, measured = settle_psf(frame, rules, options, noise_map)
    if psf is None:
        raise InputError("injected groups need the PSF: give psf or sensor (--psf-sigma, --psf, --sensor)")
    measured = measure_frame(frame, rules, psf.psf, noise_map) if measured is None else measured
    options = replace(options, psf=psf.estimate or psf.psf, psf_error=psf.error)
    plan = plan.settled(measured, psf.psf)
    own = solve_frame(frame, options, error=noise_map).targets
    rng = np.random.default_rng(plan.seed)
    waiting = draw_plan(plan, rng)
    groups: list[InjectedGroup] = []
    passes = 0
    while waiting:
        placed, waiting = place_groups(waiting, frame, rng)
        if not placed:
            raise InputError(
                f"the frame of {frame.shape[1]} x {frame.shape[0]} px has no room for a group "
                f"{BORDER_PX:g} px from its border: give smaller separations, fewer targets or a larger frame"
            )
        passes += 1
        light = np.zeros(frame.shape)
        add_light(light, Targets.concatenate([group.truth for group in placed]), psf.psf)
        exposed = _exposed(frame, light, options, measured, rng)
        found = solve_frame(exposed, options, error=_with_photons(noise_map, light, options.gain)).targets
        groups += [replace(each, own=of_group(own, each.truth), found=of_group(found, each.truth)) for each in placed]
        if progress is not None:
            progress(len(groups), plan.groups)
    return InjectionResult(groups, plan, psf, passes)


def _with_photons(error: FloatArray | None, light: FloatArray, gain: float | None) -> FloatArray | None:
    """The error map of a frame (H, W) with the photon noise of light that is added to it."""
    if error is None or gain is None:
        return error
    return np.sqrt(error**2 + np.maximum(light, 0.0) / gain)


def _exposed(
    frame: FloatArray, light: FloatArray, options: FrameOptions, measured: MeasuredFrame, rng: np.random.Generator
) -> FloatArray:
    """The frame with light added as its camera would have: with photon noise, rounded and clipped as it is."""
    if options.gain is not None:
        light = rng.poisson(np.maximum(light, 0.0) * options.gain) / options.gain
    exposed: FloatArray = frame + light
    seen = np.isfinite(frame)
    if np.array_equal(frame[seen], np.rint(frame[seen])):
        exposed = np.rint(exposed)
    if np.isfinite(measured.pixels.ceiling):
        exposed = np.where(frame >= measured.pixels.ceiling, frame, np.minimum(exposed, measured.pixels.ceiling))
    return exposed
