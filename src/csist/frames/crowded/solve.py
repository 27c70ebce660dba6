"""Frames so crowded that every target overlaps its neighbours: all targets are fitted simultaneously.

Where blobs run into each other there is no window that could be unmixed on its own. Instead, in passes of ever lower
thresholds:

1. the matched filter finds peaks of the residual (Stetson, PASP 99, 191, 1987, section III),
2. targets that the residual shows to be stretched are split in two,
3. positions, fluxes and a background of splines are fitted together (`csist.frames.crowded.fit`),
4. targets that their neighbours explain as well are dropped: a flux must exceed the threshold in units of its own
   standard error, which counts what is shared with the neighbours. In a blend half the threshold is enough for a
   target that would reach it alone: one target in the place of two is wrong by far more than their errors.

Splitting rests on the first moments that a blend of two targets has beyond a single one: fluxes f q and f (1 - q) a
vector d apart add f q (1 - q) d d^T / 2 times the second derivatives of the PSF.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import oaconvolve
from scipy.sparse import csr_array, diags_array
from scipy.spatial import KDTree

from csist._types import FloatArray
from csist.frames.crowded.fit import blocks, fit_together, neighbourhoods, parameters, regular, standard_errors, state
from csist.frames.crowded.model import CrowdedFit, CrowdedFrame, design_matrix, first_nodes
from csist.frames.crowded.noise import likelier_noise
from csist.frames.detection.peaks import Peaks, find_peaks
from csist.physics.psf import pixel_kernel

PASSES = (16.0, 4.0, 2.0, 1.0, 1.0, 1.0)
"""Thresholds of the passes, in units of the last one."""
STEPS = 3
"""Gauss-Newton steps after every change of the number of targets."""
LAST_STEPS = 6
CLOSEST_SIGMAS = 0.5
"""A residual peak closer than this to a target, in sigma, is not a new target; splitting covers that case."""
SPLIT_CHI_SQUARED = 25.0
"""Gain in chi-squared, for three degrees of freedom, from which a target is split."""
SPLIT_SIGMAS = 8.0
"""Least significance of a target that may be split."""
SPLIT_RANGE = (0.4, 2.0)
"""Bounds of the initial distance of a pair, in sigma."""

BLENDED = 0.5
"""Least significance of a target in a blend, in thresholds."""


def fit_crowded(
    frame: CrowdedFrame, threshold: float, named: tuple[tuple[float, float], ...] = ()
) -> tuple[CrowdedFrame, CrowdedFit]:
    """The frame with the noise that its targets leave, and the joint fit of these.

    Args:
        frame: the frame.
        threshold: least flux of a target in its standard errors.
        named: positions x and y in px at which targets are tried first.
    """
    fit = CrowdedFit(np.empty((0, 3)), first_nodes(frame))
    for number, factor in enumerate(PASSES):
        found = _residual_peaks(frame, fit, factor * threshold)
        if number == 0 and named:
            found = _with_named(frame, found, named)
        targets = np.concatenate([_split(frame, fit, threshold), found])
        if not len(targets):
            continue
        fit = fit_together(frame, CrowdedFit(targets, fit.nodes), STEPS)
        fit = _prune(frame, fit, threshold)
        frame = likelier_noise(frame, fit)
    if not len(fit.targets):
        return frame, fit
    return frame, _prune(frame, fit_together(frame, fit, LAST_STEPS), threshold)


def _with_named(frame: CrowdedFrame, found: FloatArray, named: tuple[tuple[float, float], ...]) -> FloatArray:
    """New targets (m, 3) and the named positions in the frame, in place of the new targets next to them."""
    places = np.array(named)
    limits = np.array(frame.image.shape)[::-1] - 0.5
    places = places[((places >= -0.5) & (places < limits)).all(axis=1)]
    if not len(places):
        return found
    columns, rows = np.rint(places).astype(np.int64).T
    height = np.nan_to_num(frame.image, nan=0.0)[rows, columns] - np.median(frame.image[frame.valid])
    least = frame.lone_error
    flux = np.maximum(height / float(frame.psf.response(0.0, 0.0)), least)
    if len(found):
        distance, _ = KDTree(places).query(found[:, :2])
        found = found[np.asarray(distance > frame.sigma_px)]
    return np.concatenate([np.column_stack([places, flux]), found])


def _residual_peaks(frame: CrowdedFrame, fit: CrowdedFit, threshold: float) -> FloatArray:
    """New targets (m, 3) at peaks of the matched filter in the residual, away from all targets."""
    residual, weight, _ = state(frame, fit)
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


def _prune(frame: CrowdedFrame, fit: CrowdedFit, threshold: float) -> CrowdedFit:
    """The fit without the targets that their neighbours explain equally well, the weakest nearby dropped first."""
    while len(fit.targets):
        errors = standard_errors(frame, *state(frame, fit)[1:], fit)
        z = fit.targets[:, 2] / np.maximum(errors[:, 2], 1e-300)
        close = KDTree(fit.targets[:, :2]).query_ball_point(fit.targets[:, :2], 2.0 * frame.sigma_px)
        weakest = np.array([z[k] <= z[each].min() for k, each in enumerate(close)])
        is_blended = np.array([np.size(each) > 1 for each in close])
        clear_alone = fit.targets[:, 2] >= threshold * frame.lone_error
        dropped = weakest & (z < np.where(is_blended & clear_alone, BLENDED, 1.0) * threshold)
        if not dropped.any():
            break
        fit = fit_together(frame, CrowdedFit(fit.targets[~dropped], fit.nodes), 1)
    return fit


def _split(frame: CrowdedFrame, fit: CrowdedFit, threshold: float) -> FloatArray:
    """The targets (n, 3), with those that are elongated in the residual replaced by two."""
    targets = fit.targets
    if not len(targets):
        return targets
    residual, weight, design = state(frame, fit)
    errors = standard_errors(frame, weight, design, fit)
    weighted = csr_array(diags_array(weight) @ design)
    bent = csr_array(diags_array(weight) @ design_matrix(frame, targets, curved=True))
    information, mixed, second = (csr_array(a.T @ b) for a, b in ((weighted, weighted), (weighted, bent), (bent, bent)))
    slope, bend = weighted.T @ (weight * residual), bent.T @ (weight * residual)
    single, pairs = np.ones(len(targets), dtype=bool), []
    low, high = (bound * frame.sigma_px for bound in SPLIT_RANGE)
    for members in neighbourhoods(frame, targets):
        own, mine = parameters(members), parameters(members[:, :1])
        a, b = regular(frame, blocks(information, own, own)), blocks(mixed, own, mine)
        solved = np.linalg.solve(a, np.concatenate([b, slope[own][:, :, None]], axis=2))
        schur = blocks(second, mine, mine) - np.swapaxes(b, 1, 2) @ solved[:, :, :3]
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
