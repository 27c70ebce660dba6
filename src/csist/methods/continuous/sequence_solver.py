"""From the frames of a group that moves to the posterior of its paths: start, count, annealing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from csist._types import FloatArray, IntArray
from csist.methods.continuous.annealing import Cloud, Outcome, Plan
from csist.methods.continuous.optics import optics_of
from csist.methods.continuous.sequence_annealing import PathStart, anneal_paths, path_kernels
from csist.methods.continuous.sequence_model import LANES, Film, MotionLaw, PathPosterior
from csist.methods.continuous.sequence_start import GRID, REACH_PX, Added, common_path, fill_match, overlap_table, weigh_templates
from csist.methods.continuous.templates import draw_templates
from csist.physics.psf import PSF, spread_px
from csist.scenes import ScenePrior

SEED = 1
LIGHT_SIGMAS = 6.0
"""Counts whose fluxes cannot add up to the light seen, by so many standard errors, are left out."""
START_EFFECTIVE = 200.0
"""Effective number of templates at the temperature at which the annealing starts."""
VELOCITY_SPREAD = 0.15
"""Spread in px, over half the sequence, of the velocities at which the annealing starts."""
NEAR_PX = 0.6
"""Largest distance of the group's pixel, in px from its border, to the centroid."""


@dataclass(frozen=True)
class PathEffort:
    """How hard to sample the paths of a group.

    Args:
        templates: configurations that are compared for the start.
        blocks: population, in `LANES` chains.
        moves: steps of every chain at each temperature.
        last_moves: steps at the last.
        records: times that the population is recorded during these.
        widening: factor on the spread of the samples.
    """

    templates: int
    blocks: int
    moves: int
    last_moves: int
    records: int
    widening: float


PATH_EFFORTS = {
    "accurate": PathEffort(templates=4096, blocks=8, moves=6, last_moves=48, records=4, widening=1.0),
    "fast": PathEffort(templates=1024, blocks=2, moves=4, last_moves=24, records=6, widening=1.0),
}


class Paths(NamedTuple):
    """The posterior of a group's paths.

    Args:
        count: most probable number of targets.
        log_evidence: (Kmax + 1,) of each count, -inf where it was left out.
        samples: (m, count, 2 M + 1) coefficients x_0, y_0, x_1, y_1, ..., of the functions of time, and mean flux.
        value: (m,) log likelihoods.
        outcome: how they were sampled.
    """

    count: int
    log_evidence: FloatArray
    samples: FloatArray
    value: FloatArray
    outcome: Outcome


def film_around(data: FloatArray, weight: FloatArray, middle: FloatArray, side: int) -> Film:
    """Square patches of a stack around a place in each frame.

    Args:
        data: (T, H, W) in counts, background subtracted.
        weight: (T, H, W) inverse variances, 0 where there is no value.
        middle: (T, 2) x and y.
        side: of the patches in px, odd.
    """
    frames, rows, columns = data.shape
    origin = np.rint(middle[:, ::-1]).astype(np.int64) - side // 2
    patches, weights = (np.zeros((frames, side, side), np.float32) for _ in range(2))
    for t, (top, left) in enumerate(origin):
        row, column = np.arange(max(top, 0), min(top + side, rows)), np.arange(max(left, 0), min(left + side, columns))
        if len(row) and len(column):
            inside = np.ix_(row - top, column - left)
            patches[t][inside], weights[t][inside] = data[t][np.ix_(row, column)], weight[t][np.ix_(row, column)]
    return Film(np.where(weights > 0.0, patches, np.float32(0.0)), weights, np.ascontiguousarray(origin))


class PathSolver:
    """Samples the paths of a group that starts inside one pixel.

    Args:
        psf: point spread function.
        prior: of the first frame, single-pixel.
        law: of the motion; its `area` is that of the window.
        effort: how hard to try.
    """

    def __init__(self, psf: PSF, prior: ScenePrior, law: MotionLaw, effort: PathEffort) -> None:
        self.psf, self.prior, self.law, self.effort = psf, prior, law, effort
        self.optics = optics_of(psf)
        self.flux = np.exp(law.flux) if law.log_flux else law.flux
        drift = float(law.width[1, 1] * np.ptp(law.basis[1])) if law.own > 1 else 0.0
        self.side = 2 * math.ceil(3.5 * spread_px(psf) + 0.5 + drift) + 1

    def solve(self, data: FloatArray, weight: FloatArray) -> Paths:
        """The posterior of the group in a stack.

        Args:
            data: (T, H, W) in counts, background subtracted.
            weight: (T, H, W) inverse variances, 0 where there is no value.
        """
        basis = self.law.basis.astype(np.float64)
        speed = float(self.law.width[:, 1].sum()) if len(basis) > 1 else 0.0
        path = common_path(np.where(weight > 0.0, data, 0.0), basis, speed)
        film = film_around(data, weight, basis.T @ path, min(self.side, 2 * max(data.shape[1:]) + 1))
        counts = self._counts(data, weight, basis.T @ path)
        added = self._add(film, path)
        log_evidence = np.full(self.prior.count_range[1] + 1, -np.inf)
        best: Paths | None = None
        for count in counts:
            cloud, outcome = self._anneal(film, added, path, int(count))
            log_evidence[count] = outcome.log_evidence
            if best is None or log_evidence[count] > log_evidence[best.count]:
                best = Paths(int(count), log_evidence, self._coefficients(cloud.theta, int(count)), cloud.value, outcome)
        assert best is not None
        return best

    def _counts(self, data: FloatArray, weight: FloatArray, middle: FloatArray) -> IntArray:
        """Numbers of targets whose fluxes can add up to the light around the path."""
        fewest, most = max(self.prior.count_range[0], 1), self.prior.count_range[1]
        counts = np.arange(fewest, most + 1)
        film = film_around(data, weight, middle, self.side)
        whole = (film.weight > 0.0).all(axis=(1, 2))
        if not whole.any():
            return counts
        light = film.data[whole].astype(np.float64).sum(axis=(1, 2)).mean()
        error = float((1.0 / film.weight[whole]).sum(axis=(1, 2)).mean()) / whole.sum()
        flicker = (self.law.scintillation * self.flux[1]) ** 2 * counts / whole.sum()
        reach = LIGHT_SIGMAS * np.sqrt(error + flicker) + 0.002 * light
        below, above = counts * self.flux[0] - light - reach, light - counts * self.flux[1] - reach
        missed = np.maximum(np.maximum(below, above), 0.0)
        return counts[missed <= missed.min()]

    def _add(self, film: Film, path: FloatArray) -> Added:
        basis = self.law.basis.astype(np.float64)
        points = int(2 * REACH_PX * GRID) + 1
        corner, match = path[0] - REACH_PX, np.empty((points, points))
        fill_match(film, basis[1:].T @ path[1:], self.optics.tables, corner, match)
        seen = film.weight.astype(np.float64)
        scale = float(seen.sum()) / max(float((seen > 0.0).sum()) / len(seen), 1.0)
        power = float((seen * film.data.astype(np.float64) ** 2).sum())
        return Added(match, float(corner[0]), float(corner[1]), overlap_table(self.psf) * scale, power)

    def _anneal(self, film: Film, added: Added, path: FloatArray, count: int) -> tuple[Cloud, Outcome]:
        """Samples of a group of so many targets."""
        posterior = PathPosterior(count, film, self.law, self.optics.polynomials)
        start, evidence = self._start(added, path, count)
        number = self.effort.records * self.effort.blocks * LANES
        cloud = Cloud(np.empty((number, start.state.shape[1])), np.empty(number))
        plan = Plan(self.effort.blocks, self.effort.moves, self.effort.last_moves, self.effort.records, SEED)
        outcome = anneal_paths(path_kernels(), posterior, start, plan, cloud)
        return cloud, outcome._replace(log_evidence=outcome.log_evidence + evidence)

    def _start(self, added: Added, path: FloatArray, count: int) -> tuple[PathStart, float]:
        """Chains drawn from templates at the hottest temperature, and the log evidence up to there."""
        law, rng, number = self.law, np.random.default_rng((SEED, count)), self.effort.blocks * LANES
        templates = draw_templates(self.psf, self.prior, 1, self.effort.templates)
        pixels = self._pixels(path[0])
        places = templates.positions[count, None, :, :count] + pixels[:, None, None]
        places = np.ascontiguousarray(places.reshape(-1, count, 2))
        value = np.empty(len(places))
        weigh_templates(places, added, self.flux, value)
        inverse, weight = self._temper(value)
        ladder = (np.arange(number) + rng.random()) / number * weight.sum()
        chosen = np.minimum(np.searchsorted(np.cumsum(weight), ladder), len(weight) - 1)
        log_mean = math.log(weight.sum() / self.effort.templates) + inverse * value.max()
        blocks = self.effort.blocks
        state = np.empty((2 * (law.common - 1) + count * (2 * law.own + 1), number))
        log_weight = -inverse * value[chosen]
        for m in range(1, law.common):
            spread = min(VELOCITY_SPREAD / max(0.5 * float(np.ptp(law.basis[m])), 1e-9), float(law.width[0, m]))
            step = rng.standard_normal((2, number))
            state[2 * (m - 1) : 2 * m] = path[m][:, None] + spread * step
            log_weight += 0.5 * (step**2).sum(axis=0) + 2.0 * math.log(spread / law.width[0, m])
        for k in range(count):
            first = 2 * (law.common - 1) + k * (2 * law.own + 1)
            state[first : first + 2] = places[chosen, k].T
            for m in range(1, law.own):
                angle, radius = 2.0 * np.pi * rng.random(number), law.width[1, m] * np.sqrt(rng.random(number))
                state[first + 2 * m], state[first + 2 * m + 1] = radius * np.cos(angle), radius * np.sin(angle)
            state[first + 2 * law.own] = rng.uniform(law.flux[0], law.flux[1], number)
        lanes = state.reshape(len(state), blocks, LANES).transpose(1, 0, 2)
        return PathStart(np.ascontiguousarray(lanes, np.float32), log_weight, inverse), log_mean

    def _pixels(self, middle: FloatArray) -> FloatArray:
        """Centres (n, 2) of the pixels that the group may start in: those near its centroid."""
        columns, rows = (int(round(self.law.area[2 + axis] + 0.5)) for axis in range(2))
        nearest = np.clip(np.rint(middle), 0, [columns - 1, rows - 1])
        offsets = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), axis=-1).reshape(-1, 2)
        pixels = nearest + offsets
        inside = ((pixels >= 0) & (pixels <= [columns - 1, rows - 1])).all(axis=1)
        near = np.maximum(np.abs(pixels - np.clip(middle, -0.5, [columns - 0.5, rows - 0.5])) - 0.5, 0.0).max(axis=1)
        near = near < NEAR_PX - 0.5
        return pixels[inside & near]

    def _temper(self, value: FloatArray) -> tuple[float, FloatArray]:
        """Inverse temperature at which enough templates count, and their weights, the largest 1."""
        relative = value - value.max()
        wanted = min(START_EFFECTIVE, 0.5 * len(value))
        low, high = -30.0, 0.0
        for _ in range(20):
            middle = 0.5 * (low + high)
            weight = np.exp(relative * 2.0**middle)
            if weight.sum() ** 2 < wanted * (weight**2).sum():
                high = middle
            else:
                low = middle
        return 2.0**low, np.exp(relative * 2.0**low)

    def _coefficients(self, theta: FloatArray, count: int) -> FloatArray:
        """Samples as `Paths` holds them, from the chains' parameters (m, size)."""
        law = self.law
        functions = len(law.basis)
        samples = np.zeros((len(theta), count, 2 * functions + 1))
        shared = 2 * (law.common - 1)
        own = theta[:, shared:].reshape(len(theta), count, 2 * law.own + 1)
        samples[:, :, : 2 * law.own] = own[:, :, :-1]
        samples[:, :, 2 : 2 + shared] += theta[:, None, :shared]
        samples[:, :, -1] = np.exp(own[:, :, -1]) if law.log_flux else own[:, :, -1]
        return samples
