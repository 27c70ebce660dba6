"""Frames so crowded that every target overlaps its neighbours: all targets are fitted simultaneously.

Where blobs run into each other there is no window that could be unmixed on its own. Instead, in passes of ever lower
thresholds:

1. the matched filter finds peaks of the residual (Stetson, PASP 99, 191, 1987, section III),
2. targets that the residual shows to be stretched are split in two,
3. positions, fluxes and a background of splines are fitted together by damped Gauss-Newton steps, one sparse
   least-squares problem for the whole frame (as in Schlafly et al., ApJS 234, 39, 2018, section 3),
4. targets that their neighbours explain as well are dropped: a flux must exceed the threshold in units of its own
   standard error, which counts what is shared with the neighbours. In a blend half the threshold is enough for a
   target that would reach it alone: one target in the place of two is wrong by far more than their errors.

Splitting rests on the first moments that a blend of two targets has beyond a single one: fluxes f q and f (1 - q) a
vector d apart add f q (1 - q) d d^T / 2 times the second derivatives of the PSF.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.signal import oaconvolve
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import LinearOperator, lsmr
from scipy.spatial import KDTree

from csist._types import BoolArray, FloatArray, IntArray
from csist.frames.crowded.model import (
    CrowdedFit,
    CrowdedFrame,
    PatchBackground,
    background_patches,
    design_matrix,
    first_nodes,
)
from csist.frames.detection.peaks import Peaks, find_peaks
from csist.frames.medians import surroundings
from csist.methods.continuous.group import is_poor_fit
from csist.physics.psf import lone_significance, pixel_kernel
from csist.targets import Flag, Targets

PASSES = (16.0, 4.0, 2.0, 1.0, 1.0, 1.0)
"""Thresholds of the passes, in units of the last one."""
STEPS = 3
"""Gauss-Newton steps after every change of the number of targets."""
LAST_STEPS = 6
STEP_PX = 0.3
"""Standard deviation of a position's step: damps positions that the image does not constrain."""
LARGEST_STEP_PX = 0.5
FLUX_SIGMAS = 300.0
"""Standard deviation of a flux's step, in standard errors of a lone target: hardly damped."""
SOLVER_ITERATIONS = 80


CLOSEST_SIGMAS = 0.5
"""A residual peak closer than this to a target, in sigma, is not a new target; splitting covers that case."""
SPLIT_CHI_SQUARED = 25.0
"""Gain in chi-squared, for three degrees of freedom, from which a target is split."""
SPLIT_SIGMAS = 8.0
"""Least significance of a target that may be split."""
SPLIT_RANGE = (0.4, 2.0)
"""Bounds of the initial distance of a pair, in sigma."""
NEIGHBOURS_SIGMAS = 3.5
"""Distance in sigma within which the errors of targets are correlated."""
MOST_NEIGHBOURS = 12
JITTER = 1e-9

BLENDED = 0.5
"""Least significance of a target in a blend, in thresholds."""

MISFIT_RADIUS = 2.0
"""Distance from a target, in sigma, within which its fit is judged."""

DARK_WEIGHT = 0.9
"""Least weight, relative to a pixel without light, of the pixels on which the noise is measured."""
FEWEST_DARK_PIXELS = 100


def unmix_crowded(
    frame: CrowdedFrame, threshold: float, named: tuple[tuple[float, float], ...] = ()
) -> tuple[Targets, PatchBackground]:
    """Targets of a crowded frame, brightest first; `score` is z / (z + threshold), z the flux in standard errors.

    Args:
        frame: the frame.
        threshold: smallest z.
        named: positions x and y in px at which targets are tried first.

    Returns:
        The targets, and the background that was fitted with them.
    """
    patches = background_patches(frame.shape, frame.spacing_px)
    fit = CrowdedFit(np.empty((0, 3)), first_nodes(frame))
    for number, factor in enumerate(PASSES):
        found = _residual_peaks(frame, patches, fit, factor * threshold)
        if number == 0 and named:
            found = _with_named(frame, found, named)
        targets = np.concatenate([_split(frame, patches, fit, threshold), found])
        if not len(targets):
            continue
        fit = _fit(frame, patches, CrowdedFit(targets, fit.nodes), STEPS)
        fit = _prune(frame, patches, fit, threshold)
        if frame.measured:
            frame = replace(frame, noise_std=_left_over(frame, patches, fit))
    if not len(fit.targets):
        return Targets.empty(), PatchBackground(frame.shape, frame.spacing_px, fit.nodes, frame.noise_std, frame.error)
    fit = _prune(frame, patches, _fit(frame, patches, fit, LAST_STEPS), threshold)
    background = PatchBackground(frame.shape, frame.spacing_px, fit.nodes, frame.noise_std, frame.error)
    residual, weight, design = _state(frame, patches, fit)
    errors = _errors(frame, weight, design, fit)
    flags = np.where(_is_unexplained(frame, weight * residual, fit.targets), int(Flag.POOR_FIT), 0)
    x, y, flux = fit.targets.T
    z = flux / errors[:, 2]
    order = np.argsort(-flux, kind="stable")
    stated = {"x_std": errors[:, 0], "y_std": errors[:, 1], "intensity_std": errors[:, 2]}
    return Targets(x, y, flux, z / (z + threshold), **stated, flags=flags)[order], background


def _is_unexplained(frame: CrowdedFrame, unit: FloatArray, targets: FloatArray) -> BoolArray:
    """Whether the fit leaves more than the noise around each of some targets (n, 3), such as an unseen companion.

    Args:
        frame: the frame.
        unit: (pixels,) its residual in units of the noise, 0 where not valid.
        targets: (n, 3) x, y in px and flux in counts.
    """
    reach = int(np.ceil(MISFIT_RADIUS * frame.sigma_px))
    columns, rows = np.rint(targets[:, :2]).astype(np.int64).T
    squares = surroundings((unit**2).reshape(frame.shape), rows, columns, reach).reshape(len(targets), -1)
    along = np.arange(-reach, reach + 1)
    near = (np.hypot(along[:, None], along) <= MISFIT_RADIUS * frame.sigma_px + 0.5).ravel()
    counted = near & (np.nan_to_num(squares) > 0.0)
    freedom = np.maximum(counted.sum(axis=1) - 3, 1)
    return is_poor_fit(np.where(counted, squares, 0.0).sum(axis=1), freedom)


def _with_named(frame: CrowdedFrame, found: FloatArray, named: tuple[tuple[float, float], ...]) -> FloatArray:
    """New targets (m, 3) and the named positions in the frame, in place of the new targets next to them."""
    places = np.array(named)
    limits = np.array(frame.image.shape)[::-1] - 0.5
    places = places[((places >= -0.5) & (places < limits)).all(axis=1)]
    if not len(places):
        return found
    columns, rows = np.rint(places).astype(np.int64).T
    height = np.nan_to_num(frame.image, nan=0.0)[rows, columns] - np.median(frame.image[frame.valid])
    least = _lone_error(frame)
    flux = np.maximum(height / float(frame.psf.response(0.0, 0.0)), least)
    if len(found):
        distance, _ = KDTree(places).query(found[:, :2])
        found = found[np.asarray(distance > frame.sigma_px)]
    return np.concatenate([np.column_stack([places, flux]), found])


def _state(frame: CrowdedFrame, patches: csr_array, fit: CrowdedFit) -> tuple[FloatArray, FloatArray, csr_array]:
    """Residual (pixels,), weight (pixels,) and design matrix at a fit."""
    design = design_matrix(frame, fit.targets)
    light = design[:, 2::3] @ fit.targets[:, 2]
    residual = np.where(frame.valid.ravel(), frame.image.ravel() - light - patches @ fit.nodes, 0.0)
    return residual, frame.weight(light.reshape(frame.image.shape)).ravel(), design


def _fit(frame: CrowdedFrame, patches: csr_array, fit: CrowdedFit, steps: int) -> CrowdedFit:
    """The fit after a number of damped Gauss-Newton steps."""
    lone = _lone_error(frame)
    for _ in range(steps):
        residual, weight, design = _state(frame, patches, fit)
        scale = np.tile([STEP_PX, STEP_PX, FLUX_SIGMAS * lone], len(fit.targets))
        weighted = diags_array(weight)
        step, nodes = _solved(
            csr_array(weighted @ design @ diags_array(scale)), csr_array(weighted @ patches), weight * residual
        )
        targets = fit.targets.copy()
        change = (step * scale).reshape(-1, 3)
        targets[:, :2] += np.clip(change[:, :2], -LARGEST_STEP_PX, LARGEST_STEP_PX)
        targets[:, 2] = np.maximum(targets[:, 2] + change[:, 2], 0.2 * targets[:, 2])
        limits = np.array(frame.image.shape)[::-1] - 0.5
        targets[:, :2] = np.clip(targets[:, :2], -0.5, limits)
        fit = CrowdedFit(targets, fit.nodes + nodes)
    return fit


def _solved(design: csr_array, patches: csr_array, residual: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Damped least squares of the targets' parameters, and the nodes of the background with them.

    The nodes, of which there are few, are eliminated: the smooth background and the light of all targets are much
    alike, and together they would take many more iterations.

    Args:
        design: (pixels, parameters) of the targets, weighted, in units of their damping.
        patches: (pixels, nodes) of the background, weighted.
        residual: (pixels,) weighted.
    """
    product = (patches.T @ patches).toarray()
    factor = cho_factor(product + JITTER * np.trace(product) * np.eye(len(product)))

    def without_background(values: FloatArray) -> FloatArray:
        return np.asarray(values - patches @ cho_solve(factor, patches.T @ values))

    beside = LinearOperator(
        design.shape,
        matvec=lambda step: without_background(design @ step),
        rmatvec=lambda values: design.T @ without_background(values),
    )
    step = lsmr(
        beside, without_background(residual), damp=1.0, atol=1e-6, btol=1e-6, maxiter=SOLVER_ITERATIONS
    )[0]  # fmt: skip
    return step, np.asarray(cho_solve(factor, patches.T @ (residual - design @ step)))


def _left_over(frame: CrowdedFrame, patches: csr_array, fit: CrowdedFit) -> float:
    """Robust scatter in counts of the residual where the light of targets is below the noise."""
    residual, weight, _ = _state(frame, patches, fit)
    dark = np.asarray(weight * frame.noise_std > DARK_WEIGHT)
    values = residual[dark if dark.sum() >= FEWEST_DARK_PIXELS else weight > 0.0]
    scatter = 1.4826 * float(np.median(np.abs(values - np.median(values)))) if values.size else 0.0
    return max(scatter, 1e-3 * frame.noise_std)


def _lone_error(frame: CrowdedFrame) -> float:
    """Standard error in counts of the flux of a target alone."""
    return frame.noise_std / lone_significance(frame.psf)


def _residual_peaks(frame: CrowdedFrame, patches: csr_array, fit: CrowdedFit, threshold: float) -> FloatArray:
    """New targets (m, 3) at peaks of the matched filter in the residual, away from all targets."""
    residual, weight, _ = _state(frame, patches, fit)
    shape = frame.image.shape
    inverse = (weight**2).reshape(shape)
    kernel = pixel_kernel(frame.psf)[::-1, ::-1]
    top = oaconvolve(residual.reshape(shape) * inverse, kernel, mode="same")
    norm = oaconvolve(inverse, kernel**2, mode="same")
    least = 0.1 * (kernel**2).sum() * np.median(inverse[frame.valid])
    norm = np.maximum(norm, 0.1 * least)
    peaks: Peaks = find_peaks(np.where(frame.valid, top / np.sqrt(norm), 0.0), threshold)
    if len(peaks) and len(fit.targets):
        distance, _ = KDTree(fit.targets[:, :2]).query(peaks.positions)
        peaks = peaks[np.asarray(distance > CLOSEST_SIGMAS * frame.sigma_px)]
    rows, columns = np.rint(peaks.y).astype(int), np.rint(peaks.x).astype(int)
    flux = peaks.significance / np.sqrt(norm[rows, columns])
    return np.stack([peaks.x, peaks.y, flux], axis=1)


def _neighbourhoods(frame: CrowdedFrame, targets: FloatArray) -> Iterator[IntArray]:
    """Each target with its correlated neighbours, itself first: one array (g, m) per neighbourhood size m."""
    tree = KDTree(targets[:, :2])
    number = min(MOST_NEIGHBOURS, len(targets))
    distance, near = tree.query(targets[:, :2], k=range(1, number + 1))
    near = np.take_along_axis(near, np.argsort(near != np.arange(len(targets))[:, None], axis=1, kind="stable"), 1)
    count = np.sum(np.asarray(distance) <= NEIGHBOURS_SIGMAS * frame.sigma_px, axis=1)
    for m in np.unique(count):
        yield near[count == m, :m].astype(np.int64)


def _parameters(members: IntArray) -> IntArray:
    """Parameter indices (g, 3 m) of targets (g, m)."""
    return (3 * members[:, :, None] + np.arange(3)).reshape(len(members), -1)


def _blocks(matrix: csr_array, rows: IntArray, columns: IntArray) -> FloatArray:
    """Dense blocks (g, r, c) of a matrix at rows (g, r) and columns (g, c)."""
    i, j = np.broadcast_arrays(rows[:, :, None], columns[:, None, :])
    values = matrix[i.ravel(), j.ravel()]
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values).reshape(i.shape)


def _errors(frame: CrowdedFrame, weight: FloatArray, design: csr_array, fit: CrowdedFit) -> FloatArray:
    """Standard errors (n, 3) of x, y and flux, marginalised over the neighbours."""
    weighted = diags_array(weight) @ design
    information = csr_array(weighted.T @ weighted)
    errors = np.empty((len(fit.targets), 3))
    for members in _neighbourhoods(frame, fit.targets):
        block = _blocks(information, _parameters(members), _parameters(members))
        errors[members[:, 0]] = np.sqrt(np.diagonal(np.linalg.inv(_regular(frame, block)), axis1=1, axis2=2)[:, :3])
    return errors


def _regular(frame: CrowdedFrame, block: FloatArray) -> FloatArray:
    """Invertible information (g, 3 m, 3 m): each position has a prior as wide as the PSF's sigma."""
    size = block.shape[1]
    known = np.tile([1.0 / frame.sigma_px**2, 1.0 / frame.sigma_px**2, 0.0], size // 3)
    added = known + JITTER * np.diagonal(block, axis1=1, axis2=2) + 1e-300
    return np.asarray(block + added[:, None, :] * np.eye(size))


def _prune(frame: CrowdedFrame, patches: csr_array, fit: CrowdedFit, threshold: float) -> CrowdedFit:
    """The fit without the targets that their neighbours explain equally well, the weakest nearby dropped first."""
    while len(fit.targets):
        errors = _errors(frame, *_state(frame, patches, fit)[1:], fit)
        z = fit.targets[:, 2] / np.maximum(errors[:, 2], 1e-300)
        close = KDTree(fit.targets[:, :2]).query_ball_point(fit.targets[:, :2], 2.0 * frame.sigma_px)
        weakest = np.array([z[k] <= z[each].min() for k, each in enumerate(close)])
        is_blended = np.array([np.size(each) > 1 for each in close])
        clear_alone = fit.targets[:, 2] >= threshold * _lone_error(frame)
        dropped = weakest & (z < np.where(is_blended & clear_alone, BLENDED, 1.0) * threshold)
        if not dropped.any():
            break
        fit = _fit(frame, patches, CrowdedFit(fit.targets[~dropped], fit.nodes), 1)
    return fit


def _split(frame: CrowdedFrame, patches: csr_array, fit: CrowdedFit, threshold: float) -> FloatArray:
    """The targets (n, 3), with those that are elongated in the residual replaced by two."""
    targets = fit.targets
    if not len(targets):
        return targets
    residual, weight, design = _state(frame, patches, fit)
    errors = _errors(frame, weight, design, fit)
    weighted = csr_array(diags_array(weight) @ design)
    bent = csr_array(diags_array(weight) @ design_matrix(frame, targets, curved=True))
    information, mixed, second = (csr_array(a.T @ b) for a, b in ((weighted, weighted), (weighted, bent), (bent, bent)))
    slope, bend = weighted.T @ (weight * residual), bent.T @ (weight * residual)
    single, pairs = np.ones(len(targets), dtype=bool), []
    low, high = (bound * frame.sigma_px for bound in SPLIT_RANGE)
    for members in _neighbourhoods(frame, targets):
        own, mine = _parameters(members), _parameters(members[:, :1])
        a, b = _regular(frame, _blocks(information, own, own)), _blocks(mixed, own, mine)
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
