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
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from csist._compiled import compiled
from csist._types import BoolArray, FloatArray
from csist.checks import InputError, check_stack
from csist.methods.base import GridMethod
from csist.methods.continuous.group import describe
from csist.methods.continuous.kernels import kernels
from csist.methods.continuous.likelihood import chi_squared, render
from csist.methods.continuous.method import IMAGES_A_TASK
from csist.methods.continuous.model import (
    MEASURED,
    Bounds,
    Noise,
    Stack,
    copy_into,
    cut,
    inverse_gain,
    stack_of,
    whole_region,
)
from csist.methods.continuous.optics import optics_of
from csist.methods.continuous.optimise import Stop
from csist.methods.continuous.posterior import empty_draws, empty_summary, summarise_stack
from csist.methods.continuous.rounding import noise_before_rounding
from csist.methods.continuous.search import Climbers, call_maximise, climbers
from csist.methods.continuous.tempering import BURN_IN, Groups, Ladder, Laws, temper_stack
from csist.methods.readout.base import ReadOut
from csist.scenes import ScenePrior, flux_bounds
from csist.targets import Flag, Targets

START_SHARE = 0.6
"""Cells below this share of the read-out's threshold start no target. Less than 1: what is too much is merged or fades
in the climb, what is missing stays missing."""

REACH_PX = 1.0
"""A position stays so close to its start along each axis, or within a cell if that is more: the blur, not the grid,
decides how far off a cell may be."""

MOST_TARGETS = 32
"""Targets of one image, the brightest; further ones are dropped."""

FAINTEST = 1e-3
"""Lower bound of a flux in counts where no prior has one."""

LIT_SHARE = 0.02
"""Pixels with so much of the light of the brightest one, by the map, are summed to measure an image's flux."""

NARROWEST = 1e-6
"""Distance of two bounds, in px or counts, below which a parameter counts as known that well."""

SPLIT_PX = 0.25
"""Distance of the two halves of a split target from its place."""

STOP = Stop(iterations=60, tolerance=1e-3)
"""Most steps of the climb, and the gain in log likelihood below which it ends."""

EXACT_SHARE = 1e-3
"""Where nothing adds noise, this share of the image's largest value stands for what the model leaves out."""

TEMPERATURES = np.array([1.0, 2.0, 4.0, 8.0])
"""Of the chains; the hot ones carry a pair that is hard to tell apart past each other."""

CHAINS, SAMPLES = 32, 400
"""Chains, and samples kept of those at temperature 1."""

STARTS = 16
"""Modes from which chains start: one climb begins at the cells, the others anywhere between the bounds."""
ELSEWHERE = np.random.default_rng(0).uniform(0.0, 1.0, (STARTS, 3 * MOST_TARGETS))
"""Where these begin, as shares of the way from the lower to the upper bound."""

UNLIKELY = 20.0
"""Chains do not start from modes whose chi-squared is so much larger than the best one's."""

SWEEPS = np.array([250, 500, 1000, 2000])
"""Sweeps of the chains for 1, 2, 3, 4 and more targets."""

LADDER = Ladder(TEMPERATURES, 1, CHAINS, SWEEPS, BURN_IN, seed=1, is_scattered=False, turns=1)


class Climbed(NamedTuple):
    """Modes of the targets of each image.

    Args:
        modes: (N, STARTS, parameters) that the climbs reach.
        misfit: (N, STARTS) chi-squared of each.
        stuck: (N, MOST_TARGETS) whether a parameter of the best lies at a bound.
        converged: (N,) whether the climb to the best converged.
    """

    modes: FloatArray
    misfit: FloatArray
    stuck: BoolArray
    converged: BoolArray


@compiled
def climb_stack(climb: Climbers, stack: Stack, groups: Groups, laws: Laws, tables: FloatArray, found: Climbed) -> None:
    """Climb from all starts of the group in each window.

    Args:
        climb: addresses of kernels.
        stack: the windows.
        groups: what is known of each group.
        laws: what they share.
        tables: of `Optics`.
        found: filled.
    """
    rows, columns = stack.data.shape[1], stack.data.shape[2]
    image, profiles = np.empty((rows, columns)), np.empty((4, max(rows, columns)))
    for n in range(groups.counts.shape[0]):
        count = groups.counts[n]
        window = cut(stack, n, groups.regions[n])
        noise = Noise(groups.variance[n], groups.inverse_gain[n], laws.before_rounding)
        bounds = Bounds(groups.low[n, : 3 * count], groups.high[n, : 3 * count], laws.log_flux, laws.min_separation)
        best = np.inf
        for m in range(groups.number[n] if count > 0 else 0):
            theta = groups.starts[n, m, : 3 * count].copy()
            _, converged = call_maximise(climb.maximise, theta, bounds, window, noise, tables, STOP)
            copy_into(found.modes[n, m], theta)
            render(theta, window, tables, profiles, image)
            found.misfit[n, m] = chi_squared(image, window, noise)
            if found.misfit[n, m] < best:
                best, found.converged[n] = found.misfit[n, m], converged
                for k in range(count):
                    found.stuck[n, k] = False
                    for p in range(3 * k, 3 * k + 3):
                        if theta[p] <= bounds.low[p] or theta[p] >= bounds.high[p]:
                            found.stuck[n, k] = True


def _likely(found: Climbed, excess: FloatArray) -> FloatArray:
    """Return the modes (N, STARTS, parameters) with the best one in place of those that are far less likely."""
    behind = (found.misfit - found.misfit.min(axis=1, keepdims=True)) / excess[:, None]
    best = found.misfit.argmin(axis=1)
    chosen = np.where(behind > UNLIKELY, best[:, None], np.arange(STARTS))
    return np.take_along_axis(found.modes, chosen[:, :, None], axis=1)


def _split(targets: Targets, fewest: int) -> Targets:
    """Split the brightest target in two halves, one on either side, until there are `fewest`; none stay none."""
    while 0 < len(targets) < fewest:
        halved = np.arange(len(targets)) == targets.intensity.argmax()
        half = targets[halved].replace(intensity=0.5 * targets[halved].intensity)
        left, right = half.replace(x=half.x - SPLIT_PX), half.replace(x=half.x + SPLIT_PX)
        targets = Targets.concatenate([targets[~halved], left, right])
    return targets


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
        self._optics = optics_of(self.sensor.psf)
        self._flux = (FAINTEST, np.inf)
        self._log_flux = False
        self._separation_px = 1.0 / method.ratio
        if prior is not None:
            self._log_flux = prior.intensity_law == "log-uniform"
            faintest, brightest = flux_bounds(prior, self.sensor, float(self.sensor.noise_variance()) ** 0.5)
            self._flux = (max(faintest, FAINTEST), max(brightest, FAINTEST))
            self._separation_px = prior.min_separation_px

    def predict(self, images: FloatArray, threshold: float | None = None) -> list[Targets]:
        """One `Targets` for each image of a stack, in order, the brightest cells' target first.

        Args:
            images: (N, H, W) in counts; NaN pixels are left out, if the grid method can do without them.
            threshold: cells below start no target, and a target that ends below is dropped; in counts. None for
                `START_SHARE` of that of the grid.

        Raises:
            InputError: if the images are not a stack of the sensor's shape.
        """
        stack = check_stack(images)
        if stack.shape[1:] != self.sensor.shape:
            raise InputError(f"images must be (N, H, W) of {self.sensor.shape} px, got shape {np.shape(images)}")
        return super().predict(stack, threshold)

    def read(self, images: FloatArray, maps: FloatArray, threshold: float | None = None) -> list[Targets]:
        """The same from maps (N, cH, cW) that are there already."""
        faintest = START_SHARE * self.method.grid.threshold if threshold is None else threshold

        def refine_part(start: int) -> list[Targets]:
            part = slice(start, start + IMAGES_A_TASK)
            return self._refine(images[part], maps[part], faintest)

        with ThreadPoolExecutor(self.workers) as pool:
            parts = pool.map(refine_part, range(0, len(images), IMAGES_A_TASK))
            return [targets for part in parts for targets in part]

    def _start(self, cells: FloatArray, threshold: float, data: FloatArray, measured: NDArray[np.bool_]) -> Targets:
        """Where the climb begins; `data` is the image without background."""
        grid = self.method.grid
        if self.prior is None:
            return grid.centroids(cells, threshold)
        found = grid.decode(cells, threshold)
        shape = self.sensor.render(found) - self.sensor.background
        # The image knows the flux better than the map: penalties shrink it, and the threshold takes its part.
        lit = measured & (shape > LIT_SHARE * shape.max(initial=0.0))
        total = float(found.intensity.sum() * data[lit].sum() / max(shape[lit].sum(), 1e-300))
        low, high = self.prior.count_range
        counts = np.arange(max(low, 1), max(high, 1) + 1)
        missed = np.maximum(np.maximum(counts * self._flux[0] - total, total - counts * self._flux[1]), 0.0)
        possible = counts[missed == missed.min()]
        return _split(grid.centroids(cells, threshold, int(possible[0]), int(possible[-1])), int(possible[0]))

    def _refine(self, images: FloatArray, maps: FloatArray, threshold: float) -> list[Targets]:
        sensor = self.sensor
        stack = stack_of(images, sensor)
        variances = np.full(len(images), float(sensor.noise_variance(sensor.background)))
        if not variances.any():
            variances[:] = (EXACT_SHARE * np.maximum(np.abs(stack.data).max(axis=(1, 2)), 1.0)) ** 2
        starts = [
            self._start(cells, threshold, image, code == MEASURED)[:MOST_TARGETS]
            for cells, image, code in zip(maps, stack.data, stack.code, strict=True)
        ]
        groups = self._groups(stack, starts, variances)
        rounded = noise_before_rounding(sensor, float(variances[0]) if len(images) else 0.0)
        laws = Laws(self._optics.polynomials, self._log_flux, self._separation_px, rounded)
        found = Climbed(
            np.empty_like(groups.starts), np.zeros((len(images), STARTS)),
            np.zeros((len(images), MOST_TARGETS), np.bool_), np.zeros(len(images), np.bool_),
        )  # fmt: skip
        climb_stack(climbers(), stack, groups, laws, self._optics.tables, found)
        measured = (stack.code == MEASURED).sum(axis=(1, 2))
        fit = found.misfit.min(axis=1)
        excess = np.maximum(fit / np.maximum(measured - 3 * groups.counts, 1), 1.0)
        noisier = groups._replace(
            starts=_likely(found, excess), variance=groups.variance * excess, inverse_gain=groups.inverse_gain * excess
        )
        draws, summary = empty_draws(len(images), SAMPLES, 3 * MOST_TARGETS), empty_summary(len(images), MOST_TARGETS)
        temper_stack(kernels(Noise(0.0, 0.0, rounded)), stack, noisier, laws, LADDER, draws)
        summarise_stack(draws, groups.counts, np.ones(len(images)), groups.low, groups.high, summary)
        answers = []
        for n, count in enumerate(groups.counts):
            mean, errors = summary.estimate[n, :count], summary.deviation[n, :count]
            certain = np.where(np.arange(count + 1) == count, 0.0, -np.inf)
            flags = describe(int(count), certain, float(fit[n]), stack.code[n], 0).flags
            if not found.converged[n]:
                flags |= Flag.NOT_CONVERGED
            targets = Targets(
                x=mean[:, 0],
                y=mean[:, 1],
                intensity=mean[:, 2],
                score=summary.score[n, :count],
                x_std=errors[:, 0],
                y_std=errors[:, 1],
                intensity_std=errors[:, 2],
                flags=np.where(found.stuck[n, :count], int(flags | Flag.AT_BOUND), int(flags)),
            )
            answers.append(targets[targets.intensity >= threshold])
        return answers

    def _groups(self, stack: Stack, starts: list[Targets], variances: FloatArray) -> Groups:
        """What the climbs and the chains are given; the first start is the map's, the others lie anywhere."""
        theta, low, high = (
            bound.reshape(len(starts), -1)
            for bound in self._bounds(starts, np.maximum(stack.data, 0.0).sum(axis=(1, 2)))
        )
        counts = np.array([len(start) for start in starts], dtype=np.int64)
        climbed_from = low[:, None] + ELSEWHERE * (high - low)[:, None]
        climbed_from[:, 0] = theta
        return Groups(
            counts, np.tile(whole_region(stack), (len(starts), 1)), climbed_from, np.full(len(starts), STARTS), low,
            high,
            variances, np.full(len(starts), inverse_gain(self.sensor)),
        )  # fmt: skip

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
