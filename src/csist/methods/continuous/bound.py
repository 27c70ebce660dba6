"""Least errors of groups of several targets, whose chains may see too little of a long and narrow posterior.

Two targets closer than they can be told apart have a posterior along which light moves from one to the other. Chains of
some dozens of steps (mode `fast`) still disagree at their end, those of some hundreds (`accurate`) now and then: they
show a part of it. The Cramer-Rao bound at the estimate, with the background unknown, is its length where it is a normal
distribution.
"""

from __future__ import annotations

import numpy as np

from csist._types import FloatArray
from csist.methods.continuous.model import MEASURED, Noise, Stack
from csist.methods.unmixer import Answers
from csist.physics.bounds import standard_errors
from csist.physics.psf import PSF
from csist.targets import Targets

MOST_WIDENING = 3.0
"""Beyond this factor the bound says nothing: the posterior is curved, or ends where the prior ends."""
LEAST_WIDENING = {"accurate": 1.1, "fast": 1.0}
"""Factors up to this one are left out: the spread of the samples in the mode accurate is known to some 10 %."""


def least_errors(found: Targets, stack: Stack, place: int, psf: PSF, noise: Noise) -> FloatArray:
    """Cramer-Rao bound (count, 3) of x, y and flux of the targets of a window, its background terms unknown.

    Args:
        found: the targets.
        stack: windows.
        place: of the window in the stack.
        psf: of the targets.
        noise: of a pixel.

    Returns:
        The bound; infinite where the window says nothing of a parameter.
    """
    count, (rows, columns) = len(found), stack.data.shape[1:]
    dx = np.arange(columns)[None, None, :] - found.x[:, None, None]
    dy = np.arange(rows)[None, :, None] - found.y[:, None, None]
    flux = found.intensity[:, None, None]
    by_x, by_y = psf.gradient(dx, dy)
    response = psf.response(dx, dy)
    jacobian = np.stack([flux * by_x, flux * by_y, response], axis=1).reshape(3 * count, -1)
    jacobian = np.concatenate([jacobian, stack.basis.reshape(len(stack.basis), rows * columns)])
    light = np.maximum((flux * response).sum(axis=0), 0.0).ravel()
    variance = noise.variance / np.maximum(stack.weight[place].ravel(), np.finfo(float).tiny)
    usable = stack.code[place].ravel() == MEASURED
    weight = np.where(usable, 1.0 / (variance + noise.inverse_gain * light), 0.0)
    error = standard_errors((jacobian * weight) @ jacobian.T)
    return error[: 3 * count].reshape(count, 3)


def widened(answers: Answers, stack: Stack, psf: PSF, noise: Noise, *, least: float = 1.0) -> Answers:
    """Answers whose groups of several targets have errors no smaller than the bound, in the mean over x, y and flux.

    The errors of a target are scaled by one factor of its own. Samples stay as they were drawn, and so do the scores,
    which are shares of them.

    Args:
        answers: of the windows.
        stack: the windows.
        psf: of the targets.
        noise: of a pixel.
        least: factor from which on a target's errors are widened, at least 1.
    """
    targets = list(answers.targets)
    for place, found in enumerate(answers.targets):
        if len(found) < 2:
            continue
        stated = np.stack([found.x_std, found.y_std, found.intensity_std], axis=1)
        if not (np.isfinite(stated).all() and (stated > 0.0).all()):
            continue
        ratio = np.minimum(least_errors(found, stack, place, psf, noise) / stated, MOST_WIDENING)
        factor = np.sqrt(np.mean(ratio**2, axis=1))
        if (factor > least).any():
            factor = np.where(factor > least, factor, 1.0)
            targets[place] = found.replace(
                x_std=factor * found.x_std, y_std=factor * found.y_std, intensity_std=factor * found.intensity_std
            )
    return Answers(targets, answers.groups)
