"""Frames so crowded that every target overlaps its neighbours: all targets of a frame fitted together.

Where blobs run into each other there is no window that could be unmixed on its own. Instead, in passes of ever lower
thresholds:

1. the matched filter finds what the model leaves over (Stetson, PASP 99, 191, 1987, section III, on the residual),
2. targets that the residual shows to be stretched are split in two,
3. positions, fluxes and a background of bilinear patches are fitted together by damped Gauss-Newton steps, one sparse
   least-squares problem for the whole frame (as in Schlafly et al., ApJS 234, 39, 2018, section 3),
4. targets that their neighbours explain as well are dropped: a flux must exceed the threshold in units of its own
   standard error, which counts what is shared with the neighbours.

Splitting rests on the first moments that a blend of two targets has beyond a single one: fluxes f q and f (1 - q) a
vector d apart add f q (1 - q) d d^T / 2 times the second derivatives of the PSF.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.signal import oaconvolve
from scipy.sparse import coo_array, csr_array, diags_array, hstack, kron
from scipy.sparse.linalg import lsmr
from scipy.spatial import KDTree

from csist.frames.detect import Peaks, find_peaks
from csist.physics.psf import PSF, equivalent_sigma, lone_significance, pixel_kernel
from csist.targets import Targets

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

PASSES = (16.0, 4.0, 2.0, 1.0, 1.0, 1.0)
"""Thresholds of the passes, in units of the last one."""
STEPS = 3
"""Gauss-Newton steps after every change of the number of targets."""
LAST_STEPS = 6
STEP_PX = 0.3
"""Standard deviation of a position's step: damps what the image does not measure."""
LARGEST_STEP_PX = 0.5
FLUX_SIGMAS = 300.0
"""The same of a flux, in standard errors of a lone target: hardly damped."""
SOLVER_ITERATIONS = 80

PATCH_PX = 48
"""Distance of the background's nodes."""
FIRST_LEVEL = 0.05
"""Quantile of a patch that starts its background: where all pixels hold light, only the darkest tell."""

LOST_LIGHT = 0.2
"""Where a target's light falls below this share of the noise it is left out of the model."""
CLOSEST_SIGMAS = 0.5
"""A residual closer than so many sigma to a target is not a new one; splitting is for that."""
SPLIT_CHI_SQUARED = 25.0
"""Gain in chi-squared, for three degrees of freedom, from which a target is split."""
SPLIT_SIGMAS = 8.0
"""Significance from which a target is looked at for splitting."""
SPLIT_RANGE = (0.4, 2.0)
"""Bounds of the first distance of a pair, in sigma."""
NEIGHBOURS_SIGMAS = 3.5
"""Targets so close share their errors."""
MOST_NEIGHBOURS = 12
DIFFERENCE_PX = 0.1
JITTER = 1e-9

DARK_WEIGHT = 0.9
"""Weight of a pixel, in that of one without light, from which its residual tells the noise."""
FEWEST_DARK_PIXELS = 100


@dataclass(frozen=True)
class Field:
    """What was measured, and with which optics.

    Args:
        image: (H, W) in counts.
        valid: (H, W) pixels that count.
        psf: point spread function.
        noise_std: noise of a pixel without a target, in counts.
        gain: electrons per count, None for no shot noise of the targets.
        psf_error: error of the PSF as a share of the light in a pixel.
        measured: whether the noise is measured anew on what every pass leaves over, `noise_std` being a first guess.
    """

    image: FloatArray
    valid: BoolArray
    psf: PSF
    noise_std: float
    gain: float | None
    psf_error: float
    measured: bool = False

    @property
    def sigma_px(self) -> float:
        """Sigma of the Gaussian with the same noise-equivalent area."""
        return equivalent_sigma(self.psf)

    def weight(self, light: FloatArray) -> FloatArray:
        """One over the standard deviation (H, W) of a pixel with so much light of targets; 0 where not valid."""
        light = np.maximum(light, 0.0)
        variance = self.noise_std**2 + (self.psf_error * light) ** 2
        if self.gain is not None:
            variance += light / self.gain
        return np.where(self.valid, 1.0 / np.sqrt(variance), 0.0)


@dataclass(frozen=True)
class Solution:
    """Targets and background that were fitted.

    Args:
        targets: (n, 3) x, y in px and flux in counts.
        nodes: (m,) background at the nodes of `_patches`, in counts.
    """

    targets: FloatArray
    nodes: FloatArray


def unmix_crowded(field: Field, threshold: float) -> Targets:
    """Targets of a crowded frame, brightest first; `score` is z / (z + threshold), z the flux in standard errors.

    Args:
        field: the frame.
        threshold: smallest z.
    """
    patches, nodes = _patches(field)
    solution = Solution(np.empty((0, 3)), nodes)
    for factor in PASSES:
        found = _residual_peaks(field, patches, solution, factor * threshold)
        targets = np.concatenate([_split(field, patches, solution, threshold), found])
        if not len(targets):
            continue
        solution = _fit(field, patches, Solution(targets, solution.nodes), STEPS)
        solution = _prune(field, patches, solution, threshold)
        if field.measured:
            field = replace(field, noise_std=_left_over(field, patches, solution))
    if not len(solution.targets):
        return Targets.empty()
    solution = _prune(field, patches, _fit(field, patches, solution, LAST_STEPS), threshold)
    errors = _errors(field, *_state(field, patches, solution)[1:], solution)
    x, y, flux = solution.targets.T
    z = flux / errors[:, 2]
    order = np.argsort(-flux, kind="stable")
    return Targets(x, y, flux, z / (z + threshold), x_std=errors[:, 0], y_std=errors[:, 1], intensity_std=errors[:, 2])[
        order
    ]


def _patches(field: Field) -> tuple[csr_array, FloatArray]:
    """The background's bilinear functions (pixels, nodes) and what their nodes start at."""
    weights, starts = [], []
    for length in field.image.shape:
        count = max(2, round(length / PATCH_PX) + 1)
        place = np.arange(length) / max(length - 1, 1) * (count - 1)
        left = np.minimum(place.astype(int), count - 2)
        along = np.zeros((length, count))
        along[np.arange(length), left] = 1.0 - (place - left)
        along[np.arange(length), left + 1] = place - left
        weights.append(csr_array(along))
        starts.append(np.rint(np.linspace(0, length - 1, count)).astype(int))
    nodes = []
    everything = field.image[field.valid]
    for i in starts[0]:
        for j in starts[1]:
            part = np.s_[max(i - PATCH_PX, 0) : i + PATCH_PX + 1, max(j - PATCH_PX, 0) : j + PATCH_PX + 1]
            values = field.image[part][field.valid[part]]
            nodes.append(np.quantile(values if values.size else everything, FIRST_LEVEL))
    return csr_array(kron(weights[0], weights[1])), np.array(nodes) + 1.6 * field.noise_std


def _reach(field: Field, flux: FloatArray) -> IntArray:
    """Half side (n,) in px of the square in which a target's light matters."""
    full = int(np.ceil(field.psf.radius_px)) + 1
    offsets = np.arange(full + 1)
    along = np.arange(-full, full + 1)
    response = np.abs(field.psf.response(along[None, :], along[:, None]))
    ring = np.maximum(np.abs(along)[:, None], np.abs(along)[None, :])
    outside = np.array([response[ring > r].max(initial=0.0) for r in offsets])
    reach = np.searchsorted(-outside, -LOST_LIGHT * field.noise_std / np.maximum(flux, 1e-300))
    # A few sizes only, so that many targets are drawn at once.
    return np.minimum(np.maximum(3 * -(-reach // 3), int(np.ceil(3.0 * field.sigma_px))), full)


def _design(field: Field, targets: FloatArray, curved: bool = False) -> csr_array:
    """Derivatives (pixels, 3 n) of the image by x, y and flux of each target.

    With `curved` by xx, xy and yy in place of these: half of the second derivatives of a target of flux 1.
    """
    rows, columns = field.image.shape
    reach = _reach(field, targets[:, 2])
    parts: list[tuple[IntArray, IntArray, FloatArray]] = []
    for half in np.unique(reach):
        chosen = np.flatnonzero(reach == half)
        x, y, flux = (targets[chosen, k, None, None] for k in range(3))
        i = np.rint(y).astype(int) + np.arange(-half, half + 1)[:, None]
        j = np.rint(x).astype(int) + np.arange(-half, half + 1)[None, :]
        dx, dy = j - x, i - y
        if curved:
            (xx, xy), (_, yy) = (
                [(after - before) / (2.0 * DIFFERENCE_PX) for after, before in zip(ahead, behind, strict=True)]
                for ahead, behind in (
                    (field.psf.gradient(dx - DIFFERENCE_PX, dy), field.psf.gradient(dx + DIFFERENCE_PX, dy)),
                    (field.psf.gradient(dx, dy - DIFFERENCE_PX), field.psf.gradient(dx, dy + DIFFERENCE_PX)),
                )
            )
            values = [0.5 * xx, xy, 0.5 * yy]
        else:
            along_x, along_y = field.psf.gradient(dx, dy)
            values = [flux * along_x, flux * along_y, field.psf.response(dx, dy)]
        inside = (i >= 0) & (i < rows) & (j >= 0) & (j < columns)
        pixel = (i * columns + j)[inside]
        for k, value in enumerate(values):
            column = np.broadcast_to(3 * chosen[:, None, None] + k, inside.shape)[inside]
            parts.append((pixel, column, value[inside]))
    if not parts:
        return csr_array((rows * columns, 0))
    pixel, column, value = (np.concatenate(each) for each in zip(*parts, strict=True))
    return csr_array(coo_array((value, (pixel, column)), shape=(rows * columns, 3 * len(targets))))


def _state(field: Field, patches: csr_array, solution: Solution) -> tuple[FloatArray, FloatArray, csr_array]:
    """Residual (pixels,), weight (pixels,) and design matrix at a solution."""
    design = _design(field, solution.targets)
    light = design[:, 2::3] @ solution.targets[:, 2]
    residual = np.where(field.valid.ravel(), field.image.ravel() - light - patches @ solution.nodes, 0.0)
    return residual, field.weight(light.reshape(field.image.shape)).ravel(), design


def _fit(field: Field, patches: csr_array, solution: Solution, steps: int) -> Solution:
    """The solution after some damped Gauss-Newton steps."""
    lone = _lone_error(field)
    for _ in range(steps):
        residual, weight, design = _state(field, patches, solution)
        number = len(solution.targets)
        scale = np.concatenate(
            [np.tile([STEP_PX, STEP_PX, FLUX_SIGMAS * lone], number), np.full(len(solution.nodes), 1e3 * lone)]
        )
        matrix = diags_array(weight) @ hstack([design, patches], format="csr") @ diags_array(scale)
        step = lsmr(matrix, weight * residual, damp=1.0, atol=1e-6, btol=1e-6, maxiter=SOLVER_ITERATIONS)[0] * scale
        targets = solution.targets.copy()
        change = step[: 3 * number].reshape(number, 3)
        targets[:, :2] += np.clip(change[:, :2], -LARGEST_STEP_PX, LARGEST_STEP_PX)
        targets[:, 2] = np.maximum(targets[:, 2] + change[:, 2], 0.2 * targets[:, 2])
        limits = np.array(field.image.shape)[::-1] - 0.5
        targets[:, :2] = np.clip(targets[:, :2], -0.5, limits)
        solution = Solution(targets, solution.nodes + step[3 * number :])
    return solution


def _left_over(field: Field, patches: csr_array, solution: Solution) -> float:
    """Robust scatter in counts of the residual where targets add less than the noise."""
    residual, weight, _ = _state(field, patches, solution)
    dark = np.asarray(weight * field.noise_std > DARK_WEIGHT)
    values = residual[dark if dark.sum() >= FEWEST_DARK_PIXELS else weight > 0.0]
    scatter = 1.4826 * float(np.median(np.abs(values - np.median(values)))) if values.size else 0.0
    return max(scatter, 1e-3 * field.noise_std)


def _lone_error(field: Field) -> float:
    """Standard error in counts of the flux of a target alone."""
    return field.noise_std / lone_significance(field.psf)


def _residual_peaks(field: Field, patches: csr_array, solution: Solution, threshold: float) -> FloatArray:
    """New targets (m, 3) where the matched filter finds light in the residual that no target is next to."""
    residual, weight, _ = _state(field, patches, solution)
    shape = field.image.shape
    inverse = (weight**2).reshape(shape)
    kernel = pixel_kernel(field.psf)[::-1, ::-1]
    top = oaconvolve(residual.reshape(shape) * inverse, kernel, mode="same")
    norm = oaconvolve(inverse, kernel**2, mode="same")
    least = 0.1 * (kernel**2).sum() * np.median(inverse[field.valid])
    norm = np.maximum(norm, 0.1 * least)
    peaks: Peaks = find_peaks(np.where(field.valid, top / np.sqrt(norm), 0.0), threshold)
    if len(peaks) and len(solution.targets):
        distance, _ = KDTree(solution.targets[:, :2]).query(peaks.positions)
        peaks = peaks[np.asarray(distance > CLOSEST_SIGMAS * field.sigma_px)]
    rows, columns = np.rint(peaks.y).astype(int), np.rint(peaks.x).astype(int)
    flux = peaks.significance / np.sqrt(norm[rows, columns])
    return np.stack([peaks.x, peaks.y, flux], axis=1)


def _neighbourhoods(field: Field, targets: FloatArray) -> Iterator[IntArray]:
    """Targets with those that share their errors, itself first: arrays (g, m), one for each number m."""
    tree = KDTree(targets[:, :2])
    number = min(MOST_NEIGHBOURS, len(targets))
    distance, near = tree.query(targets[:, :2], k=range(1, number + 1))
    near = np.take_along_axis(near, np.argsort(near != np.arange(len(targets))[:, None], axis=1, kind="stable"), 1)
    count = np.sum(np.asarray(distance) <= NEIGHBOURS_SIGMAS * field.sigma_px, axis=1)
    for m in np.unique(count):
        yield near[count == m, :m].astype(np.int64)


def _parameters(members: IntArray) -> IntArray:
    """Numbers (g, 3 m) of the parameters of targets (g, m)."""
    return (3 * members[:, :, None] + np.arange(3)).reshape(len(members), -1)


def _blocks(matrix: csr_array, rows: IntArray, columns: IntArray) -> FloatArray:
    """Dense blocks (g, r, c) of a matrix at rows (g, r) and columns (g, c)."""
    i, j = np.broadcast_arrays(rows[:, :, None], columns[:, None, :])
    values = matrix[i.ravel(), j.ravel()]
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values).reshape(i.shape)


def _errors(field: Field, weight: FloatArray, design: csr_array, solution: Solution) -> FloatArray:
    """Standard errors (n, 3) of x, y and flux, what is shared with the neighbours included."""
    weighted = diags_array(weight) @ design
    information = csr_array(weighted.T @ weighted)
    errors = np.empty((len(solution.targets), 3))
    for members in _neighbourhoods(field, solution.targets):
        block = _blocks(information, _parameters(members), _parameters(members))
        errors[members[:, 0]] = np.sqrt(np.diagonal(np.linalg.inv(_regular(field, block)), axis1=1, axis2=2)[:, :3])
    return errors


def _regular(field: Field, block: FloatArray) -> FloatArray:
    """Information (g, 3 m, 3 m) that can be inverted: a position is known to a sigma of the PSF, if no better."""
    size = block.shape[1]
    known = np.tile([1.0 / field.sigma_px**2, 1.0 / field.sigma_px**2, 0.0], size // 3)
    added = known + JITTER * np.diagonal(block, axis1=1, axis2=2) + 1e-300
    return np.asarray(block + added[:, None, :] * np.eye(size))


def _prune(field: Field, patches: csr_array, solution: Solution, threshold: float) -> Solution:
    """The solution without the targets that their neighbours explain as well, the weakest nearby first."""
    while len(solution.targets):
        errors = _errors(field, *_state(field, patches, solution)[1:], solution)
        z = solution.targets[:, 2] / np.maximum(errors[:, 2], 1e-300)
        close = KDTree(solution.targets[:, :2]).query_ball_point(solution.targets[:, :2], 2.0 * field.sigma_px)
        weakest = np.array([z[k] <= z[each].min() for k, each in enumerate(close)])
        dropped = weakest & (z < threshold)
        if not dropped.any():
            break
        solution = _fit(field, patches, Solution(solution.targets[~dropped], solution.nodes), 1)
    return solution


def _split(field: Field, patches: csr_array, solution: Solution, threshold: float) -> FloatArray:
    """The targets (n, 3), those replaced by two that the residual shows to be stretched."""
    targets = solution.targets
    if not len(targets):
        return targets
    residual, weight, design = _state(field, patches, solution)
    errors = _errors(field, weight, design, solution)
    weighted = csr_array(diags_array(weight) @ design)
    bent = csr_array(diags_array(weight) @ _design(field, targets, curved=True))
    information, mixed, second = (csr_array(a.T @ b) for a, b in ((weighted, weighted), (weighted, bent), (bent, bent)))
    slope, bend = weighted.T @ (weight * residual), bent.T @ (weight * residual)
    single, pairs = np.ones(len(targets), dtype=bool), []
    low, high = (bound * field.sigma_px for bound in SPLIT_RANGE)
    for members in _neighbourhoods(field, targets):
        own, mine = _parameters(members), _parameters(members[:, :1])
        a, b = _regular(field, _blocks(information, own, own)), _blocks(mixed, own, mine)
        solved = np.linalg.solve(a, np.concatenate([b, slope[own][:, :, None]], axis=2))
        schur = _blocks(second, mine, mine) - np.swapaxes(b, 1, 2) @ solved[:, :, :3]
        left = bend[mine] - (np.swapaxes(b, 1, 2) @ solved[:, :, 3:])[:, :, 0]
        for k, curvature, gradient in zip(members[:, 0], schur, left, strict=True):
            x, y, flux = targets[k]
            moment = np.linalg.lstsq(curvature, gradient, rcond=1e-10)[0]
            if flux < SPLIT_SIGMAS * errors[k, 2] or moment @ gradient < SPLIT_CHI_SQUARED:
                continue
            values, vectors = np.linalg.eigh([[moment[0], moment[1]], [moment[1], moment[2]]])
            if values[1] <= 0.0:
                continue
            apart = 0.5 * np.clip(2.0 * np.sqrt(values[1] / flux), low, high) * vectors[:, 1]
            single[k] = False
            pairs += [[x - apart[0], y - apart[1], 0.5 * flux], [x + apart[0], y + apart[1], 0.5 * flux]]
    return np.concatenate([targets[single], np.reshape(pairs, (-1, 3))])
