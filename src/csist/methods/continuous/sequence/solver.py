"""From the frames of a group that moves to the posterior of its paths: start, count, annealing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from csist._types import BoolArray, FloatArray, IntArray
from csist.methods.continuous.cooling import Cloud, Outcome, Plan
from csist.methods.continuous.optics import optics_of
from csist.methods.continuous.sequence.annealing import PathStart, anneal_paths, path_kernels
from csist.methods.continuous.sequence.model import LANES, Film, MotionLaw, PathPosterior, film_around, moved_back, near
from csist.methods.continuous.sequence.modes import Cut, KnownStart, ModeStart, SampledStart
from csist.methods.continuous.sequence.path import common_path
from csist.methods.continuous.sequence.presence import presence_of
from csist.methods.continuous.sequence.start import PixelStart
from csist.methods.continuous.templates import draw_templates
from csist.physics.psf import spread_px
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior

SEED = 1
"""Of all random numbers: an answer does not depend on what was solved before."""
LIGHT_SIGMAS = 6.0
"""Counts whose fluxes cannot add up to the light seen, by so many standard errors, are left out."""
REACH_SPREADS = 3.5
"""Pixels on each side of the group that are looked at, in spreads of the PSF."""
PRESENCE_ROUNDS = 2
"""Times that the frames in which each target is there are found from its path."""
LEFT_BEHIND = 7.0
"""No more targets are tried once the log evidence of a count is so far below that of fewer targets."""
LEFT_FAR_BEHIND = 30.0
"""No fewer are tried once it is so far below that of more: that of several targets that are not there scatters."""
NOTHING = Outcome(0.0, 0.0, math.nan, 0, 1.0)
"""Of a window without targets, which is not sampled."""


@dataclass(frozen=True)
class PathEffort:
    """How hard to sample the paths of a group.

    Args:
        templates: configurations that are compared for the start.
        blocks: population, in `LANES` chains.
        free_blocks: the same where targets may lie anywhere: of a target too many, most chains start at a wrong place,
            and the evidence of few chains scatters by more than the counts differ.
        moves: steps of every chain at each temperature, for each target.
        last_moves: steps at the last, for each target.
        records: times that the population is recorded during these.
        widening: factor on the spread of the samples: short chains have not seen all of it; chosen on validation
            trajectories by benchmarks/bench_sequences.py.
    """

    templates: int
    blocks: int
    free_blocks: int
    moves: int
    last_moves: int
    records: int
    widening: float


PATH_EFFORTS = {
    "accurate": PathEffort(templates=4096, blocks=1, free_blocks=4, moves=8, last_moves=48, records=8, widening=1.08),
    "fast": PathEffort(templates=1024, blocks=1, free_blocks=2, moves=3, last_moves=6, records=2, widening=1.3),
}


class Sampled(NamedTuple):
    """Samples of the paths of one number of targets.

    Args:
        cloud: the samples, in the chains' parameters.
        outcome: how they were sampled.
        covariance: (size, size) of the normal approximation at the most probable of them, for a further start; empty
            where targets do not lie anywhere.
    """

    cloud: Cloud
    outcome: Outcome
    covariance: FloatArray

    @property
    def log_evidence(self) -> float:
        """Of that number of targets."""
        return self.outcome.log_evidence


class Paths(NamedTuple):
    """The posterior of a group's paths.

    Args:
        targets: most probable number of targets.
        log_evidence: (Kmax + 1,) of each count, -inf where it was left out.
        samples: (m, count, 2 M + 1) coefficients x_0, y_0, x_1, y_1, ..., of the functions of time, and mean flux.
        value: (m,) log likelihoods.
        misfit: chi-squared of the best sample in the group's patches and of nothing outside them.
        widening: factor on the spread of the samples.
        outcome: how they were sampled.
        present: (targets, T) whether a target is there in a frame.
    """

    targets: int
    log_evidence: FloatArray
    samples: FloatArray
    value: FloatArray
    misfit: float
    widening: float
    outcome: Outcome
    present: BoolArray


class PathSolver:
    """Samples the paths of a group.

    Args:
        sensor: PSF, and the shape of the windows.
        prior: of the first frame.
        law: of the motion.
        effort: how hard to try.
        seed: of the chains' random numbers.
    """

    def __init__(self, sensor: Sensor, prior: ScenePrior, law: MotionLaw, effort: PathEffort, seed: int = SEED) -> None:
        self.sensor, self.prior, self.law, self.effort, self.seed = sensor, prior, law, effort, seed
        self.optics = optics_of(sensor.psf)
        self.basis = law.basis.astype(np.float64)
        self.flux = np.exp(law.flux.astype(np.float64)) if law.log_flux else law.flux.astype(np.float64)
        drift = law.width[1, 1] * np.abs(self.basis[1]) if law.own > 1 else np.zeros(law.basis.shape[1])
        self.reach = REACH_SPREADS * spread_px(sensor.psf) + 0.5 + drift

    def solve(
        self, data: FloatArray, weight: FloatArray, cut: Cut | None = None, shift: FloatArray | None = None
    ) -> Paths:
        """The posterior of the group in a stack.

        Args:
            data: (T, H, W) in counts, background subtracted, 0 where there is no value.
            weight: (T, H, W) inverse variances, 0 where there is no value.
            cut: how the window moves with the group, see `Cut`; None for one that stays.
            shift: (T, 2) x, y in px by which the camera shifts each frame; None for one that stands. The paths are
                without it.
        """
        start: PixelStart | ModeStart
        if shift is None:
            shift = np.zeros((len(data), 2))
        if self.law.one_pixel:
            start = self._in_pixel(data, weight, shift)
        else:
            start = ModeStart(data, weight, self.sensor, self.prior, self.law, cut=cut, shift=shift)
        dark = 0.5 * float((start.film.weight * start.film.data.astype(np.float64) ** 2).sum())
        outside = float((weight * data**2).sum()) - 2.0 * dark
        log_evidence = np.full(self.prior.count_range[1] + 1, -np.inf)
        log_evidence[0] = -dark
        best = Paths(
            0, log_evidence, np.zeros((1, 0, 2 * len(self.basis) + 1)), log_evidence[:1].copy(), 0.0, 1.0, NOTHING,
            np.ones((0, len(data)), np.bool_),
        )  # fmt: skip
        mode = np.zeros(0)
        everywhere = np.ones((self.prior.count_range[1], len(data)), np.bool_)
        for count, found in self._sampled(start, everywhere).items():
            log_evidence[count] = found.log_evidence
            if log_evidence[count] > log_evidence[best.targets]:
                best, mode = self._paths(found, (log_evidence, outside, everywhere[:count]))
        for _ in range(PRESENCE_ROUNDS if best.targets else 0):
            seen = presence_of(start.film, self.basis, mode, self.law.scintillation, self.sensor.psf)
            if (seen.present == best.present).all():
                break
            again = KnownStart(start.film, self._law_of(seen.present), *self._start_of(mode, seen.flux))
            best, mode = self._paths(self._anneal(again, seen.present), (log_evidence, outside, seen.present))
        return best

    def _sampled(self, start: PixelStart | ModeStart, everywhere: BoolArray) -> dict[int, Sampled]:
        """Samples of each number of targets that is tried.

        Where targets may lie anywhere, these are the probable numbers up to the one that explains no more, and then
        fewer, each time without the faintest target, down to the one that explains far less: the frames added along a
        common path, by which numbers are probable, are blurred by each target's own motion.

        Args:
            start: of the chains.
            everywhere: (Kmax, T) that each target is there in all frames.
        """
        if isinstance(start, PixelStart):
            return {count: self._anneal(start, everywhere[:count]) for count in start.counts.tolist()}
        found: dict[int, Sampled] = {}

        def settle(count: int, first: ModeStart | SampledStart) -> float:
            """Sample so many targets, and return their log evidence.

            An estimate of an evidence is hardly ever much too high, and often too low: the highest is kept.
            """
            tried = self._anneal(first, everywhere[:count])
            again = self._anneal(
                SampledStart(start.film, self.law, tried.cloud.theta, tried.covariance), everywhere[:count]
            )
            kept = [tried, again, *([found[count]] if count in found else [])]
            found[count] = max(kept, key=lambda each: each.log_evidence)
            return found[count].log_evidence

        best = -math.inf
        for count in start.counts.tolist():
            best = max(best, settle(count, start))
            if count > start.likely and found[count].log_evidence < best - LEFT_BEHIND:
                break
        count = max(found, key=lambda tried: found[tried].log_evidence)
        while count > max(self.prior.count_range[0], 1):
            theta, covariance = self._without_faintest(found[count], count)
            count -= 1
            best = max(best, settle(count, SampledStart(start.film, self.law, theta, covariance)))
            if found[count].log_evidence < best - LEFT_FAR_BEHIND:
                break
        return found

    def _without_faintest(self, found: Sampled, count: int) -> tuple[FloatArray, FloatArray]:
        """Samples and covariance without the parameters of the target with the lowest mean flux."""
        theta, size = found.cloud.theta, 2 * self.law.own + 1
        flux = theta[:, theta.shape[1] - count * size :].reshape(len(theta), count, size)[:, :, -1]
        first = theta.shape[1] - (count - int(flux.mean(axis=0).argmin())) * size
        gone = np.s_[first : first + size]
        return np.delete(theta, gone, axis=1), np.delete(np.delete(found.covariance, gone, axis=0), gone, axis=1)

    def _paths(self, found: Sampled, known: tuple[FloatArray, float, BoolArray]) -> tuple[Paths, FloatArray]:
        """The posterior from its samples, and the best sample's coefficients (targets, 2 M + 1).

        Args:
            found: samples.
            known: log evidence of each count, chi-squared outside the patches, and (targets, T) presence.
        """
        log_evidence, outside, present = known
        cloud, outcome = found.cloud, found.outcome
        samples = self._coefficients(cloud.theta, len(present))
        misfit = outside - 2.0 * float(cloud.value.max())
        widening = self.effort.widening
        paths = Paths(len(present), log_evidence, samples, cloud.value, misfit, widening, outcome, present)
        return paths, samples[int(cloud.value.argmax())]

    def _law_of(self, present: BoolArray) -> MotionLaw:
        """The law with room for the targets that are not there in the first frame: they come from outside."""
        if present[:, 0].all():
            return self.law
        late = self.basis[1, present.argmax(axis=1)].max() if len(self.basis) > 1 else 0.0
        room = float(self.law.width[:, 1].sum() * late) if len(self.basis) > 1 else 0.0
        return self.law._replace(area=self.law.area + np.array([-room, -room, room, room], np.float32), one_pixel=False)

    def _start_of(self, mode: FloatArray, flux: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The group's path (M, 2) and each target's x, y and flux, from coefficients (targets, 2 M + 1) and fluxes."""
        path = mode[:, :-1].mean(axis=0).reshape(-1, 2)
        low, high = self.flux
        return path, np.column_stack([mode[:, :2], np.clip(flux, 1.01 * low, 0.99 * high if high > low else high)])

    def _in_pixel(self, data: FloatArray, weight: FloatArray, shift: FloatArray) -> PixelStart:
        speed = float(self.law.width[:, 1].sum()) if len(self.basis) > 1 else 0.0
        path = np.zeros((len(self.basis), 2))
        steady = self.law.normal == 0.0  # a random walk is too much like a velocity to be fitted beside one
        path[steady] = common_path(data, self.basis[steady], speed, shift)
        middle = self.basis.T @ path
        film = film_around(data, weight, middle + shift, 2 * math.ceil(self.reach.max()) + 1)
        counts = self._counts(film)
        templates = draw_templates(self.sensor.psf, self.prior, 1, self.effort.templates)
        film = near(moved_back(film, shift), middle, self.reach)
        return PixelStart(film, path, counts, templates.positions, self.sensor, self.law)

    def _counts(self, film: Film) -> IntArray:
        """Numbers of targets whose fluxes can add up to the light around the path."""
        counts = np.arange(max(self.prior.count_range[0], 1), self.prior.count_range[1] + 1)
        whole = (film.weight > 0.0).all(axis=(1, 2))
        if not whole.any():
            return counts
        light = float(film.data[whole].astype(np.float64).sum(axis=(1, 2)).mean())
        error = float((1.0 / film.weight[whole]).sum(axis=(1, 2)).mean()) / whole.sum()
        flicker = (self.law.scintillation * self.flux[1]) ** 2 * counts / whole.sum()
        reach = LIGHT_SIGMAS * np.sqrt(error + flicker) + 0.002 * abs(light)
        missed = np.maximum(np.maximum(counts * self.flux[0] - light, light - counts * self.flux[1]) - reach, 0.0)
        return np.asarray(counts[missed <= missed.min()])

    def _anneal(self, start: PixelStart | ModeStart | KnownStart | SampledStart, present: BoolArray) -> Sampled:
        """Samples of a group whose targets are there in some frames (targets, T)."""
        count = len(present)
        rng = np.random.default_rng((self.seed, count))
        is_anywhere = isinstance(start, ModeStart | SampledStart)
        blocks = self.effort.free_blocks if is_anywhere else self.effort.blocks
        state, log_weight, inverse, log_evidence = start.draw(count, blocks * LANES, rng)
        lanes = state.reshape(len(state), blocks, LANES).transpose(1, 0, 2)
        first = PathStart(np.ascontiguousarray(lanes, np.float32), log_weight, inverse)
        there = np.ascontiguousarray(present, np.float32)
        posterior = PathPosterior(count, start.film, start.law, self.optics.polynomials, there)
        number = self.effort.records * blocks * LANES
        cloud = Cloud(np.empty((number, len(state))), np.empty(number))
        plan = Plan(blocks, self.effort.moves * count, self.effort.last_moves * count, self.effort.records, self.seed)
        covariance = np.empty((len(state), len(state)) if is_anywhere else (0, 0))
        outcome = anneal_paths(path_kernels(), posterior, first, plan, cloud, covariance)
        return Sampled(cloud, outcome._replace(log_evidence=outcome.log_evidence + log_evidence), covariance)

    def _coefficients(self, theta: FloatArray, count: int) -> FloatArray:
        """Samples as `Paths` holds them, from the chains' parameters (m, size)."""
        law = self.law
        samples = np.zeros((len(theta), count, 2 * len(law.basis) + 1))
        shared = 2 * (law.common - 1)
        own = theta[:, shared:].reshape(len(theta), count, 2 * law.own + 1)
        samples[:, :, : 2 * law.own] = own[:, :, :-1]
        samples[:, :, 2 : 2 + shared] += theta[:, None, :shared]
        samples[:, :, -1] = np.exp(own[:, :, -1]) if law.log_flux else own[:, :, -1]
        return samples
