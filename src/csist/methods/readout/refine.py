"""`NAME+refine`: the answer of a grid method as the start of a local step in continuous coordinates.

The map is read out by centroid (`SubPixelGrid.centroids`), and positions and fluxes of all targets of the image
climb together to modes of the likelihood, each position within `REACH_PX` of its start. From there chains
(`csist.methods.continuous.tempering`) sample the posterior between the same bounds, and what
`csist.methods.continuous.posterior` makes of the samples is reported. Nothing is added or split, so the number of
targets is the map's, and no target leaves its neighbourhood: this is what a grid method is worth without its grid.

The noise grows by the root of the reduced chi-squared where that is above 1: noise that nobody stated and targets
that the map missed both show there. That another number of targets may be the right one the errors do not know.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csist._types import FloatArray
from csist.checks import InputError, check_stack
from csist.methods.base import GridMethod
from csist.methods.continuous.lanes import LaneArray, polynomials_of
from csist.methods.continuous.likelihood import (
    MEASURED,
    chi_squared,
    compiled,
    maximise,
    profile_tables,
    render,
)
from csist.methods.continuous.method import IMAGES_A_TASK, pixel_codes
from csist.methods.continuous.posterior import summarise
from csist.methods.continuous.rounding import noise_before_rounding
from csist.methods.continuous.solvers import describe, inverse_gain
from csist.methods.continuous.tempering import BURN_SHARE, temper
from csist.methods.readout.base import ReadOut
from csist.scenes import ScenePrior, flux_bounds
from csist.targets import Flag, Targets

START_THRESHOLD = 30.0
"""Cells below this intensity in counts start no target. Below the published read-out's 50: what is too much is
merged or fades in the climb, what is missing stays missing."""

REACH_PX = 0.65
"""A position stays so close to its start along each axis, or within a cell if that is more: the blur, not the grid,
decides how far off a cell may be."""

MOST_TARGETS = 32
"""Targets of one image, the brightest; further ones are dropped."""

FAINTEST = 1e-3
"""Lower bound of a flux in counts where no prior has one."""

NARROWEST = 1e-6
"""Distance of two bounds, in px or counts, below which a parameter counts as known that well."""

ITERATIONS, TOLERANCE = 60, 1e-3
"""Most steps of the climb, and the gain in log likelihood below which it ends."""

EXACT_SHARE = 1e-3
"""Where nothing adds noise, this share of the image's largest value stands for what the model leaves out."""

TEMPERATURES = np.array([1.0, 3.0, 9.0, 27.0])
"""Of the chains; the hot ones carry a pair that is hard to tell apart past each other."""

LANES, SAMPLES = 32, 400
"""Chains, and samples kept of those at temperature 1."""

STARTS = 8
"""Modes from which chains start: one climb begins at the cells, the others anywhere between the bounds."""
ELSEWHERE = np.random.default_rng(0).uniform(0.0, 1.0, (STARTS, 3 * MOST_TARGETS))
"""Where these begin, as shares of the way from the lower to the upper bound."""

SWEEPS = (50, 100, 200, 400)
"""Steps of the chains for 1, 2, 3, 4 and more targets."""


@compiled
def _climb_and_sample(
    images: FloatArray,
    codes: Any,
    tables: FloatArray,
    polynomials: LaneArray,
    variances: FloatArray,
    inverse_gain: float,
    rounded: float,
    log_flux: bool,
    min_separation: float,
    counts: Any,
    theta: FloatArray,
    low: FloatArray,
    high: FloatArray,
    deviation: FloatArray,
    score: FloatArray,
    fit: FloatArray,
    stuck: Any,
    converged: Any,
) -> None:
    """Replace `theta` (N, most, 3) by what the posterior between the bounds `low` and `high` says of each target.

    Fills `deviation` (N, most, 3), `score` (N, most), chi-squared `fit` (N,), and whether a mode lies at a bound,
    `stuck` (N, most), and is one, `converged` (N,); what lies beyond an image's count is left alone.
    """
    no_basis = np.zeros((0, images.shape[1], images.shape[2]))
    image, work = np.empty(images.shape[1:]), np.empty((4, max(images.shape[1:])))
    values = np.empty(SAMPLES)
    for n in range(images.shape[0]):
        count = counts[n]
        if count == 0:
            continue
        size = 3 * count
        least, most = low[n, :count].ravel(), high[n, :count].ravel()
        starts = least + ELSEWHERE[:, :size] * (most - least)
        starts[0] = theta[n, :count].ravel()
        for m in range(STARTS):
            _, arrived = maximise(
                starts[m], count, least, most, min_separation, tables, 0, 0, no_basis, images[n], codes[n],
                variances[n], inverse_gain, ITERATIONS, TOLERANCE,
            )  # fmt: skip
            render(starts[m], count, tables, 0, 0, no_basis, work, image)
            misfit = chi_squared(image, images[n], codes[n], variances[n], inverse_gain)
            if m == 0 or misfit < fit[n]:
                fit[n], converged[n] = misfit, arrived
                free = (least < starts[m]) & (starts[m] < most)
                for k in range(count):
                    stuck[n, k] = not free[3 * k : 3 * k + 3].all()
        excess = max(fit[n] / max((codes[n] == MEASURED).sum() - size, 1), 1.0)
        samples = np.empty((SAMPLES, size))
        kept = temper(
            starts, count, least, most, log_flux, min_separation, polynomials, 0, 0, no_basis,
            images[n], codes[n], variances[n] * excess, inverse_gain * excess, rounded,
            TEMPERATURES[:1] if count == 1 else TEMPERATURES, LANES, SWEEPS[min(count, len(SWEEPS)) - 1],
            BURN_SHARE, samples, values, 1,
        )  # fmt: skip
        summarise(samples, values, kept, count, 1.0, least, most, theta[n], deviation[n], score[n])


class Refined(ReadOut):
    """A grid method followed by a local step in continuous coordinates.

    Args:
        method: the grid method.
        prior: what is known of a group; its fluxes bound those of the targets and, by the flux of the whole map,
            their number, targets keep its separation, and stay in one pixel if it says so. None: any flux above 0,
            one cell of separation.
        workers: threads; the result does not depend on it.

    Raises:
        InputError: if `method` gives no map.
    """

    def __init__(self, method: GridMethod, prior: ScenePrior | None = None, workers: int | None = None) -> None:
        if not isinstance(method, GridMethod):
            raise InputError(f"only a grid method can be refined, got {type(method).__name__}")
        super().__init__(method)
        self.prior = prior
        self.workers = workers or os.cpu_count() or 1
        self._tables = profile_tables(self.sensor.psf)
        self._polynomials = polynomials_of(self.sensor.psf)
        self._flux = (FAINTEST, np.inf)
        self._log_flux = False
        self._separation_px = 1.0 / method.ratio
        if prior is not None:
            self._log_flux = prior.intensity_law == "log-uniform"
            faintest, brightest = flux_bounds(prior, self.sensor, float(self.sensor.noise_variance()) ** 0.5)
            self._flux = (max(faintest, FAINTEST), max(brightest, FAINTEST))
            self._separation_px = prior.min_separation_px

    def predict(self, images: FloatArray, threshold: float = START_THRESHOLD) -> list[Targets]:
        """One `Targets` for each image of a stack, in order, the brightest cells' target first.

        Args:
            images: (N, H, W) in counts; NaN pixels are left out, if the grid method can do without them.
            threshold: cells below start no target, and a target that ends below is dropped; in counts.

        Raises:
            InputError: if the images are not a stack of the sensor's shape.
        """
        stack = check_stack(images)
        if stack.shape[1:] != self.sensor.shape:
            raise InputError(f"images must be (N, H, W) of {self.sensor.shape} px, got shape {np.shape(images)}")
        return super().predict(stack, threshold)

    def read(self, images: FloatArray, maps: FloatArray, threshold: float = START_THRESHOLD) -> list[Targets]:
        """The same from maps (N, cH, cW) that are there already."""

        def refine_part(start: int) -> list[Targets]:
            part = slice(start, start + IMAGES_A_TASK)
            return self._refine(images[part], maps[part], threshold)

        with ThreadPoolExecutor(self.workers) as pool:
            parts = pool.map(refine_part, range(0, len(images), IMAGES_A_TASK))
            return [targets for part in parts for targets in part]

    def _start(self, cells: FloatArray, threshold: float, data: FloatArray, measured: NDArray[np.bool_]) -> Targets:
        """Where the climb begins; `data` is the image without background."""
        grid = self.method.grid
        if self.prior is None:
            return grid.centroids(cells, threshold)
        found = grid.decode(cells, threshold)
        shape = (self.sensor.render(found) - self.sensor.background)[measured]
        # The image knows the flux better than the map: penalties shrink it, and the threshold takes its part.
        total = float(found.intensity.sum() * (shape @ data[measured]) / max(shape @ shape, 1e-300))
        low, high = self.prior.count_range
        counts = np.arange(max(low, 1), max(high, 1) + 1)
        missed = np.maximum(np.maximum(counts * self._flux[0] - total, total - counts * self._flux[1]), 0.0)
        possible = counts[missed == missed.min()]
        return grid.centroids(cells, threshold, int(possible[0]), int(possible[-1]))

    def _refine(self, images: FloatArray, maps: FloatArray, threshold: float) -> list[Targets]:
        sensor = self.sensor
        data, codes = pixel_codes(images, sensor)
        data -= sensor.background
        variances = np.full(len(images), float(sensor.noise_variance(sensor.background)))
        if not variances.any():
            variances[:] = (EXACT_SHARE * np.maximum(np.abs(data).max(axis=(1, 2)), 1.0)) ** 2
        starts = [
            self._start(cells, threshold, image, code == MEASURED)[:MOST_TARGETS]
            for cells, image, code in zip(maps, data, codes, strict=True)
        ]
        counts = np.array([len(start) for start in starts])
        theta, low, high = self._bounds(starts, np.maximum(data, 0.0).sum(axis=(1, 2)))
        deviation, score = np.full_like(theta, np.nan), np.zeros((len(images), MOST_TARGETS))
        fit, stuck = np.zeros(len(images)), np.zeros((len(images), MOST_TARGETS), np.bool_)
        converged = np.zeros(len(images), np.bool_)
        _climb_and_sample(
            data, codes, self._tables, self._polynomials, variances, inverse_gain(sensor),
            noise_before_rounding(sensor, float(variances[0]) if len(images) else 0.0), self._log_flux,
            self._separation_px, counts, theta, low, high, deviation, score, fit, stuck, converged,
        )  # fmt: skip
        found = []
        for n, count in enumerate(counts):
            mean, errors = theta[n, :count], deviation[n, :count]
            certain = np.where(np.arange(count + 1) == count, 0.0, -np.inf)
            flags = describe(int(count), certain, float(fit[n]), codes[n], 0).flags
            if not converged[n]:
                flags |= Flag.NOT_CONVERGED
            targets = Targets(
                x=mean[:, 0],
                y=mean[:, 1],
                intensity=mean[:, 2],
                score=score[n, :count],
                x_std=errors[:, 0],
                y_std=errors[:, 1],
                intensity_std=errors[:, 2],
                flags=np.where(stuck[n, :count], int(flags | Flag.AT_BOUND), int(flags)),
            )
            found.append(targets[targets.intensity >= threshold])
        return found

    def _bounds(self, starts: list[Targets], light: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Start, lower and upper bounds (N, MOST_TARGETS, 3) of x, y and flux; `light` (N,) is an image's in all."""
        theta = np.zeros((len(starts), MOST_TARGETS, 3))
        low, high = theta.copy(), theta.copy()
        rows, columns = self.sensor.shape
        for n, targets in enumerate(starts):
            least, most = np.array([[-0.5, -0.5, self._flux[0]], [columns - 0.5, rows - 0.5, self._flux[1]]])
            place = np.stack([targets.x, targets.y], axis=1)
            if self.prior is not None and self.prior.single_pixel and len(targets):
                pixel = np.floor(np.average(place, axis=0, weights=targets.intensity) + 0.5)
                least[:2], most[:2] = np.maximum(least[:2], pixel - 0.5), np.minimum(most[:2], pixel + 0.5)
            # Chains need an end: no target is brighter than all the light there is, twice over.
            most[2] = min(most[2], max(2.0 * light[n], 2.0 * targets.intensity.max(initial=0.0)))
            theta[n, : len(targets)] = np.column_stack([np.clip(place, least[:2], most[:2]), targets.intensity])
            near = max(REACH_PX, 1.0 / self.method.ratio)
            reach = np.array([near, near, np.inf])
            low[n] = np.maximum(theta[n] - reach, least)
            high[n] = np.maximum(np.minimum(theta[n] + reach, most), low[n] + NARROWEST)
        return np.clip(theta, low, high), low, high
