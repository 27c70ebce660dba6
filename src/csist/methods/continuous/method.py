"""The project's own method: unmixing in continuous coordinates, with the number of targets and honest errors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from csist._types import FloatArray
from csist.checks import InputError, check_kind, check_not_negative, check_stack, check_workers
from csist.methods.continuous.bound import LEAST_WIDENING, widened
from csist.methods.continuous.model import stack_of
from csist.methods.continuous.solvers import EFFORTS, FreeSolver, PixelSolver
from csist.methods.continuous.units import from_units, in_units, typical_variance, unit_of, weights_of
from csist.methods.unmixer import Answers
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, as_prior
from csist.targets import Targets
from csist.windows import check_error, leave_out, window_noise

MODES = tuple(EFFORTS)

BACKGROUND_TERMS = {"known": 0, "constant": 1, "plane": 3, "surface": 6}

IMAGES_A_TASK = 32
"""Images that a thread takes at a time."""


def named_positions(start: Sequence[ArrayLike], images: int, prior: ScenePrior) -> FloatArray:
    """Positions (images, most, 2) at which targets are tried, padded with NaN.

    Args:
        start: for each image, positions (n, 2), x and y in px; all finite.
        images: number of images.
        prior: scene prior.

    Raises:
        InputError: if the prior puts all targets into one pixel, or the positions do not suit the images.
    """
    if prior.single_pixel:
        raise InputError("start positions need a prior with targets anywhere: use flat, or leave them out")
    if len(start) != images:
        raise InputError(f"start must hold positions for each of the {images} images, got {len(start)}")
    places = [np.asarray(each, dtype=np.float64).reshape(-1, 2) for each in start]
    if not all(np.isfinite(each).all() for each in places):
        raise InputError("start positions must be finite: leave out those that are NaN or infinite")
    named = np.full((images, max((len(each) for each in places), default=0), 2), np.nan)
    for row, each in zip(named, places, strict=True):
        row[: len(each)] = each
    return named


class Continuous:
    """Count, positions and fluxes of the targets of a window, with errors and probabilities.

    The likelihood is that of `csist.methods.continuous.likelihood`, the search that of `search`, the
    reported numbers those of `posterior.summarise`. Rounding is taken as noise of variance 1/12.

    Args:
        sensor: PSF, background, noise, saturation; its shape is replaced by that of the images.
        ratio: not used; every method takes it.
        prior: scene prior; default `ScenePrior.flat()`.
        mode: "accurate" or "fast".
        noise_std: noise in counts of a pixel without targets, before rounding; None takes the sensor's read noise and
            the photons of its background, and if the read noise is 0 estimates it from each stack.
        background: "known" (the sensor's), or beyond it an unknown "constant", "plane" or "surface" (of second
            degree) in each window; for priors that are not single-pixel.
        mask_nan: leave out NaN pixels instead of refusing the image.
        workers: threads; the result does not depend on it.

    Raises:
        InputError: if the mode is unknown or a value out of range.
    """

    def __init__(
        self,
        sensor: Sensor | None = None,
        ratio: int = 3,
        prior: ScenePrior | None = None,
        *,
        mode: str = "accurate",
        noise_std: float | None = None,
        background: str = "known",
        mask_nan: bool = False,
        workers: int | None = None,
    ) -> None:
        if mode not in MODES:
            raise InputError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
        if background not in BACKGROUND_TERMS:
            raise InputError(f"background must be one of {', '.join(BACKGROUND_TERMS)}, got {background!r}")
        check_kind("sensor", sensor, Sensor, "Sensor(GaussianPSF(0.5)) is one")
        check_workers(workers)
        self.sensor = sensor or Sensor()
        self.prior = as_prior(prior) or ScenePrior.flat()
        self.effort = EFFORTS[mode]
        self.least_widening = LEAST_WIDENING[mode]
        self.noise_std = None if noise_std is None else check_not_negative("noise_std", noise_std)
        self.background_terms = BACKGROUND_TERMS[background]
        self.mask_nan = mask_nan
        self.workers = workers or os.cpu_count() or 1

    block_size = 1

    def predict(self, images: FloatArray, progress: Callable[[int, int], None] | None = None) -> list[Targets]:
        """One `Targets` for each image of a stack (N, H, W) in counts, in order."""
        return self.solve(images, progress)[0]

    def solve(
        self,
        images: FloatArray,
        progress: Callable[[int, int], None] | None = None,
        keep_samples: bool = False,
        error: FloatArray | None = None,
        *,
        start: Sequence[ArrayLike] | None = None,
    ) -> Answers:
        """Targets and group information of each image of a stack (N, H, W) in counts, in order.

        Args:
            images: (N, H, W) or (H, W).
            progress: called with (images done, images in all) now and then.
            keep_samples: give each group its posterior samples, for `Group.interval` and `Group.covariance`.
            error: standard deviation of each pixel in counts with all that adds to it, photons of the targets and
                rounding too, (N, H, W) or (H, W) for all images; takes the place of the noise and of the sensor's gain.
                A pixel where it is 0 or not finite is left out.
            start: for each image, positions (n, 2), x and y in px, at which targets are tried, too.

        Raises:
            InputError: if the stack cannot be used or holds NaN and `mask_nan` is off, or if the positions do not suit.
        """
        stack = check_stack(images)
        if not self.mask_nan and np.isnan(stack).any():
            raise InputError(
                f"image {int(np.isnan(stack).any(axis=(1, 2)).argmax())} holds NaN: use mask_nan to leave them out"
            )
        sensor = self.sensor.with_shape((stack.shape[1], stack.shape[2]))
        error = check_error(error, stack.shape)
        stack = leave_out(stack, error)
        if error is None:
            variance = window_noise(stack, sensor, self.noise_std) ** 2 + sensor.rounding_variance
        else:
            # The map is the whole noise of a pixel.
            sensor = replace(sensor, gain=None, quantised=False)
            variance = typical_variance(error)
        unit = unit_of(sensor, variance)
        scaled, prior = in_units(sensor, self.prior, unit)
        solver: PixelSolver | FreeSolver
        if self.prior.single_pixel:
            solver = PixelSolver(scaled, prior, self.effort, variance / unit**2)
        else:
            solver = FreeSolver(scaled, prior, self.effort, variance / unit**2, self.background_terms)

        named = {} if start is None else {"named": named_positions(start, len(stack), self.prior)}

        def solve_part(first: int) -> Answers:
            images = stack[first : first + IMAGES_A_TASK]
            part = slice(first, first + len(images))
            weight = None if error is None else weights_of(error, variance, part)
            windows = stack_of(images, sensor, solver.basis, weight)
            tried = {name: values[part] for name, values in named.items()}
            windows = windows._replace(data=windows.data / unit)
            found = solver.solve(windows, keep_samples, **tried)
            if isinstance(solver, FreeSolver):
                found = widened(found, windows, scaled.psf, solver.noise, least=self.least_widening)
            return from_units(found, unit)

        starts = range(0, len(stack), IMAGES_A_TASK)
        answers = Answers([], [])

        def collect(parts: Iterable[Answers]) -> Answers:
            for part in parts:
                answers.targets.extend(part.targets)
                answers.groups.extend(part.groups)
                if progress is not None:
                    progress(len(answers.targets), len(stack))
            return answers

        if min(self.workers, len(starts)) <= 1:
            return collect(map(solve_part, starts))
        with ThreadPoolExecutor(self.workers) as pool:
            return collect(pool.map(solve_part, starts))
