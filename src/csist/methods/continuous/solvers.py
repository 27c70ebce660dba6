"""From windows to targets: search, sample and summarise whole stacks, under either kind of prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from csist.checks import InputError
from csist.methods.continuous.annealing import LANES, anneal, reservoir_shares
from csist.methods.continuous.bank import (
    Bank,
    build_bank,
    compare_bank,
    empty_outside,
    pixel_bounds,
    polish_in_pixel,
    search_pixel,
)
from csist.methods.continuous.lanes import polynomials_of
from csist.methods.continuous.likelihood import (
    AT_CEILING,
    IGNORED,
    MEASURED,
    chi_squared,
    compiled,
    profile_tables,
    render,
)
from csist.methods.continuous.posterior import summarise
from csist.methods.continuous.rounding import noise_before_rounding
from csist.methods.continuous.search import search_free, window_bounds
from csist.methods.continuous.tempering import BURN_SHARE, temper
from csist.physics.psf import spread_px
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, flux_bounds
from csist.targets import Flag, Targets

FloatArray = NDArray[np.float64]
LaneArray = NDArray[np.float32]

CONTENDER_MARGIN = 10.0
"""Counts within so much log evidence (Laplace) of the best are sampled, and weighed by the samples."""

POLISH_ITERATIONS = 40

RESERVOIR_EFFECTIVE = 200.0
"""Configurations of the bank that must count at the temperature at which the annealing starts."""

TEMPERATURE_RATIO = 3.0
TEMPERED_LANES = 32

BACKGROUND_WIDTH = 10.0
"""An unknown background term lies within so many noise standard deviations of zero."""

AT_BOUND, NOT_CONVERGED = int(Flag.AT_BOUND), int(Flag.NOT_CONVERGED)

POOR_FIT_SIGMAS = 5.0
"""A chi-squared as unlikely as so many standard deviations above the mean of a normal variable is a poor fit."""
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
        blocks: population of the annealing, in `LANES`; 0 samples by tempered chains from polished modes instead.
        moves: steps of every chain at each stage of the annealing, for each target.
        last_moves: steps at its end.
        records: times that the population is recorded during these.
        starts: modes from which tempered chains start.
        levels: their temperatures, each three times the last.
        sweeps: their steps for 1, 2, 3, 4 and more targets.
        samples: samples kept of theirs.
        widening: factor on the spread of the samples of a group inside a pixel, for 1, 2, 3, ... and more targets; see
            scripts/choose_widening.py.
    """

    bank: int
    scan: int
    blocks: int
    moves: int
    last_moves: int
    records: int
    starts: int
    levels: int
    sweeps: tuple[int, int, int, int]
    samples: int
    widening: tuple[float, ...]

    def temperatures(self) -> FloatArray:
        """Of the tempered chains, (levels,)."""
        return np.array([TEMPERATURE_RATIO**level for level in range(self.levels)])


EFFORTS = {
    "accurate": Effort(
        bank=8192, scan=128, blocks=2, moves=15, last_moves=160, records=8, starts=1, levels=4,
        sweeps=(100, 400, 1000, 1000), samples=400, widening=(1.0, 1.0, 1.02, 1.04, 1.08),
    ),
    "fast": Effort(
        bank=1024, scan=48, blocks=0, moves=0, last_moves=0, records=0, starts=8, levels=4,
        sweeps=(20, 30, 60, 120), samples=160, widening=(1.1, 1.9, 2.4, 3.0, 3.5),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Group:
    """What is known of one group besides its targets.

    Args:
        count: most probable number of targets.
        count_probability: (Kmax + 1,) probability of 0, 1, 2, ... targets.
        chi_squared: of the best fit, over all measured pixels of the window.
        degrees_of_freedom: measured pixels minus parameters.
        flags: bits of `Flag`.
        samples: (m, count, 3) x, y in px and intensity in counts of the targets, in their order, drawn from the
            posterior given the count; None unless asked for.
    """

    count: int
    count_probability: FloatArray
    chi_squared: float
    degrees_of_freedom: int
    flags: Flag
    samples: FloatArray | None = None

    def covariance(self) -> FloatArray:
        """Covariance (3 count, 3 count) of x_1, y_1, intensity_1, x_2, ... given the count.

        Raises:
            InputError: if the samples were not kept.
        """
        samples = self._kept()
        return np.atleast_2d(np.cov(samples.reshape(len(samples), 3 * self.count), rowvar=False))

    def interval(self, level: float = 0.68) -> FloatArray:
        """Central credible interval (2, count, 3), lower and upper ends of x, y and intensity of each target.

        Args:
            level: probability that it holds, 0 to 1.

        Raises:
            InputError: if the samples were not kept.
        """
        return np.quantile(self._kept(), [0.5 - 0.5 * level, 0.5 + 0.5 * level], axis=0)

    def _kept(self) -> FloatArray:
        if self.samples is None:
            raise InputError("this group has no samples: ask for them by keep_samples=True")
        return self.samples


def is_poor_fit(chi_squared: ArrayLike, freedom: ArrayLike) -> NDArray[np.bool_]:
    """Whether a chi-squared is too large for its degrees of freedom to be chance.

    Its cube root is nearly normal, also with few of them (Wilson & Hilferty, PNAS 17, 684, 1931).
    """
    number = np.asarray(freedom, dtype=np.float64)
    spread = 2.0 / (9.0 * number)
    return np.asarray(np.cbrt(np.asarray(chi_squared) / number) > 1.0 - spread + POOR_FIT_SIGMAS * np.sqrt(spread))


def describe(
    count: int,
    log_evidence: FloatArray,
    misfit: float,
    code: NDArray[np.int8],
    background_terms: int,
    samples: FloatArray | None = None,
) -> Group:
    """Group information from the log evidence of each count and the best fit's chi-squared, `misfit`."""
    probability = np.exp(log_evidence - log_evidence.max())
    probability /= probability.sum()
    freedom = max(int((code == MEASURED).sum()) - 3 * count - background_terms, 1)
    flags = Flag(0)
    if bool(is_poor_fit(misfit, freedom)):
        flags |= Flag.POOR_FIT
    if probability[count] < 1.0 - AMBIGUOUS:
        flags |= Flag.AMBIGUOUS_COUNT
    if (code == AT_CEILING).any():
        flags |= Flag.SATURATED
    if (code == IGNORED).any():
        flags |= Flag.MASKED
    return Group(count, probability, misfit, freedom, flags, samples)


def inverse_gain(sensor: Sensor) -> float:
    """Counts per electron; 0 where the sensor has no shot noise."""
    return 0.0 if sensor.gain is None else 1.0 / sensor.gain


class _Results:
    """Arrays that the compiled solvers fill, and what becomes of them."""

    def __init__(self, number: int, most: int, kept_samples: int) -> None:
        self.estimate, self.deviation = np.empty((number, most, 3)), np.empty((number, most, 3))
        self.score, self.evidence = np.empty((number, most)), np.empty((number, most + 1))
        self.count, self.fit = np.empty(number, np.int64), np.empty(number)
        self.trouble = np.zeros((number, most), np.int64)
        self.clouds = np.empty((number if kept_samples else 0, kept_samples, 3 * most))

    def assemble(self, codes: NDArray[np.int8], background_terms: int) -> tuple[list[Targets], list[Group]]:
        """One `Targets` and one `Group` an image."""
        targets, groups = [], []
        for n, count in enumerate(self.count):
            k = int(count)
            samples = self.clouds[n, :, : 3 * k].reshape(self.clouds.shape[1], k, 3) if len(self.clouds) else None
            group = describe(k, self.evidence[n], float(self.fit[n]), codes[n], background_terms, samples)
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
def anneal_in_pixel(
    data: FloatArray,
    code: Any,
    polynomials: LaneArray,
    variance: float,
    inverse_gain: float,
    rounded: float,
    count: int,
    row: int,
    column: int,
    flux: FloatArray,
    log_flux: bool,
    min_separation: float,
    bank_positions: FloatArray,
    bank_images: Any,
    blocks: int,
    moves: int,
    last_moves: int,
    seed: int,
    samples: FloatArray,
    values: FloatArray,
) -> float:
    """Sample the posterior of `count` targets inside the pixel (row, column) of a window.

    Returns:
        the log evidence of the count over the whole window.
    """
    rows, columns = data.shape
    reach = bank_images.shape[2] // 2
    r0, r1 = max(row - reach, 0), min(row + reach + 1, rows)
    c0, c1 = max(column - reach, 0), min(column + reach + 1, columns)
    size = bank_images.shape[1]
    misfits, fluxes, shares = np.empty(size), np.empty(size), np.empty(size)
    compare_bank(data, code, count, row, column, flux, bank_images, size, misfits, fluxes)
    hottest = reservoir_shares(misfits, variance, RESERVOIR_EFFECTIVE, shares)
    low, high = pixel_bounds(count, row, column, flux)
    bank = np.empty((size, 2 * count))
    for m in range(size):
        for k in range(count):
            bank[m, 2 * k] = column + bank_positions[count, m, k, 0]
            bank[m, 2 * k + 1] = row + bank_positions[count, m, k, 1]
    log_evidence = anneal(
        count, low, high, log_flux, min_separation, polynomials, r0, c0, data[r0:r1, c0:c1],
        code[r0:r1, c0:c1].copy(), variance, inverse_gain, rounded, bank, shares, hottest, blocks, moves * count,
        last_moves, samples, values, seed,
    )  # fmt: skip
    return log_evidence + empty_outside(data, code, r0, r1, c0, c1, variance)


@compiled
def _solve_in_pixel(
    images: FloatArray,
    codes: Any,
    tables: FloatArray,
    polynomials: LaneArray,
    variance: float,
    inverse_gain: float,
    rounded: float,
    counts: Any,
    flux: FloatArray,
    log_flux: bool,
    min_separation: float,
    bank_positions: FloatArray,
    bank_images: Any,
    log_allowed: FloatArray,
    scan: int,
    blocks: int,
    moves: int,
    last_moves: int,
    records: int,
    starts: int,
    temperatures: FloatArray,
    sweeps: Any,
    widening: FloatArray,
    kept_samples: int,
    estimate: FloatArray,
    deviation: FloatArray,
    score: FloatArray,
    evidence: FloatArray,
    found_count: Any,
    fit: FloatArray,
    clouds: FloatArray,
) -> None:
    """Search, sample and summarise each window of a stack; every result array has the stack's length."""
    most = bank_positions.shape[2]
    rows, columns = images.shape[1], images.shape[2]
    values = np.empty(kept_samples)
    polished = np.empty((starts, 3 * most))
    places, modes = np.empty((most + 1, 2), np.int64), np.empty((most + 1, 3 * most))
    work, image = np.empty((4, max(rows, columns))), np.empty((rows, columns))
    no_basis = np.zeros((0, rows, columns))
    for n in range(images.shape[0]):
        data, code = images[n], codes[n]
        search_pixel(
            data, code, tables, variance, inverse_gain, counts, flux, log_flux, min_separation,
            bank_positions, bank_images, log_allowed, scan, POLISH_ITERATIONS, evidence[n], places, modes,
        )  # fmt: skip
        best = evidence[n].max()
        contenders = (evidence[n, 1:] > best - CONTENDER_MARGIN).sum()
        winner = 0
        for count in range(1, most + 1):
            if evidence[n, count] <= best - CONTENDER_MARGIN or (blocks == 0 and evidence[n, count] < best):
                continue
            samples, kept = np.empty((kept_samples, 3 * count)), kept_samples
            row, column = places[count]
            low, high = pixel_bounds(count, row, column, flux)
            if blocks > 0:
                log_evidence = anneal_in_pixel(
                    data, code, polynomials, variance, inverse_gain, rounded, count, row, column, flux, log_flux,
                    min_separation, bank_positions, bank_images, blocks, moves, last_moves, 1, samples, values,
                )  # fmt: skip
                if contenders > 1:
                    evidence[n, count] = log_evidence
            else:
                found, _ = polish_in_pixel(
                    data, code, tables, variance, inverse_gain, count, row, column, flux, min_separation,
                    bank_positions, bank_images, bank_images.shape[1], POLISH_ITERATIONS, polished,
                )  # fmt: skip
                reach = bank_images.shape[2] // 2
                r0, r1 = max(row - reach, 0), min(row + reach + 1, rows)
                c0, c1 = max(column - reach, 0), min(column + reach + 1, columns)
                kept = temper(
                    polished[:found, : 3 * count].copy(), count, low, high, log_flux, min_separation, polynomials, r0,
                    c0, no_basis[:, r0:r1, c0:c1], data[r0:r1, c0:c1], code[r0:r1, c0:c1].copy(), variance,
                    inverse_gain, rounded, temperatures[:1] if count == 1 else temperatures, TEMPERED_LANES,
                    sweeps[min(count, sweeps.shape[0]) - 1], BURN_SHARE, samples, values, 1,
                )  # fmt: skip
            if winner == 0 or evidence[n, count] > evidence[n, winner]:
                winner = count
                render(modes[count, : 3 * count], count, tables, 0, 0, no_basis, work, image)
                fit[n] = chi_squared(image, data, code, variance, inverse_gain)
                summarise(
                    samples, values, kept, count, widening[min(count, widening.shape[0]) - 1], low, high, estimate[n],
                    deviation[n], score[n],
                )  # fmt: skip
                if clouds.shape[0] > 0:
                    clouds[n, :, : 3 * count] = samples[np.arange(kept_samples) % kept]
        if winner == 0 or evidence[n, 0] > evidence[n, winner]:
            winner = 0
            fit[n] = -2.0 * evidence[n, 0]
        found_count[n] = winner


@compiled
def _solve_free(
    images: FloatArray,
    codes: Any,
    tables: FloatArray,
    polynomials: LaneArray,
    variance: float,
    inverse_gain: float,
    rounded: float,
    basis: FloatArray,
    most: int,
    target_low: FloatArray,
    target_high: FloatArray,
    terms_low: FloatArray,
    terms_high: FloatArray,
    log_flux: bool,
    min_separation: float,
    split_px: float,
    temperatures: FloatArray,
    sweeps: Any,
    kept_samples: int,
    estimate: FloatArray,
    deviation: FloatArray,
    score: FloatArray,
    evidence: FloatArray,
    found_count: Any,
    fit: FloatArray,
    trouble: Any,
    clouds: FloatArray,
) -> None:
    """As `_solve_in_pixel`, for targets anywhere in the window; `trouble` (n, Kmax) gets bits of `Flag`."""
    h, w = images.shape[1], images.shape[2]
    terms = basis.shape[0]
    modes = np.empty((most + 1, 3 * most + terms))
    at_mode, converged = np.empty(most + 1), np.empty(most + 1, np.bool_)
    values = np.empty(kept_samples)
    work, image = np.empty((4, max(h, w))), np.empty((h, w))
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
        fit[n] = chi_squared(image, data, code, variance, inverse_gain)
        if count == 0:
            continue
        low, high = window_bounds(count, target_low, target_high, terms_low, terms_high)
        for k in range(count):
            trouble[n, k] = 0 if converged[count] else NOT_CONVERGED
            for p in range(3 * k, 3 * k + 3):
                if mode[p] <= low[p] or mode[p] >= high[p]:
                    trouble[n, k] |= AT_BOUND
        samples = np.empty((kept_samples, size))
        kept = temper(
            mode.reshape(1, size), count, low, high, log_flux, min_separation, polynomials, 0, 0, basis, data, code,
            variance, inverse_gain, rounded, temperatures[:1] if count == 1 else temperatures, TEMPERED_LANES,
            sweeps[min(count, sweeps.shape[0]) - 1], BURN_SHARE, samples, values, 1,
        )  # fmt: skip
        summarise(samples, values, kept, count, 1.0, low, high, estimate[n], deviation[n], score[n])
        if clouds.shape[0] > 0:
            clouds[n, :, : 3 * count] = samples[np.arange(kept_samples) % kept, : 3 * count]


class PixelSolver:
    """Solves windows whose group lies inside one pixel; arguments as `FreeSolver`."""

    def __init__(self, sensor: Sensor, prior: ScenePrior, effort: Effort, variance: float) -> None:
        self.sensor, self.prior, self.effort, self.variance = sensor, prior, effort, variance
        self.flux = np.array(flux_bounds(prior, sensor, variance**0.5))
        self.tables = profile_tables(sensor.psf)
        self.polynomials = polynomials_of(sensor.psf)
        self.bank: Bank = build_bank(sensor.psf, prior, self._reach(), effort.bank)

    def _reach(self) -> int:
        """Pixels on each side of the group's pixel beyond which its light is lost in the noise."""
        limit = 0.1 * self.variance**0.5 / self.flux[1]
        reach = 1
        while reach < self.sensor.psf.radius_px and self.sensor.psf.response(reach + 0.5, 0.0) > limit:
            reach += 1
        return reach

    def solve(
        self, images: FloatArray, codes: NDArray[np.int8], keep_samples: bool = False
    ) -> tuple[list[Targets], list[Group]]:
        """Targets and group information of each background-subtracted image; `codes` says what a pixel is worth."""
        effort = self.effort
        kept = effort.blocks * effort.records * LANES if effort.blocks else effort.samples
        results = _Results(len(images), self.prior.count_range[1], kept if keep_samples else 0)
        _solve_in_pixel(
            images, codes, self.tables, self.polynomials, self.variance, inverse_gain(self.sensor),
            noise_before_rounding(self.sensor, self.variance), np.array(self.prior.count_range), self.flux,
            self.prior.intensity_law == "log-uniform",
            self.prior.min_separation_px, self.bank.positions,
            self.bank.images, self.bank.log_allowed, effort.scan, effort.blocks,
            effort.moves, effort.last_moves, effort.records, effort.starts,
            effort.temperatures(), np.array(effort.sweeps), np.array(effort.widening), kept,
            results.estimate, results.deviation, results.score,
            results.evidence, results.count, results.fit, results.clouds,
        )  # fmt: skip
        return results.assemble(codes, 0)


class FreeSolver:
    """Solves windows whose targets may lie anywhere.

    Args:
        sensor: with the windows' shape.
        prior: scene prior, not single-pixel.
        effort: how hard to try.
        variance: of a pixel, without shot noise, in counts^2.
        background_terms: 0 for a known background, 1 for an unknown constant, 3 for a plane, 6 for a surface of second
            degree.
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
        one = np.ones((rows, columns))
        self.basis = np.stack([one, x, y, x**2 - one / 3.0, x * y, y**2 - one / 3.0])[:background_terms]
        self.terms = np.full(background_terms, BACKGROUND_WIDTH * variance**0.5)
        self.tables = profile_tables(sensor.psf)
        self.polynomials = polynomials_of(sensor.psf)
        self.split_px = spread_px(sensor.psf)

    def solve(
        self, images: FloatArray, codes: NDArray[np.int8], keep_samples: bool = False
    ) -> tuple[list[Targets], list[Group]]:
        """Targets and group information of each background-subtracted image; `codes` says what a pixel is worth."""
        results = _Results(len(images), self.prior.count_range[1], self.effort.samples if keep_samples else 0)
        _solve_free(
            images, codes, self.tables, self.polynomials, self.variance, inverse_gain(self.sensor),
            noise_before_rounding(self.sensor, self.variance), self.basis,
            self.prior.count_range[1], self.low, self.high, -self.terms, self.terms,
            self.prior.intensity_law == "log-uniform", self.prior.min_separation_px, self.split_px,
            self.effort.temperatures(), np.array(self.effort.sweeps), self.effort.samples,
            results.estimate, results.deviation, results.score, results.evidence,
            results.count, results.fit, results.trouble, results.clouds,
        )  # fmt: skip
        return results.assemble(codes, len(self.terms))
