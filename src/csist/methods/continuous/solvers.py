"""From windows to targets: search, sample and summarise whole stacks, under either kind of prior."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csist.datasets.scenes import ScenePrior, flux_bounds
from csist.methods.continuous.bank import (
    POLISHED_TO_COMPARE,
    Bank,
    build_bank,
    empty_outside,
    pixel_bounds,
    polish_in_pixel,
    reservoir_shares,
    search_pixel,
)
from csist.methods.continuous.likelihood import (
    AT_CEILING,
    IGNORED,
    MEASURED,
    compiled,
    log_likelihood,
    profile_tables,
    render,
)
from csist.methods.continuous.posterior import summarise, temper
from csist.methods.continuous.search import search_free, window_bounds
from csist.physics.sensor import Sensor
from csist.targets import Flag, Targets

FloatArray = NDArray[np.float64]

CONTENDER_MARGIN = 10.0
"""Counts within so much log evidence (Laplace) of the best are sampled, and weighed by the samples."""

TEMPERATURE_RATIO = 3.0

POLISH_ITERATIONS = 40

RESERVOIR_EFFECTIVE = 200.0
"""Configurations of the bank that must count at the temperature at which it feeds the chains."""

FREE_CHAINS = 3
"""Most temperatures where targets may lie anywhere: they can pass each other, so few are needed."""

BACKGROUND_WIDTH = 10.0
"""An unknown background term lies within so many noise standard deviations of zero."""

AT_BOUND, NOT_CONVERGED = int(Flag.AT_BOUND), int(Flag.NOT_CONVERGED)

POOR_FIT_SIGMAS = 6.0
"""A chi-squared so many standard deviations above its mean is called a poor fit."""
POOR_FIT_TRUST = 0.1
"""Factor on the score of a poor fit: the model does not hold, so its probabilities do not either."""
AMBIGUOUS = 0.1
"""Probability of another count from which the count is called ambiguous."""


@dataclass(frozen=True)
class Effort:
    """How hard to search and sample.

    Args:
        bank: configurations a count in the bank.
        scan: of these, compared at each candidate pixel and count.
        starts: configurations polished.
        steps: sampling steps, over all chains, for 1, 2, 3, 4 and more targets.
        chains: most temperatures, each `TEMPERATURE_RATIO` times the one before.
        samples: samples kept.
    """

    bank: int
    scan: int
    starts: int
    steps: tuple[int, int, int, int]
    chains: int
    samples: int


EFFORTS = {
    "accurate": Effort(bank=8192, scan=128, starts=16, steps=(1500, 4000, 10_000, 18_000), chains=12, samples=400),
    "fast": Effort(bank=1024, scan=48, starts=4, steps=(200, 400, 1200, 2000), chains=12, samples=150),
}


@dataclass(frozen=True)
class Group:
    """What is known of one group besides its targets.

    Args:
        count: most probable number of targets.
        count_probability: (Kmax + 1,) probability of 0, 1, 2, ... targets.
        chi_squared: of the best fit, over all measured pixels of the window.
        degrees_of_freedom: measured pixels minus parameters.
        flags: bits of `Flag`.
    """

    count: int
    count_probability: FloatArray
    chi_squared: float
    degrees_of_freedom: int
    flags: Flag


def describe(
    count: int, log_evidence: FloatArray, chi_squared: float, code: NDArray[np.int8], background_terms: int
) -> Group:
    """Group information from the log evidence of each count and the best fit's chi-squared."""
    probability = np.exp(log_evidence - log_evidence.max())
    probability /= probability.sum()
    freedom = max(int((code == MEASURED).sum()) - 3 * count - background_terms, 1)
    flags = Flag(0)
    if (chi_squared - freedom) / np.sqrt(2.0 * freedom) > POOR_FIT_SIGMAS:
        flags |= Flag.POOR_FIT
    if probability[count] < 1.0 - AMBIGUOUS:
        flags |= Flag.AMBIGUOUS_COUNT
    if (code == AT_CEILING).any():
        flags |= Flag.SATURATED
    if (code == IGNORED).any():
        flags |= Flag.MASKED
    return Group(count, probability, chi_squared, freedom, flags)


def inverse_gain(sensor: Sensor) -> float:
    """Counts per electron; 0 where the sensor has no shot noise."""
    return 0.0 if sensor.gain is None else 1.0 / sensor.gain


class _Results:
    """Arrays that the compiled solvers fill, and what becomes of them."""

    def __init__(self, number: int, most: int) -> None:
        self.estimate, self.deviation = np.empty((number, most, 3)), np.empty((number, most, 3))
        self.score, self.evidence = np.empty((number, most)), np.empty((number, most + 1))
        self.count, self.fit = np.empty(number, np.int64), np.empty(number)
        self.trouble = np.zeros((number, most), np.int64)

    def assemble(self, codes: NDArray[np.int8], background_terms: int) -> tuple[list[Targets], list[Group]]:
        """One `Targets` and one `Group` an image."""
        targets, groups = [], []
        for n, count in enumerate(self.count):
            k = int(count)
            group = describe(k, self.evidence[n], float(self.fit[n]), codes[n], background_terms)
            groups.append(group)
            trust = POOR_FIT_TRUST if Flag.POOR_FIT in group.flags else 1.0
            targets.append(
                Targets(
                    x=self.estimate[n, :k, 0],
                    y=self.estimate[n, :k, 1],
                    intensity=self.estimate[n, :k, 2],
                    score=self.score[n, :k] * group.count_probability[k] * trust,
                    x_std=self.deviation[n, :k, 0],
                    y_std=self.deviation[n, :k, 1],
                    intensity_std=self.deviation[n, :k, 2],
                    flags=int(group.flags) | self.trouble[n, :k],
                    group=np.zeros(k, np.int64),
                )
            )
        return targets, groups


@compiled
def sample_in_pixel(
    data: FloatArray,
    code: Any,
    tables: FloatArray,
    variance: float,
    inverse_gain: float,
    count: int,
    row: int,
    column: int,
    flux: FloatArray,
    log_flux: bool,
    min_separation: float,
    bank_positions: FloatArray,
    bank_images: Any,
    starts: int,
    steps: int,
    temperature_ratio: float,
    most_chains: int,
    start: FloatArray,
    seed: int,
    modes: FloatArray,
    misfits: FloatArray,
    samples: FloatArray,
    values: FloatArray,
) -> tuple[int, float]:
    """Sample the posterior of `count` targets inside the pixel (row, column) of a window.

    The chains start at the modes found from the bank (filled into `modes`, best first), or at `start`
    (3 count,) where that is not empty.

    Returns:
        how many samples were filled, and the log evidence of the count over the whole window.
    """
    rows, columns = data.shape
    reach = bank_images.shape[2] // 2
    size = 3 * count
    found = polish_in_pixel(
        data, code, tables, variance, inverse_gain, count, row, column, flux, min_separation,
        bank_positions, bank_images, bank_images.shape[1], starts, POLISH_ITERATIONS, modes, misfits,
    )  # fmt: skip
    begin = modes[:found, :size].copy() if start.shape[0] == 0 else start.copy().reshape(1, size)
    r0, r1 = max(row - reach, 0), min(row + reach + 1, rows)
    c0, c1 = max(column - reach, 0), min(column + reach + 1, columns)
    low, high = pixel_bounds(count, row, column, flux)
    shares = np.empty(misfits.shape[0])
    hottest = reservoir_shares(misfits, variance, RESERVOIR_EFFECTIVE, shares)
    chains = min(max(math.ceil(math.log(hottest) / math.log(temperature_ratio)), 1), most_chains)
    temperatures = np.empty(chains + 1)
    for chain in range(chains):
        temperatures[chain] = temperature_ratio**chain
    temperatures[chains] = max(hottest, temperature_ratio ** (chains - 1))
    reservoir = np.empty((bank_positions.shape[1], 2 * count))
    for m in range(reservoir.shape[0]):
        for k in range(count):
            reservoir[m, 2 * k] = column + bank_positions[count, m, k, 0]
            reservoir[m, 2 * k + 1] = row + bank_positions[count, m, k, 1]
    sweeps = max(steps // chains, 5)
    kept, log_evidence = temper(
        begin, count, low, high, log_flux, min_separation, tables, r0, c0, np.zeros((0, r1 - r0, c1 - c0)),
        data[r0:r1, c0:c1], code[r0:r1, c0:c1].copy(), variance, inverse_gain, temperatures, reservoir, shares,
        sweeps, sweeps // 5, samples, values, seed,
    )  # fmt: skip
    return kept, log_evidence + empty_outside(data, code, r0, r1, c0, c1, variance)


@compiled
def _solve_in_pixel(
    images: FloatArray,
    codes: Any,
    tables: FloatArray,
    variance: float,
    inverse_gain: float,
    counts: Any,
    flux: FloatArray,
    log_flux: bool,
    min_separation: float,
    bank_positions: FloatArray,
    bank_images: Any,
    log_allowed: FloatArray,
    scan: int,
    starts: int,
    steps: Any,
    temperature_ratio: float,
    most_chains: int,
    kept_samples: int,
    estimate: FloatArray,
    deviation: FloatArray,
    score: FloatArray,
    evidence: FloatArray,
    found_count: Any,
    fit: FloatArray,
) -> None:
    """Search, sample and summarise each window of a stack; every result array has the stack's length."""
    most = bank_positions.shape[2]
    rows, columns = images.shape[1], images.shape[2]
    modes = np.empty((max(starts, POLISHED_TO_COMPARE), 3 * most))
    values = np.empty(kept_samples)
    misfits = np.empty(bank_positions.shape[1])
    places = np.empty((most + 1, 2), np.int64)
    work, image = np.empty((4, max(rows, columns))), np.empty((rows, columns))
    no_basis = np.zeros((0, rows, columns))
    for n in range(images.shape[0]):
        data, code = images[n], codes[n]
        search_pixel(
            data, code, tables, variance, inverse_gain, counts, flux, log_flux, min_separation,
            bank_positions, bank_images, log_allowed, scan, POLISH_ITERATIONS, evidence[n], places, modes, misfits,
        )  # fmt: skip
        best = evidence[n].max()
        contenders = (evidence[n, 1:] > best - CONTENDER_MARGIN).sum()
        winner = 0
        for count in range(1, most + 1):
            if evidence[n, count] <= best - CONTENDER_MARGIN:
                continue
            row, column = places[count]
            samples = np.empty((kept_samples, 3 * count))
            kept, log_evidence = sample_in_pixel(
                data, code, tables, variance, inverse_gain, count, row, column, flux, log_flux, min_separation,
                bank_positions, bank_images, starts, steps[min(count, steps.shape[0]) - 1], temperature_ratio,
                most_chains, np.empty(0), 1, modes, misfits, samples, values,
            )  # fmt: skip
            if contenders > 1:
                evidence[n, count] = log_evidence
            if winner == 0 or evidence[n, count] > evidence[n, winner]:
                winner = count
                render(modes[0, : 3 * count], count, tables, 0, 0, no_basis, work, image)
                fit[n] = -2.0 * log_likelihood(image, data, code, variance, inverse_gain)
                summarise(samples, values, kept, count, estimate[n], deviation[n], score[n])
        if winner == 0 or evidence[n, 0] > evidence[n, winner]:
            winner = 0
            fit[n] = -2.0 * evidence[n, 0]
        found_count[n] = winner


@compiled
def _solve_free(
    images: FloatArray,
    codes: Any,
    tables: FloatArray,
    variance: float,
    inverse_gain: float,
    basis: FloatArray,
    most: int,
    target_low: FloatArray,
    target_high: FloatArray,
    terms_low: FloatArray,
    terms_high: FloatArray,
    log_flux: bool,
    min_separation: float,
    split_px: float,
    steps: Any,
    temperature_ratio: float,
    most_chains: int,
    kept_samples: int,
    estimate: FloatArray,
    deviation: FloatArray,
    score: FloatArray,
    evidence: FloatArray,
    found_count: Any,
    fit: FloatArray,
    trouble: Any,
) -> None:
    """As `_solve_in_pixel`, for targets anywhere in the window; `trouble` (n, Kmax) gets bits of `Flag`."""
    h, w = images.shape[1], images.shape[2]
    terms = basis.shape[0]
    modes = np.empty((most + 1, 3 * most + terms))
    at_mode, converged = np.empty(most + 1), np.empty(most + 1, np.bool_)
    values = np.empty(kept_samples)
    work, image = np.empty((4, max(h, w))), np.empty((h, w))
    no_reservoir, no_share = np.empty((0, 0)), np.empty(0)
    temperatures = np.empty(most_chains)
    for chain in range(most_chains):
        temperatures[chain] = temperature_ratio**chain
    for n in range(images.shape[0]):
        data, code = images[n], codes[n]
        search_free(
            data, code, tables, variance, inverse_gain, basis, 0, 0, most, target_low, target_high, terms_low,
            terms_high, log_flux, min_separation, split_px, evidence[n], modes, at_mode, converged,
        )  # fmt: skip
        count = int(np.argmax(evidence[n]))
        found_count[n] = count
        size = 3 * count + terms
        mode = modes[count, :size].copy()
        render(mode, count, tables, 0, 0, basis, work, image)
        fit[n] = -2.0 * log_likelihood(image, data, code, variance, inverse_gain)
        if count == 0:
            continue
        low, high = window_bounds(count, target_low, target_high, terms_low, terms_high)
        for k in range(count):
            trouble[n, k] = 0 if converged[count] else NOT_CONVERGED
            for p in range(3 * k, 3 * k + 3):
                if mode[p] <= low[p] or mode[p] >= high[p]:
                    trouble[n, k] |= AT_BOUND
        chains = 1 if count == 1 else most_chains
        sweeps = steps[min(count, steps.shape[0]) - 1] // chains
        samples = np.empty((kept_samples, size))
        kept, _ = temper(
            mode.reshape(1, size), count, low, high, log_flux, min_separation, tables, 0, 0, basis, data, code,
            variance, inverse_gain, temperatures[:chains], no_reservoir, no_share, sweeps, sweeps // 5, samples,
            values, 1,
        )  # fmt: skip
        summarise(samples, values, kept, count, estimate[n], deviation[n], score[n])


class PixelSolver:
    """Solves windows whose group lies inside one pixel; arguments as `FreeSolver`."""

    def __init__(self, sensor: Sensor, prior: ScenePrior, effort: Effort, variance: float) -> None:
        self.sensor, self.prior, self.effort, self.variance = sensor, prior, effort, variance
        self.flux = np.array(flux_bounds(prior, sensor, variance**0.5))
        self.tables = profile_tables(sensor.psf)
        self.bank: Bank = build_bank(sensor.psf, prior, self._reach(), effort.bank)

    def _reach(self) -> int:
        """Pixels on each side of the group's pixel beyond which its light is lost in the noise."""
        limit = 0.1 * self.variance**0.5 / self.flux[1]
        reach = 1
        while reach < self.sensor.psf.radius_px and self.sensor.psf.response(reach + 0.5, 0.0) > limit:
            reach += 1
        return reach

    def solve(self, images: FloatArray, codes: NDArray[np.int8]) -> tuple[list[Targets], list[Group]]:
        """Targets and group information of each background-subtracted image; `codes` says what a pixel is worth."""
        results = _Results(len(images), self.prior.count_range[1])
        _solve_in_pixel(
            images, codes, self.tables, self.variance, inverse_gain(self.sensor), np.array(self.prior.count_range),
            self.flux, self.prior.intensity_law == "log-uniform", self.prior.min_separation_px, self.bank.positions,
            self.bank.images, self.bank.log_allowed, self.effort.scan, self.effort.starts,
            np.array(self.effort.steps), TEMPERATURE_RATIO, self.effort.chains, self.effort.samples,
            results.estimate, results.deviation, results.score, results.evidence, results.count, results.fit,
        )  # fmt: skip
        return results.assemble(codes, 0)


class FreeSolver:
    """Solves windows whose targets may lie anywhere.

    Args:
        sensor: with the windows' shape.
        prior: scene prior, not single-pixel.
        effort: how hard to try.
        variance: of a pixel, without shot noise, in counts^2.
        background_terms: 0 for a known background, 1 for an unknown constant, 3 for an unknown plane.
    """

    def __init__(
        self, sensor: Sensor, prior: ScenePrior, effort: Effort, variance: float, background_terms: int
    ) -> None:
        self.sensor, self.prior, self.effort, self.variance = sensor, prior, effort, variance
        rows, columns = sensor.shape
        flux = flux_bounds(prior, sensor, variance**0.5)
        self.low = np.array([-0.5, -0.5, flux[0]])
        self.high = np.array([columns - 0.5, rows - 0.5, flux[1]])
        y, x = np.meshgrid(np.linspace(-1.0, 1.0, rows), np.linspace(-1.0, 1.0, columns), indexing="ij")
        self.basis = np.stack([np.ones((rows, columns)), x, y])[:background_terms]
        self.terms = np.full(background_terms, BACKGROUND_WIDTH * variance**0.5)
        self.tables = profile_tables(sensor.psf)
        reach = np.arange(-np.ceil(sensor.psf.radius_px), np.ceil(sensor.psf.radius_px) + 1)
        response = sensor.psf.response(reach[None, :], reach[:, None])
        self.split_px = float(np.sqrt((response * reach[None, :] ** 2).sum() / response.sum()))

    def solve(self, images: FloatArray, codes: NDArray[np.int8]) -> tuple[list[Targets], list[Group]]:
        """Targets and group information of each background-subtracted image; `codes` says what a pixel is worth."""
        results = _Results(len(images), self.prior.count_range[1])
        _solve_free(
            images, codes, self.tables, self.variance, inverse_gain(self.sensor), self.basis,
            self.prior.count_range[1], self.low, self.high, -self.terms, self.terms,
            self.prior.intensity_law == "log-uniform", self.prior.min_separation_px, self.split_px,
            np.array(self.effort.steps), TEMPERATURE_RATIO, min(self.effort.chains, FREE_CHAINS), self.effort.samples,
            results.estimate, results.deviation, results.score, results.evidence, results.count, results.fit,
            results.trouble,
        )  # fmt: skip
        return results.assemble(codes, len(self.terms))
