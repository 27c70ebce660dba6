"""Where the paths of a group inside one pixel start: templates that explain the frames added along its path."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.signal import correlate

from csist._compiled import compiled, lean
from csist._types import FloatArray, IntArray
from csist.methods.continuous.likelihood import profile
from csist.methods.continuous.optics import optics_of
from csist.methods.continuous.sequence.model import Film, MotionLaw
from csist.physics.psf import PSF
from csist.physics.sensor import Sensor

GRID = 8
"""Points a px at which the added frames are tabulated."""
OVERLAPS = 16
"""Points a px at which the overlap of two targets is tabulated."""
OVERLAP_REACH_PX = 1.5
"""Largest separation that is tabulated."""
REACH_PX = 1.5
"""Distance from the group's middle up to which the added frames are tabulated."""
START_EFFECTIVE = 200.0
"""Effective number of templates at the temperature at which the annealing starts."""
MOTION_SPREAD_PX = 0.15
"""Spread of the group's motion over half the sequence at which the annealing starts."""
INSIDE = 0.9
"""Largest share of the prior's radius at which the group's motion starts."""
NEAR_PX = 0.15
"""Largest distance of the group's pixel, from its border, to the centroid."""


class Added(NamedTuple):
    """The frames added along the common path, as the likelihood of targets that all move along it.

    Args:
        match: (n, n) sum over frames of P^T W z of a target that starts at a point of a grid around the middle.
        left: x of the first point.
        top: y of the first point.
        overlap: (m, m) sum over frames of P_1^T W P_2 of two targets by their separation y, x.
        power: sum over frames of z^T W z.
    """

    match: FloatArray
    left: float
    top: float
    overlap: FloatArray
    power: float


@lru_cache(maxsize=16)
def overlap_table(psf: PSF) -> FloatArray:
    """Mean over sub-pixel phases of the overlap of two targets of unit flux, (m, m) by their separation y, x in px.

    The mean over phases of a sum over pixels is the integral: the autocorrelation of the response.
    """
    reach = math.ceil(psf.reach_px) + 1
    fine = np.arange(-reach * OVERLAPS, reach * OVERLAPS + 1) / OVERLAPS
    response = psf.response(fine[None, :], fine[:, None])
    full = correlate(response, response, mode="same", method="fft") / OVERLAPS**2
    middle, keep = len(fine) // 2, int(OVERLAP_REACH_PX * OVERLAPS)
    part = slice(middle - keep, middle + keep + 1)
    return np.ascontiguousarray(full[part, part])


@compiled
def fill_match(film: Film, shift: FloatArray, tables: FloatArray, corner: FloatArray, match: FloatArray) -> None:
    """Fill `match` of `Added`.

    Args:
        film: the frames.
        shift: (T, 2) how far the group has moved in x and y since the first frame.
        tables: of `csist.methods.continuous.model.Optics`.
        corner: (2,) x and y of the grid's first point.
        match: filled.
    """
    frames, side, _ = film.data.shape
    points = match.shape[0]
    along_y, along_x = np.empty((points, side)), np.empty((points, side))
    light, half = np.empty((side, side)), np.empty((points, side))
    match[:] = 0.0
    for t in range(frames):
        for i in range(side):
            for j in range(side):
                light[i, j] = film.data[t, i, j] * film.weight[t, i, j]
        for rank in range(tables.shape[1]):
            for p in range(points):
                profile(tables[0, rank], corner[1] + p / GRID + shift[t, 1] - film.origin[t, 0], 0, along_y[p])
                profile(tables[1, rank], corner[0] + p / GRID + shift[t, 0] - film.origin[t, 1], 0, along_x[p])
            for p in range(points):
                for j in range(side):
                    total = 0.0
                    for i in range(side):
                        total += along_y[p, i] * light[i, j]
                    half[p, j] = total
            for p in range(points):
                for q in range(points):
                    total = 0.0
                    for j in range(side):
                        total += half[p, j] * along_x[q, j]
                    match[p, q] += total


@lean
def interpolate(table: FloatArray, row: float, column: float) -> float:
    """Bilinear interpolation of a table at a place inside it, the nearest edge outside."""
    row = min(max(row, 0.0), table.shape[0] - 1.001)
    column = min(max(column, 0.0), table.shape[1] - 1.001)
    i, j = int(row), int(column)
    u, v = row - i, column - j
    upper = (1.0 - v) * table[i, j] + v * table[i, j + 1]
    lower = (1.0 - v) * table[i + 1, j] + v * table[i + 1, j + 1]
    return float((1.0 - u) * upper + u * lower)


@lean
def weigh_templates(positions: FloatArray, added: Added, flux: FloatArray, value: FloatArray) -> None:
    """Fill `value` (m,) with the log likelihood of configurations that move as one, each at its best common flux.

    Args:
        positions: (m, targets, 2) x, y in the first frame.
        added: the frames.
        flux: (2,) bounds.
        value: filled.
    """
    count, middle = positions.shape[1], added.overlap.shape[0] // 2
    for m in range(positions.shape[0]):
        cross, norm = 0.0, count * added.overlap[middle, middle]
        for k in range(count):
            x, y = positions[m, k, 0], positions[m, k, 1]
            cross += interpolate(added.match, (y - added.top) * GRID, (x - added.left) * GRID)
            for other in range(k):
                dx, dy = positions[m, other, 0] - x, positions[m, other, 1] - y
                norm += 2.0 * interpolate(added.overlap, dy * OVERLAPS + middle, dx * OVERLAPS + middle)
        best = min(max(cross / norm, flux[0]), flux[1])
        value[m] = best * cross - 0.5 * best * best * norm - 0.5 * added.power


def fill_motion(law: MotionLaw, path: FloatArray, state: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Draw velocities and other motion of chains: the group's around its path, the targets' own from the prior.

    Args:
        law: of the motion.
        path: (M, 2) coefficients of the group's path.
        state: (size, chains); all rows but those of starts and fluxes are filled.
        rng: generator.

    Returns:
        log weights (chains,): prior over the density drawn from, up to a constant of the law.
    """
    number, shared = state.shape[1], 2 * (law.common - 1)
    log_weight = np.zeros(number)
    for m in range(1, law.common):
        spread = min(MOTION_SPREAD_PX / max(0.5 * float(np.ptp(law.basis[m])), 1e-9), float(law.width[0, m]))
        step, centre = rng.standard_normal((2, number)), path[m]
        if not law.normal[m]:  # the light's path may be faster than the group can be: that of one target is
            centre = centre * min(1.0, INSIDE * float(law.width[0, m]) / max(math.hypot(*centre), 1e-12))
        state[2 * (m - 1) : 2 * m] = centre[:, None] + spread * step
        log_weight += 0.5 * (step**2).sum(axis=0) + 2.0 * math.log(spread / law.width[0, m])
        if law.normal[m]:
            log_weight -= 0.5 * (state[2 * (m - 1) : 2 * m] ** 2).sum(axis=0) / law.width[0, m] ** 2
    for first in range(shared, len(state), 2 * law.own + 1):
        for m in range(1, law.own):
            angle, radius = 2.0 * np.pi * rng.random(number), law.width[1, m] * np.sqrt(rng.random(number))
            state[first + 2 * m], state[first + 2 * m + 1] = radius * np.cos(angle), radius * np.sin(angle)
    return log_weight


class PixelStart:
    """Chains of a group inside one pixel, drawn from templates that explain the frames added along its path.

    Args:
        film: the frames.
        path: (M, 2) coefficients of the group's path.
        counts: numbers of targets to be sampled.
        positions: (Kmax + 1, templates, Kmax, 2) offsets x, y from the pixel's centre, drawn from the prior.
        sensor: PSF and shape of the window.
        law: of the motion.
    """

    def __init__(
        self, film: Film, path: FloatArray, counts: IntArray, positions: FloatArray, sensor: Sensor, law: MotionLaw
    ) -> None:
        self.film, self.path, self.counts, self.positions, self.law = film, path, counts, positions, law
        self.shape = sensor.shape
        self.flux = np.exp(law.flux.astype(np.float64)) if law.log_flux else law.flux.astype(np.float64)
        points, basis = int(2 * REACH_PX * GRID) + 1, law.basis.astype(np.float64)
        corner, match = path[0] - REACH_PX, np.empty((points, points))
        fill_match(film, basis[1:].T @ path[1:], optics_of(sensor.psf).tables, corner, match)
        weight = film.weight.astype(np.float64)
        scale = float(weight.sum()) / max(float((weight > 0.0).mean()) * film.data[0].size, 1e-9)
        power = float((weight * film.data.astype(np.float64) ** 2).sum())
        overlap = overlap_table(sensor.psf) * scale
        self.added = Added(match, float(corner[0]), float(corner[1]), overlap, power)

    def draw(self, count: int, number: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, float, float]:
        """So many chains of so many targets.

        Returns:
            state (size, chains), log weights (chains,), inverse temperature, and log evidence up to there.
        """
        law = self.law
        places = self.positions[count, None, :, :count] + self._pixels()[:, None, None]
        places = np.ascontiguousarray(places.reshape(-1, count, 2))
        value = np.empty(len(places))
        weigh_templates(places, self.added, self.flux, value)
        inverse, weight = temper(value, START_EFFECTIVE)
        ladder = (np.arange(number) + rng.random()) / number * weight.sum()
        chosen = np.minimum(np.searchsorted(np.cumsum(weight), ladder), len(weight) - 1)
        share = self.positions.shape[1] * self.shape[0] * self.shape[1]
        log_evidence = math.log(weight.sum() / share) + inverse * float(value.max())
        state = np.empty((2 * (law.common - 1) + count * (2 * law.own + 1), number))
        log_weight = fill_motion(law, self.path, state, rng) - inverse * value[chosen]
        for k in range(count):
            first = 2 * (law.common - 1) + k * (2 * law.own + 1)
            state[first : first + 2] = places[chosen, k].T
            state[first + 2 * law.own] = rng.uniform(law.flux[0], law.flux[1], number)
        return state, log_weight, inverse, log_evidence

    def _pixels(self) -> FloatArray:
        """Centres (n, 2) of the pixels that the group may start in: those near its centroid."""
        last = np.array([self.shape[1] - 1.0, self.shape[0] - 1.0])
        middle = np.clip(self.path[0], -0.5, last + 0.5)
        offsets = np.stack(np.meshgrid([-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]), axis=-1).reshape(-1, 2)
        pixels = np.clip(np.rint(middle), 0.0, last) + offsets
        inside = ((pixels >= 0.0) & (pixels <= last)).all(axis=1)
        near = np.abs(pixels - middle).max(axis=1) < 0.5 + NEAR_PX
        return np.asarray(pixels[inside & near])


def temper(value: FloatArray, effective: float) -> tuple[float, FloatArray]:
    """Highest inverse temperature up to 1 at which enough of some states count, and their weights, the largest 1.

    Args:
        value: (m,) log likelihoods.
        effective: effective number of states that is enough.
    """
    relative, wanted = value - value.max(), min(effective, 0.5 * len(value))
    low, high = -40.0, 0.0
    for _ in range(20):
        middle = 0.5 * (low + high)
        weight = np.exp(relative * 2.0**middle)
        if weight.sum() ** 2 < wanted * (weight**2).sum():
            high = middle
        else:
            low = middle
    return 2.0**low, np.exp(relative * 2.0**low)
