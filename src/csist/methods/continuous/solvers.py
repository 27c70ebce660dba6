"""From windows to targets: search, sample and summarise a stack, under either kind of prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from csist._compiled import compiled
from csist._types import FloatArray, IntArray
from csist.methods.continuous import beside
from csist.methods.continuous.annealing import CHAINS_A_BLOCK, anneal_in_pixel
from csist.methods.continuous.cooling import Cloud, Plan
from csist.methods.continuous.diagnostics import Diagnostics
from csist.methods.continuous.group import POOR_FIT_TRUST, describe
from csist.methods.continuous.kernels import kernels
from csist.methods.continuous.likelihood import chi_squared, render
from csist.methods.continuous.model import Noise, Stack, choose, cut, region_around, whole_region
from csist.methods.continuous.optics import optics_of
from csist.methods.continuous.pooling import Pairs, by_count, join, pool, shares
from csist.methods.continuous.posterior import TOLERANCES_PX, Draws, empty_draws, empty_summary, summarise_stack
from csist.methods.continuous.rounding import noise_of
from csist.methods.continuous.search import Space, bounds_within, climbers, empty_modes, search_stack
from csist.methods.continuous.search_in_pixel import (
    PixelModel,
    PixelModes,
    PixelPrior,
    climb_in_pixels,
    empty_pixel_modes,
    search_pixels,
)
from csist.methods.continuous.tempering import BURN_IN, TURNS, Groups, Ladder, Laws, temper_stack
from csist.methods.continuous.templates import draw_templates
from csist.methods.unmixer import Answers
from csist.physics.psf import spread_px
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, flux_bounds
from csist.targets import Flag, Targets

CONTENDER_MARGIN = 10.0
"""Counts within so much log evidence (Laplace) of the best are sampled, and weighed by the samples."""
LEAST_SHARE = 1e-3
"""Probability of a count below which its targets do not matter to a score."""

TEMPERATURE_RATIO = 3.0
TEMPERED_CHAINS = 32
SEED = 1
"""Of the chains' random numbers: an answer does not depend on the neighbours of its window."""

BACKGROUND_WIDTH = 10.0
"""An unknown background term lies within so many noise standard deviations of zero."""


@dataclass(frozen=True)
class Effort:
    """How hard to search and sample.

    Args:
        templates: templates drawn for each count.
        scan: of these, compared at each candidate pixel and count.
        blocks: population of the annealing, in `CHAINS_A_BLOCK`; 0 samples by tempered chains instead.
        moves: steps of every chain at each stage of the annealing, for each target.
        last_moves: steps at its end.
        records: times that the population is recorded during these.
        starts: modes from which tempered chains start.
        levels: their temperatures, each three times the last.
        sweeps: their sweeps for 1, 2, 3, 4 and more targets.
        samples: samples kept of theirs.
        widening: factor on the spread of the samples of a group inside a pixel, for 1, 2, 3, ... and more targets; see
            scripts/choose_calibration.py.
        sureness: power of the odds of a score there, likewise; 1 where samples are as many as they seem.
    """

    templates: int
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
    sureness: tuple[float, ...] = (1.0,)

    def ladder(self, is_scattered: bool) -> Ladder:
        """The tempered chains, which start around the modes or on them."""
        temperatures = np.array([TEMPERATURE_RATIO**level for level in range(self.levels)])
        sweeps = np.array(self.sweeps, dtype=np.int64)
        return Ladder(temperatures, 1, TEMPERED_CHAINS, sweeps, BURN_IN, SEED, is_scattered, TURNS)

    def plan(self, count: int) -> Plan:
        """The annealing of a group of so many targets."""
        return Plan(self.blocks, self.moves * count, self.last_moves, self.records, SEED)

    @property
    def kept_samples(self) -> int:
        """Samples of a group inside a pixel."""
        return self.blocks * self.records * CHAINS_A_BLOCK if self.blocks else self.samples

    def widening_of(self, counts: IntArray) -> FloatArray:
        """Factor on the spread of groups of so many targets."""
        return _by_count(self.widening, counts)

    def sureness_of(self, counts: IntArray) -> FloatArray:
        """Power of the odds of scores in groups of so many targets."""
        return _by_count(self.sureness, counts)


def _by_count(values: tuple[float, ...], counts: IntArray) -> FloatArray:
    """The value for each count; the last one stands for larger ones, too."""
    return np.array(values)[np.clip(counts, 1, len(values)) - 1]


def less_sure(score: FloatArray, samples: int, sureness: float) -> FloatArray:
    """Scores (n,) with their odds taken to a power, the odds of none or all of the samples being finite.

    Chains of few steps agree more than they should: that all of 160 samples hold a target is no proof. The power of
    1 leaves scores as they are.

    >>> less_sure(np.array([0.5, 1.0]), 160, 0.6).round(3).tolist(), less_sure(np.array([0.5, 1.0]), 160, 1.0).tolist()
    ([0.5, 0.97], [0.5, 1.0])
    """
    if sureness == 1.0:
        return score
    odds = ((samples * score + 0.5) / (samples * (1.0 - score) + 0.5)) ** sureness
    return np.asarray(odds / (1.0 + odds))


EFFORTS = {
    "accurate": Effort(
        templates=8192, scan=128, blocks=2, moves=15, last_moves=160, records=8, starts=1, levels=4,
        sweeps=(100, 400, 1000, 1000), samples=400, widening=(1.0, 1.0, 1.02, 1.04, 1.08),
    ),
    "fast": Effort(
        templates=1024, scan=48, blocks=0, moves=0, last_moves=0, records=0, starts=8, levels=4,
        sweeps=(20, 30, 60, 120), samples=160, widening=(1.1, 1.75, 1.9, 2.3, 3.9),
        sureness=(1.0, 0.92, 0.78, 0.70, 0.58),
    ),
}  # fmt: skip


@compiled
def fit_stack(stack: Stack, noise: Noise, tables: FloatArray, theta: FloatArray, counts: IntArray) -> FloatArray:
    """Chi-squared (N,) of the parameters theta (N, parameters or more) of the group in each window."""
    rows, columns = stack.data.shape[1], stack.data.shape[2]
    terms = stack.basis.shape[0]
    profiles, image = np.empty((4, max(rows, columns))), np.empty((rows, columns))
    fit = np.empty(counts.shape[0])
    for n in range(counts.shape[0]):
        window = cut(stack, n, whole_region(stack))
        render(theta[n, : 3 * counts[n] + terms], window, tables, profiles, image)
        fit[n] = chi_squared(image, window, noise)
    return fit


class Sampled(NamedTuple):
    """The groups of a stack, before they are summarised.

    Args:
        counts: (N,) most probable number of targets.
        evidence: (N, Kmax + 1) log evidence of each count.
        modes: (N, Kmax + 1, parameters) the best mode of each count.
        fit: (N,) chi-squared of the best fit.
        draws: posterior samples given the count.
        low: (N, parameters) bounds.
        high: (N, parameters) likewise.
        widening: (N,) factor on the samples' spread.
        sureness: (N,) power of the odds of the scores.
        trouble: (N, Kmax) bits of `Flag` of each target.
        sampler: name for `Diagnostics`.
    """

    counts: IntArray
    evidence: FloatArray
    modes: FloatArray
    fit: FloatArray
    draws: Draws
    low: FloatArray
    high: FloatArray
    widening: FloatArray
    sureness: FloatArray
    trouble: IntArray
    sampler: str


def share_with(places: FloatArray, modes: FloatArray, probability: FloatArray) -> FloatArray:
    """Probability (n,) that a group has a target at each of some places, whatever its number of targets.

    A star beside which there may be a faint second one is there either way.

    Args:
        places: (n, 2) x, y in px of the targets of the most probable number of them, n.
        modes: (Kmax + 1, parameters) the best mode of each number.
        probability: (Kmax + 1,) of each number.
    """
    count = len(places)
    share = np.full(count, probability[count])
    for other in np.flatnonzero(probability > LEAST_SHARE):
        if 0 < other != count:
            there = modes[other, : 3 * other].reshape(other, 3)[:, :2]
            apart = np.hypot(*np.moveaxis(there[:, None] - places, -1, 0)).min(axis=0)
            share += np.where(apart <= TOLERANCES_PX[-1], probability[other], 0.0)
    return np.asarray(np.minimum(share, 1.0))


def report(stack: Stack, sampled: Sampled, kept_samples: int) -> Answers:
    """One `Targets` and one `Group` for each window.

    Args:
        stack: the windows.
        sampled: what was found in them.
        kept_samples: number of samples each group gets; 0 for none.
    """
    most = sampled.evidence.shape[1] - 1
    summary = empty_summary(len(sampled.counts), most)
    summarise_stack(sampled.draws, sampled.counts, sampled.widening, sampled.low, sampled.high, summary)
    targets, groups = [], []
    for n, count in enumerate(sampled.counts):
        k = int(count)
        group = describe(
            k, sampled.evidence[n], float(sampled.fit[n]), stack.code[n], len(stack.basis),
            samples=_samples(sampled.draws, n, k, kept_samples) if kept_samples else None,
            diagnostics=_diagnose(sampled, n) if k else None,
        )  # fmt: skip
        groups.append(group)
        trust = POOR_FIT_TRUST if Flag.POOR_FIT in group.flags else 1.0
        estimate, deviation = summary.estimate[n, :k], summary.deviation[n, :k]
        score = summary.score[n, :k] * share_with(estimate[:, :2], sampled.modes[n], group.count_probability)
        targets.append(
            Targets(
                x=estimate[:, 0],
                y=estimate[:, 1],
                intensity=estimate[:, 2],
                score=less_sure(score, int(sampled.draws.kept[n]), float(sampled.sureness[n])) * trust,
                x_std=deviation[:, 0],
                y_std=deviation[:, 1],
                intensity_std=deviation[:, 2],
                flags=int(group.flags) | sampled.trouble[n, :k],
                group=np.zeros(k, np.int64),
            )
        )
    return Answers(targets, groups)


def _samples(draws: Draws, n: int, count: int, number: int) -> FloatArray:
    """So many samples (number, count, 3) of a group, from the start again where there are fewer."""
    if not count:
        return np.empty((number, 0, 3))
    return draws.theta[n, np.arange(number) % draws.kept[n], : 3 * count].reshape(number, count, 3)


def _diagnose(sampled: Sampled, n: int) -> Diagnostics:
    effective, acceptance, stages, reduction = sampled.draws.quality[n]
    return Diagnostics(sampled.sampler, float(effective), float(acceptance), int(stages), float(reduction))


class PixelSolver:
    """Solves windows whose group lies inside one pixel.

    Args:
        sensor: with the windows' shape.
        prior: scene prior, single-pixel.
        effort: how hard to try.
        variance: of a pixel, without shot noise, in counts^2.
    """

    def __init__(self, sensor: Sensor, prior: ScenePrior, effort: Effort, variance: float) -> None:
        self.effort, self.most = effort, prior.count_range[1]
        self.noise = noise_of(sensor, variance)
        self.optics = optics_of(sensor.psf)
        self.basis = np.zeros((0, *sensor.shape))
        flux = np.array(flux_bounds(prior, sensor, variance**0.5))
        self.reach = self._reach(sensor, float(flux[1]))
        law = PixelPrior(
            prior.count_range[0], self.most, flux, prior.intensity_law == "log-uniform", prior.min_separation_px
        )
        self.laws = Laws(self.optics.polynomials, law.log_flux, law.min_separation, self.noise.before_rounding)
        self.model = PixelModel(
            self.noise, self.optics, law, draw_templates(sensor.psf, prior, self.reach, effort.templates)
        )

    def _reach(self, sensor: Sensor, brightest: float) -> int:
        """Pixels on each side of the group's pixel beyond which its light is lost in the noise."""
        limit = 0.1 * self.noise.variance**0.5 / brightest
        edges = np.arange(1, int(np.ceil(sensor.psf.reach_px)) + 1) + 0.5
        bright = np.flatnonzero(sensor.psf.response(edges, 0.0) > limit)
        return 1 if not bright.size else int(min(bright[-1] + 2, np.ceil(sensor.psf.reach_px)))

    def bounds(self, places: IntArray) -> tuple[FloatArray, FloatArray]:
        """Bounds (N, 3 Kmax) of groups inside the pixels (N, 2), row and column."""
        flux = np.broadcast_to(self.model.prior.flux, (len(places), 2))
        low = np.column_stack([places[:, 1] - 0.5, places[:, 0] - 0.5, flux[:, 0]])
        high = np.column_stack([places[:, 1] + 0.5, places[:, 0] + 0.5, flux[:, 1]])
        return np.tile(low, self.most), np.tile(high, self.most)

    def solve(self, stack: Stack, keep_samples: bool = False) -> Answers:
        """Targets and group information of each window.

        Args:
            stack: the windows.
            keep_samples: whether groups get posterior samples.
        """
        beside.start("pixel anneal" if self.effort.blocks else "pixel temper")
        found = empty_pixel_modes(len(stack.data), self.most)
        search_pixels(climbers(), stack, self.model, self.effort.scan, found)
        annealed = self._anneal_contenders(stack, found) if self.effort.blocks else None
        evidence, best = by_count(found, self.most)
        counts, own = evidence.argmax(axis=1), np.arange(len(evidence))
        modes, share = found.theta[own[:, None], best], shares(found, counts)
        pairs, draws = annealed or self._temper_shares(stack, found, share)
        fit = fit_stack(stack, self.noise, self.optics.tables, modes[own, counts], counts)
        fit = np.where(counts > 0, fit, -2.0 * evidence[:, 0])
        low, high = (bound.reshape(*share.shape, -1) for bound in self.bounds(found.places.reshape(-1, 2)))
        has_part = (share > 0.0)[..., None]
        sampled = Sampled(
            counts, evidence, modes, fit, pool(draws, pairs, share),
            np.where(has_part, low, np.inf).min(axis=1), np.where(has_part, high, -np.inf).max(axis=1),
            self.effort.widening_of(counts), self.effort.sureness_of(counts),
            np.zeros((len(counts), self.most), np.int64), "annealing" if self.effort.blocks else "tempering",
        )  # fmt: skip
        return report(stack, sampled, self.effort.kept_samples if keep_samples else 0)

    def _anneal_contenders(self, stack: Stack, found: PixelModes) -> tuple[Pairs, Draws]:
        """Sample what contends; where several hypotheses do, the samples' evidence replaces the search's in `found`."""
        is_sampled = np.zeros(found.evidence.shape, np.bool_)
        nothing = np.zeros(0, np.int64)
        pairs, draws = Pairs(nothing, nothing), empty_draws(0, self.effort.kept_samples, 3 * self.most)
        while True:
            floor = found.evidence.max(axis=1, keepdims=True) - CONTENDER_MARGIN
            new = Pairs(*np.nonzero((found.counts > 0) & (found.evidence > floor) & ~is_sampled))
            if not len(new.windows):
                return pairs, draws
            drawn, evidence = self.anneal(stack, new.windows, found.counts[new], found.places[new])
            is_sampled[new] = True
            several = is_sampled.sum(axis=1)[new.windows] > 1
            found.evidence[new] = np.where(several, evidence, found.evidence[new])
            pairs, draws = join(pairs, new), join(draws, drawn)

    def anneal(self, stack: Stack, windows: IntArray, counts: IntArray, places: IntArray) -> tuple[Draws, FloatArray]:
        """Sample groups of so many targets in so many pixels, and weigh them.

        Args:
            stack: the windows.
            windows: (M,) place of each group's window in the stack.
            counts: (M,) targets of each group, at least 1.
            places: (M, 2) row and column of its pixel.

        Returns:
            the samples, and the log evidence (M,).
        """
        draws, evidence = empty_draws(len(counts), self.effort.kept_samples, 3 * self.most), np.empty(len(counts))
        for m, count in enumerate(counts):
            task = np.array([windows[m], count, *places[m]])
            cloud = Cloud(draws.theta[m], draws.value[m])
            outcome = anneal_in_pixel(kernels(self.noise), stack, self.model, self.effort.plan(int(count)), task, cloud)
            evidence[m], draws.kept[m], draws.quality[m] = outcome.log_evidence, len(cloud.value), outcome[1:]
        return draws, evidence

    def _temper_shares(self, stack: Stack, found: PixelModes, share: FloatArray) -> tuple[Pairs, Draws]:
        """Sample the hypotheses that have a share (N, hypotheses), from the modes of the best of all templates."""
        pairs = Pairs(*np.nonzero((share > 0.0) & (found.counts > 0)))
        places, counts = found.places[pairs], found.counts[pairs]
        stack = choose(stack, pairs.windows)
        starts = np.zeros((len(counts), self.effort.starts, 3 * self.most))
        number = climb_in_pixels(climbers(), stack, self.model, places, counts, starts)
        return pairs, self.temper(stack, counts, places, starts, number)

    def temper(self, stack: Stack, counts: IntArray, places: IntArray, starts: FloatArray, number: IntArray) -> Draws:
        """Sample the groups of so many targets in the pixels `places` (N, 2) from their modes.

        Args:
            stack: the windows.
            counts: (N,) targets of each group.
            places: (N, 2) row and column of its pixel.
            starts: (N, modes, 3 Kmax) parameters of its modes.
            number: (N,) how many of these there are.
        """
        draws = empty_draws(len(counts), self.effort.samples, 3 * self.most)
        rows, columns = stack.data.shape[1:]
        regions = [region_around(int(row), int(column), self.reach, rows, columns) for row, column in places]
        temper_stack(
            kernels(self.noise),
            stack,
            groups_of(
                counts,
                np.array(regions, dtype=np.int64).reshape(-1, 4),
                starts,
                number,
                self.bounds(places),
                self.noise,
            ),
            self.laws,
            self.effort.ladder(is_scattered=False),
            draws,
        )
        return draws


def groups_of(
    counts: IntArray,
    regions: IntArray,
    starts: FloatArray,
    number: IntArray,
    bounds: tuple[FloatArray, FloatArray],
    noise: Noise,
) -> Groups:
    """Groups that share their noise; see `Groups` for the arguments."""
    variance, inverse_gain = (np.full(len(counts), value) for value in noise[:2])
    return Groups(counts, regions, starts, number, *bounds, variance, inverse_gain)


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
        self.effort, self.most = effort, prior.count_range[1]
        self.noise = noise_of(sensor, variance)
        self.optics = optics_of(sensor.psf)
        rows, columns = sensor.shape
        flux = flux_bounds(prior, sensor, variance**0.5)
        y, x = np.meshgrid(np.linspace(-1.0, 1.0, rows), np.linspace(-1.0, 1.0, columns), indexing="ij")
        one = np.ones((rows, columns))
        self.basis = np.stack([one, x, y, x**2 - one / 3.0, x * y, y**2 - one / 3.0])[:background_terms]
        self.space = Space(
            np.array([-0.5, -0.5, flux[0]]),
            np.array([columns - 0.5, rows - 0.5, flux[1]]),
            np.full(background_terms, BACKGROUND_WIDTH * variance**0.5),
            prior.intensity_law == "log-uniform",
            prior.min_separation_px,
            spread_px(sensor.psf),
            np.empty((0, 0, 2)),
            prior.count_range[0],
            True,
        )
        self.laws = Laws(
            self.optics.polynomials, self.space.log_flux, self.space.min_separation, self.noise.before_rounding
        )

    def bounds(self, counts: IntArray) -> tuple[FloatArray, FloatArray]:
        """Bounds (N, parameters) of groups of so many targets."""
        low, high = (np.zeros((len(counts), 3 * self.most + len(self.space.terms))) for _ in range(2))
        for count in np.unique(counts):
            bounds = bounds_within(int(count), self.space)
            low[counts == count, : len(bounds.low)] = bounds.low
            high[counts == count, : len(bounds.high)] = bounds.high
        return low, high

    def solve(self, stack: Stack, keep_samples: bool = False, named: FloatArray | None = None) -> Answers:
        """Targets and group information of each window.

        Args:
            stack: the windows.
            keep_samples: whether groups get posterior samples.
            named: (N, most, 2) positions at which targets are tried, padded with NaN; None for none.
        """
        beside.start("free temper")
        modes = empty_modes(len(stack.data), self.most, len(self.space.terms))
        space = self.space._replace(named=np.empty((len(stack.data), 0, 2)) if named is None else named)
        search_stack(climbers(), stack, self.noise, self.optics.tables, space, modes)
        counts = modes.evidence.argmax(axis=1)
        own = np.arange(len(counts)), counts
        theta, bounds = modes.theta[own], self.bounds(counts)
        draws = self.temper(stack, counts, theta, bounds)
        at_bound = ((theta <= bounds[0]) | (theta >= bounds[1]))[:, : 3 * self.most].reshape(len(counts), self.most, 3)
        trouble = np.where(at_bound.any(axis=2), int(Flag.AT_BOUND), 0)
        trouble |= np.where(modes.converged[own], 0, int(Flag.NOT_CONVERGED))[:, None]
        fit = fit_stack(stack, self.noise, self.optics.tables, theta, counts)
        sampled = Sampled(
            counts, modes.evidence, modes.theta, fit, draws, *bounds, np.ones(len(counts)), np.ones(len(counts)),
            trouble.astype(np.int64), "tempering",
        )  # fmt: skip
        return report(stack, sampled, self.effort.samples if keep_samples else 0)

    def temper(self, stack: Stack, counts: IntArray, theta: FloatArray, bounds: tuple[FloatArray, FloatArray]) -> Draws:
        """Sample the groups of so many targets from their modes.

        Args:
            stack: the windows.
            counts: (N,) targets of each group.
            theta: (N, parameters) its mode.
            bounds: lower and upper, shaped like theta.
        """
        draws = empty_draws(len(counts), self.effort.samples, theta.shape[1])
        if counts.any():
            regions, number = np.tile(whole_region(stack), (len(counts), 1)), np.ones(len(counts), np.int64)
            groups = groups_of(counts, regions, theta[:, None].copy(), number, bounds, self.noise)
            ladder = self.effort.ladder(is_scattered=True)
            temper_stack(kernels(self.noise), stack, groups, self.laws, ladder, draws)
        return draws
