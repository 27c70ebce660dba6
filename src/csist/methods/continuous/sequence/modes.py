"""Where the paths of targets start that may lie anywhere in a window: modes of the frames added along a common path."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

from csist._types import FloatArray, IntArray
from csist.methods.continuous.model import stack_of
from csist.methods.continuous.search import climbers, empty_modes, search_stack
from csist.methods.continuous.sequence.model import Film, MotionLaw, film_around, film_of, moved_back
from csist.methods.continuous.sequence.path import add_along, brightest_line
from csist.methods.continuous.sequence.proposals import mark_possible
from csist.methods.continuous.sequence.start import fill_motion
from csist.methods.continuous.solvers import EFFORTS, FreeSolver
from csist.physics.psf import GaussianPSF, spread_px
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior

FINENESS_PX = 0.5
"""Step of the trial velocities, as the distance at the end of the path."""
MODE_SPREAD_PX = 0.3
"""Spread of the starts around a mode."""
FLUX_SPREAD = 0.25
"""The same of the fluxes, as a share."""
WIDENING, SHRINKAGE = 2.0, 1e-6
"""Width of the starts around samples in units of theirs, and the share of their variances that is added to these."""
CANDIDATES = 32
"""Starts around samples that are drawn for each chain, because the prior may be zero at most of them."""
LOG_TWO_PI = math.log(2.0 * math.pi)
MARGIN = 12.0
"""Counts whose log evidence in the added frames is so far below the best are not sampled."""


def log_density_of_start(law: MotionLaw) -> float:
    """Log of the prior density of a target's place in the first frame and its flux, in the chains' parameters."""
    area, flux = law.area.astype(np.float64), law.flux.astype(np.float64)
    return -math.log((area[2] - area[0]) * (area[3] - area[1]) * (flux[1] - flux[0]))


def draw_around(
    law: MotionLaw, path: FloatArray, mode: FloatArray, number: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, float, float]:
    """Chains around a mode of the first frame, and around a path of the group.

    Args:
        law: of the motion.
        path: (M, 2) coefficients of the group's path.
        mode: (targets, 3) x, y and flux.
        number: of chains.
        rng: generator.

    Returns:
        state (size, chains), log weights (chains,), -1 for an inverse temperature to be chosen, and the log evidence
        up to there.
    """
    state = np.empty((2 * (law.common - 1) + len(mode) * (2 * law.own + 1), number))
    log_weight = fill_motion(law, path, state, rng)
    flux, log_prior = law.flux.astype(np.float64), log_density_of_start(law)
    for k, (x, y, intensity) in enumerate(mode):
        first = 2 * (law.common - 1) + k * (2 * law.own + 1)
        centre = math.log(intensity) if law.log_flux else intensity
        spread = FLUX_SPREAD if law.log_flux else FLUX_SPREAD * (flux[1] - flux[0])
        step = rng.standard_normal((3, number))
        state[first : first + 2] = np.array([[x], [y]]) + MODE_SPREAD_PX * step[:2]
        state[first + 2 * law.own] = centre + spread * step[2]
        density = -0.5 * (step**2).sum(axis=0) - 1.5 * LOG_TWO_PI
        log_weight += log_prior - density + 2.0 * math.log(MODE_SPREAD_PX) + math.log(spread)
    # Every order of the targets is a mode of its own.
    return state, log_weight, -1.0, math.lgamma(len(mode) + 1.0)


class Cut(NamedTuple):
    """A window that follows a group through whole frames.

    Args:
        origin: (T, 2) row and column of the window's first pixel, relative to that of the first frame.
        path: (M, 2) coefficients of the group's path.
    """

    origin: IntArray
    path: FloatArray


class ModeStart:
    """Chains around the modes of the frames added along the best straight path.

    In the added frames `counts` of targets are probable, `likely` ones most.

    Args:
        data: (T, H, W) in counts, background subtracted, 0 where there is no value.
        weight: (T, H, W) inverse variances, 0 where there is no value.
        sensor: PSF and shape of the window.
        prior: of the first frame.
        law: of the motion.
        cut: how the window moves, square and of odd side; None for one that stays.
        shift: (T, 2) x, y in px by which the camera shifts each frame.
    """

    def __init__(
        self,
        data: FloatArray,
        weight: FloatArray,
        sensor: Sensor,
        prior: ScenePrior,
        law: MotionLaw,
        *,
        cut: Cut | None,
        shift: FloatArray,
    ) -> None:
        self.law, basis = law, law.basis.astype(np.float64)
        frames, rows, columns = data.shape
        light = data * weight
        if cut is not None:
            self.film, self.path = film_of(data, weight, cut.origin), cut.path
            moved = basis[1:].T @ cut.path[1:] - cut.origin[:, ::-1]
        else:
            side = max(rows, columns) + 1 - max(rows, columns) % 2
            self.film = film_around(data, weight, np.full((frames, 2), float(side // 2)), side)
            self.path = np.zeros((len(basis), 2))
            if len(basis) > 1:
                sigma_px = spread_px(sensor.psf)
                matched = gaussian_filter(light, (0.0, sigma_px, sigma_px), mode="constant")
                self.path[1] = brightest_line(matched, basis[1], float(law.width[:, 1].sum()), FINENESS_PX)[0]
            moved = basis.T @ self.path
        self.film = moved_back(self.film, shift)
        whole = np.rint(moved + shift).astype(np.int64)
        added, seen = np.empty((rows, columns)), np.empty((rows, columns))
        for values, total in ((light, added), (weight, seen)):
            add_along(np.ascontiguousarray(values, np.float64), whole, total)
        variance = 1.0 / np.maximum(seen, 1e-12)
        level = float(np.median(variance[seen > 0.0])) if (seen > 0.0).any() else 1.0
        # Pixels that few frames show are scaled to one noise: their light is seen too faint rather than too noisy.
        image = np.where(seen > 0.0, added * variance * np.sqrt(level / variance), np.nan)
        psf = sensor.psf
        if isinstance(psf, GaussianPSF):  # the frames are shifted by whole pixels
            psf = GaussianPSF(math.hypot(psf.sigma_px, 1.0 / math.sqrt(12.0)))
        flux = np.exp(law.flux.astype(np.float64)) if law.log_flux else law.flux.astype(np.float64)
        bounded = replace(prior, intensity_range=(float(flux[0]), float(flux[1])))
        plain = replace(sensor, psf=psf, background=0.0, saturation=None, quantised=False, gain=None)
        solver = FreeSolver(plain, bounded, EFFORTS["fast"], level, 0)
        self.modes = empty_modes(1, prior.count_range[1], 0)
        space = solver.space._replace(is_exact=False)
        search_stack(climbers(), stack_of(image[None], plain), solver.noise, solver.optics.tables, space, self.modes)
        evidence = self.modes.evidence[0]
        good = np.flatnonzero(evidence > evidence.max() - MARGIN)
        self.counts, self.likely = good[good > 0], int(evidence.argmax())

    def draw(self, count: int, number: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, float, float]:
        """So many chains of so many targets, see `draw_around`."""
        mode = self.modes.theta[0, count, : 3 * count].reshape(count, 3)
        return draw_around(self.law, self.path, mode, number, rng)


class KnownStart:
    """Chains around paths that are known already.

    Args:
        film: the frames.
        law: of the motion.
        path: (M, 2) coefficients of the group's path.
        mode: (targets, 3) x, y in the first frame, and flux.
    """

    def __init__(self, film: Film, law: MotionLaw, path: FloatArray, mode: FloatArray) -> None:
        self.film, self.law, self.path, self.mode = film, law, path, mode

    def draw(self, count: int, number: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, float, float]:
        """So many chains of the known targets, see `draw_around`."""
        return draw_around(self.law, self.path, self.mode[:count], number, rng)


class SampledStart:
    """Chains around samples of the same paths, with the density of a normal distribution wider than these.

    Chains that start around a mode of the added frames draw each target's own motion from the prior. Few of them are
    near the right paths, and the evidence that they find scatters by many units; around samples it does not.
    The covariance is the mean of the samples' own and of the normal approximation's: short chains leave directions
    out, and the approximation other modes. Where the prior leaves out nearly all of it, it is the samples' own.

    Args:
        film: the frames.
        law: of the motion.
        theta: (m, size) samples in the chains' parameters.
        covariance: (size, size) of the normal approximation.
    """

    def __init__(self, film: Film, law: MotionLaw, theta: FloatArray, covariance: FloatArray) -> None:
        self.film, self.law, self.middle = film, law, theta.mean(axis=0)
        sampled = np.atleast_2d(np.cov(theta, rowvar=False))
        self.roots = []
        for total in (0.5 * (sampled + covariance), sampled):
            np.fill_diagonal(total, np.diag(total) * (1.0 + SHRINKAGE) + 1e-12)
            self.roots.append(WIDENING * np.linalg.cholesky(total))

    def draw(self, count: int, number: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, float, float]:
        """So many chains, see `draw_around`."""
        law, size = self.law, len(self.middle)
        step, possible = rng.standard_normal((size, CANDIDATES * number)), np.empty(CANDIDATES * number, np.bool_)
        for root in self.roots:
            state = self.middle[:, None] + root @ step
            mark_possible(law, count, state.astype(np.float32), possible)
            inside = np.flatnonzero(possible)
            if len(inside) >= number:
                break
        # The density is cut off where the prior is zero, if anything is left.
        share, kept = (len(inside) / step.shape[1], inside) if len(inside) >= number else (1.0, np.arange(number))
        state, step = state[:, kept[:number]], step[:, kept[:number]]
        log_weight = 0.5 * (step**2).sum(axis=0) + np.log(np.diag(root)).sum() + 0.5 * size * LOG_TWO_PI
        log_weight += math.log(share)
        for m in range(1, law.common):
            log_weight -= math.log(math.pi * law.width[0, m] ** 2)
            if law.normal[m]:
                square = (state[2 * (m - 1) : 2 * m] ** 2).sum(axis=0) / law.width[0, m] ** 2
                log_weight -= 0.5 * square + math.log(2.0)
        own = sum(math.log(math.pi * law.width[1, m] ** 2) for m in range(1, law.own))
        log_weight += count * (log_density_of_start(law) - own)
        return state, log_weight, -1.0, math.lgamma(count + 1.0)
