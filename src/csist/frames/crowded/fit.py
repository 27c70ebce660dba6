"""The joint fit of a crowded frame: targets and background together, one sparse least-squares problem.

Damped Gauss-Newton steps (as in Schlafly et al., ApJS 234, 39, 2018, section 3). The standard error of a target counts
what it shares with its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import LinearOperator, lsmr
from scipy.spatial import KDTree

from csist._types import BoolArray, FloatArray, IntArray
from csist.frames.crowded.model import CrowdedFit, CrowdedFrame, design_matrix
from csist.frames.medians import surroundings
from csist.methods.continuous.group import is_poor_fit

STEP_PX = 0.3
"""Standard deviation of a position's step: damps positions that the image does not constrain."""
LARGEST_STEP_PX = 0.5
FLUX_SIGMAS = 300.0
"""Standard deviation of a flux's step, in standard errors of a lone target: hardly damped."""
SOLVER_ITERATIONS = 80

NEIGHBOURS_SIGMAS = 3.5
"""Distance in sigma within which the errors of targets are correlated."""
MOST_NEIGHBOURS = 12
JITTER = 1e-9

MISFIT_RADIUS = 2.0
"""Distance from a target, in sigma, within which its fit is judged."""


def fit_together(frame: CrowdedFrame, fit: CrowdedFit, steps: int) -> CrowdedFit:
    """The fit after a number of damped Gauss-Newton steps."""
    lone = frame.lone_error
    for _ in range(steps):
        residual, weight, design = state(frame, fit)
        scale = np.tile([STEP_PX, STEP_PX, FLUX_SIGMAS * lone], len(fit.targets))
        weighted = diags_array(weight)
        step, nodes = least_squares(
            csr_array(weighted @ design @ diags_array(scale)), csr_array(weighted @ frame.patches), weight * residual
        )
        targets = fit.targets.copy()
        change = (step * scale).reshape(-1, 3)
        targets[:, :2] += np.clip(change[:, :2], -LARGEST_STEP_PX, LARGEST_STEP_PX)
        targets[:, 2] = np.maximum(targets[:, 2] + change[:, 2], 0.2 * targets[:, 2])
        limits = np.array(frame.image.shape)[::-1] - 0.5
        targets[:, :2] = np.clip(targets[:, :2], -0.5, limits)
        fit = CrowdedFit(targets, fit.nodes + nodes)
    return fit


def least_squares(design: csr_array, patches: csr_array, residual: FloatArray) -> tuple[FloatArray, FloatArray]:
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


def state(frame: CrowdedFrame, fit: CrowdedFit) -> tuple[FloatArray, FloatArray, csr_array]:
    """Residual (pixels,), weight (pixels,) and design matrix at a fit."""
    design = design_matrix(frame, fit.targets)
    light = design[:, 2::3] @ fit.targets[:, 2]
    residual = np.where(frame.valid.ravel(), frame.image.ravel() - light - frame.patches @ fit.nodes, 0.0)
    return residual, frame.weight(light.reshape(frame.image.shape)).ravel(), design


def standard_errors(frame: CrowdedFrame, weight: FloatArray, design: csr_array, fit: CrowdedFit) -> FloatArray:
    """Standard errors (n, 3) of x, y and flux, marginalised over the neighbours."""
    weighted = diags_array(weight) @ design
    information = csr_array(weighted.T @ weighted)
    errors = np.empty((len(fit.targets), 3))
    for members in neighbourhoods(frame, fit.targets):
        block = blocks(information, parameters(members), parameters(members))
        errors[members[:, 0]] = np.sqrt(np.diagonal(np.linalg.inv(regular(frame, block)), axis1=1, axis2=2)[:, :3])
    return errors


def neighbourhoods(frame: CrowdedFrame, targets: FloatArray) -> Iterator[IntArray]:
    """Each target with its correlated neighbours, itself first: one array (g, m) per neighbourhood size m."""
    tree = KDTree(targets[:, :2])
    number = min(MOST_NEIGHBOURS, len(targets))
    distance, near = tree.query(targets[:, :2], k=range(1, number + 1))
    near = np.take_along_axis(near, np.argsort(near != np.arange(len(targets))[:, None], axis=1, kind="stable"), 1)
    count = np.sum(np.asarray(distance) <= NEIGHBOURS_SIGMAS * frame.sigma_px, axis=1)
    for m in np.unique(count):
        yield near[count == m, :m].astype(np.int64)


def parameters(members: IntArray) -> IntArray:
    """Parameter indices (g, 3 m) of targets (g, m)."""
    return (3 * members[:, :, None] + np.arange(3)).reshape(len(members), -1)


def blocks(matrix: csr_array, rows: IntArray, columns: IntArray) -> FloatArray:
    """Dense blocks (g, r, c) of a matrix at rows (g, r) and columns (g, c)."""
    i, j = np.broadcast_arrays(rows[:, :, None], columns[:, None, :])
    values = matrix[i.ravel(), j.ravel()]
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values).reshape(i.shape)


def regular(frame: CrowdedFrame, block: FloatArray) -> FloatArray:
    """Invertible information (g, 3 m, 3 m): each position has a prior as wide as the PSF's sigma."""
    size = block.shape[1]
    known = np.tile([1.0 / frame.sigma_px**2, 1.0 / frame.sigma_px**2, 0.0], size // 3)
    added = known + JITTER * np.diagonal(block, axis1=1, axis2=2) + 1e-300
    return np.asarray(block + added[:, None, :] * np.eye(size))


def is_unexplained(frame: CrowdedFrame, unit: FloatArray, targets: FloatArray) -> BoolArray:
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
