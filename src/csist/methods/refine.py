"""`NAME+refine`: the answer of a grid method as the start of one climb in continuous coordinates.

The map is read out by centroid (`SubPixelGrid.centroids`), and positions and fluxes of all targets of the image
climb together to the mode of the likelihood, each position within `REACH_CELLS` of its start. Nothing is added,
split or sampled, so the number of targets is the map's: this is what a grid method is worth without its grid.

Standard errors come from the inverse Fisher information (Kay, Fundamentals of Statistical Signal Processing,
vol. 1, 1993, ch. 3), to which the bounds add what a uniform law between them knows. They grow by the root of the
reduced chi-squared where that is above 1: noise that nobody stated and targets that the map missed both show
there. That another mode may be the right one they do not know.

The score is the probability that goes with these errors, put together as in `csist.methods.continuous.posterior`:
within 0.25 px, but for `TIE_BREAK`. The flux of the cells, a grid read-out's score, and the fitted flux were tried
on simulated benchmark images and rank worse by five to ten points of CSO-mAP: they do not tell a lone target from
one that is hard to tell from its neighbour.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csist.checks import InputError, check_stack
from csist.datasets.scenes import ScenePrior, flux_bounds
from csist.methods.base import GridMethod
from csist.methods.continuous.likelihood import (
    MEASURED,
    cholesky,
    cholesky_solve,
    compiled,
    information_matrix,
    maximise,
    pixel_terms,
    profile_tables,
    render_with_jacobian,
)
from csist.methods.continuous.method import IMAGES_A_TASK, pixel_codes
from csist.methods.continuous.posterior import TIE_BREAK, TOLERANCES_PX
from csist.methods.continuous.solvers import describe, inverse_gain
from csist.targets import Flag, Targets

FloatArray = NDArray[np.float64]

START_THRESHOLD = 30.0
"""Cells below this intensity in counts start no target. Below the published read-out's 50: what is too much is
merged or fades in the climb, what is missing stays missing."""

REACH_CELLS = 1.0
"""A position stays within so many cells of its start, along each axis."""

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

ANGLES = 32
"""Directions over which a probability within a circle is summed."""


@compiled
def probability_within(xx: float, yy: float, xy: float, radius: float) -> float:
    """Probability of a two-dimensional normal law with this covariance within `radius` of its mean.

    With the law made round, each direction has a bound of its own: the mean over directions of
    1 - exp(-radius^2 / 2 v), v the variance along it; exact but for the sum over `ANGLES`.
    """
    middle, half = 0.5 * (xx + yy), math.hypot(0.5 * (xx - yy), xy)
    total = 0.0
    for k in range(ANGLES):
        along = max(middle + half * math.cos(math.pi * (k + 0.5) / ANGLES), 1e-300)
        total += 1.0 - math.exp(-0.5 * radius * radius / along)
    return total / ANGLES


@compiled
def _score(xx: float, yy: float, xy: float) -> float:
    """Rank of a position with this covariance, 0 to 1."""
    mean = 0.0
    for radius in TOLERANCES_PX:
        mean += probability_within(xx, yy, xy, radius) / TOLERANCES_PX.shape[0]
    return (1.0 - TIE_BREAK) * probability_within(xx, yy, xy, TOLERANCES_PX[-1]) + TIE_BREAK * mean


@compiled
def _errors(
    theta: FloatArray,
    count: int,
    low: FloatArray,
    high: FloatArray,
    tables: FloatArray,
    data: FloatArray,
    code: Any,
    variance: float,
    inverse_gain: float,
    deviation: FloatArray,
    score: FloatArray,
) -> float:
    """Fill standard errors (3 count,) and scores (count,) at the mode; returns chi-squared.

    NaN, and score 0, where the image says nothing about a parameter.
    """
    h, w = data.shape
    size = 3 * count
    image, slope, curvature = np.empty((h, w)), np.empty((h, w)), np.empty((h, w))
    jacobian, information = np.empty((size, h, w)), np.empty((size, size))
    no_basis = np.zeros((0, h, w))
    render_with_jacobian(theta, count, tables, 0, 0, no_basis, np.empty((4, max(h, w))), image, jacobian)
    chi_squared = -2.0 * pixel_terms(image, data, code, variance, inverse_gain, slope, curvature)
    information_matrix(jacobian, curvature, size, np.empty(h * w), information)
    excess = max(chi_squared / max((code == MEASURED).sum() - size, 1), 1.0)
    for a in range(size):
        for b in range(size):
            information[a, b] /= excess
        information[a, a] += 12.0 / max(high[a] - low[a], NARROWEST) ** 2
    deviation[:] = np.nan
    score[:] = 0.0
    if not cholesky(information, size):
        return chi_squared
    covariance = np.zeros((3, size))
    for k in range(count):
        covariance[:] = 0.0
        for p in range(3):
            covariance[p, 3 * k + p] = 1.0
            cholesky_solve(information, size, covariance[p])
            deviation[3 * k + p] = math.sqrt(covariance[p, 3 * k + p])
        score[k] = _score(covariance[0, 3 * k], covariance[1, 3 * k + 1], covariance[0, 3 * k + 1])
    return chi_squared


@compiled
def _climb(
    images: FloatArray,
    codes: Any,
    tables: FloatArray,
    variances: FloatArray,
    inverse_gain: float,
    min_separation: float,
    counts: Any,
    theta: FloatArray,
    low: FloatArray,
    high: FloatArray,
    deviation: FloatArray,
    score: FloatArray,
    fit: FloatArray,
    converged: Any,
) -> None:
    """Climb in every image from `theta` (N, 3 most), in place, between the bounds `low` and `high`.

    Fills `deviation` (N, 3 most), `score` (N, most), chi-squared `fit` (N,) and `converged` (N,); what lies
    beyond an image's count is left alone.
    """
    no_basis = np.zeros((0, images.shape[1], images.shape[2]))
    for n in range(images.shape[0]):
        count = counts[n]
        size = 3 * count
        if count == 0:
            continue
        _, converged[n] = maximise(
            theta[n, :size], count, low[n, :size], high[n, :size], min_separation, tables, 0, 0, no_basis, images[n],
            codes[n], variances[n], inverse_gain, ITERATIONS, TOLERANCE,
        )  # fmt: skip
        fit[n] = _errors(
            theta[n, :size], count, low[n, :size], high[n, :size], tables, images[n], codes[n], variances[n],
            inverse_gain, deviation[n, :size], score[n, :count],
        )  # fmt: skip


class Refined:
    """A grid method followed by one climb in continuous coordinates.

    Args:
        method: the grid method.
        prior: what is known of a group; its fluxes bound those of the targets and, by the flux of the whole map,
            their number, and targets keep its separation. None: any flux above 0, one cell of separation.
        workers: threads; the result does not depend on it.

    Raises:
        InputError: if `method` gives no map.
    """

    def __init__(self, method: GridMethod, prior: ScenePrior | None = None, workers: int | None = None) -> None:
        if not isinstance(method, GridMethod):
            raise InputError(f"only a grid method can be refined, got {type(method).__name__}")
        self.method = method
        self.sensor = method.sensor
        self.prior = prior
        self.workers = workers or os.cpu_count() or 1
        self._tables = profile_tables(self.sensor.psf)
        self._flux = (FAINTEST, np.inf)
        self._separation_px = 1.0 / method.ratio
        if prior is not None:
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
        maps = self.method.predict_maps(stack)

        def refine_part(start: int) -> list[Targets]:
            part = slice(start, start + IMAGES_A_TASK)
            return self._refine(stack[part], maps[part], threshold)

        with ThreadPoolExecutor(self.workers) as pool:
            parts = pool.map(refine_part, range(0, len(stack), IMAGES_A_TASK))
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
        theta, low, high = self._bounds(starts)
        deviation, score = np.full_like(theta, np.nan), np.zeros((len(images), MOST_TARGETS))
        fit, converged = np.zeros(len(images)), np.zeros(len(images), np.bool_)
        _climb(
            data, codes, self._tables, variances, inverse_gain(sensor), self._separation_px, counts, theta, low, high,
            deviation, score, fit, converged,
        )  # fmt: skip
        found = []
        for n, count in enumerate(counts):
            used = slice(0, 3 * count)
            mode, errors = theta[n, used].reshape(-1, 3), deviation[n, used].reshape(-1, 3)
            stuck = ((theta[n, used] <= low[n, used]) | (theta[n, used] >= high[n, used])).reshape(-1, 3).any(axis=1)
            certain = np.where(np.arange(count + 1) == count, 0.0, -np.inf)
            flags = describe(int(count), certain, float(fit[n]), codes[n], 0).flags
            if not converged[n]:
                flags |= Flag.NOT_CONVERGED
            targets = Targets(
                x=mode[:, 0],
                y=mode[:, 1],
                intensity=mode[:, 2],
                score=score[n, :count],
                x_std=errors[:, 0],
                y_std=errors[:, 1],
                intensity_std=errors[:, 2],
                flags=np.where(stuck, int(flags | Flag.AT_BOUND), int(flags)),
            )
            found.append(targets[targets.intensity >= threshold])
        return found

    def _bounds(self, starts: list[Targets]) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Start, lower and upper bounds (N, 3 MOST_TARGETS) of x, y and flux of each target."""
        start = np.zeros((len(starts), MOST_TARGETS, 3))
        for n, targets in enumerate(starts):
            start[n, : len(targets)] = np.stack([targets.x, targets.y, targets.intensity], axis=1)
        reach = np.array([REACH_CELLS, REACH_CELLS, np.inf]) / self.method.ratio
        rows, columns = self.sensor.shape
        low = np.maximum(start - reach, [-0.5, -0.5, self._flux[0]])
        high = np.minimum(start + reach, [columns - 0.5, rows - 0.5, self._flux[1]])
        theta, low, high = (a.reshape(len(starts), -1) for a in (np.clip(start, low, high), low, high))
        return theta, low, high
