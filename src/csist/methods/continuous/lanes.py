"""Linear algebra and proposals of chains that step together; all arrays end with the chain.

Groups in one frame (`metropolis`) and in many (`sequence.proposals`) share them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from csist._compiled import inlined, inner
from csist.methods.continuous.model import SingleArray
from csist.methods.continuous.population import uniform

WIDEST_STEP = 2.0
"""Largest proposal scale."""
TARGET_ACCEPTANCE = 0.25
PRIOR_INFORMATION = 12.0
"""Of a uniform distribution of width 1: one over its variance."""


@inlined
def factorise(matrix: SingleArray, least: SingleArray) -> None:
    """Replace the lower triangle of `matrix` (n, n, chains) by its Cholesky factor.

    Args:
        matrix: changed in place.
        least: (n, chains) lower bounds of the pivots' squares: single precision can lose a weak direction.
    """
    size, _, chains = matrix.shape
    for i in range(size):
        for j in range(i + 1):
            total, pivot = matrix[i, j], matrix[j, j]
            for k in range(j):
                one, other = matrix[i, k], matrix[j, k]
                for chain in range(chains):
                    total[chain] -= one[chain] * other[chain]
            if i == j:
                for chain in range(chains):
                    total[chain] = math.sqrt(max(total[chain], least[i, chain]))
            else:
                for chain in range(chains):
                    total[chain] /= pivot[chain]


@inlined
def invert(factor: SingleArray, root: SingleArray) -> None:
    """Fill `root` (n, n, chains) with the inverse of the lower triangle of `factor`."""
    size, _, chains = factor.shape
    for c in range(size):
        for i in range(c, size):
            out, pivot = root[i, c], factor[i, i]
            out[:] = np.float32(1.0) if i == c else np.float32(0.0)
            for j in range(c, i):
                one, other = factor[i, j], root[j, c]
                for chain in range(chains):
                    out[chain] -= one[chain] * other[chain]
            for chain in range(chains):
                out[chain] /= pivot[chain]


@inlined
def propose(
    state: SingleArray, root: SingleArray, scale: SingleArray, random: Any, draw: SingleArray, trial: SingleArray
) -> None:
    """Fill `trial` with a step from the state of each chain.

    Args:
        state: (size, chains).
        root: (size, size, chains) inverse Cholesky factors, which shape the steps.
        scale: (chains,) lengths of the steps.
        random: (chains,) states of `uniform`.
        draw: (chains,) to work in.
        trial: filled, (size, chains).
    """
    size, chains = state.shape
    for p in range(size):
        for chain in range(chains):
            trial[p, chain] = state[p, chain]
    for i in range(size):
        uniform(random, draw)
        for chain in range(chains):
            draw[chain] = (draw[chain] - np.float32(0.5)) * np.float32(3.4641016151377544) * scale[chain]
        for c in range(i + 1):
            out, shape = trial[c], root[i, c]
            for chain in range(chains):
                out[chain] += draw[chain] * shape[chain]


@inner
def accepts(gain: float, number: float) -> bool:
    """Whether a uniform number is below exp(gain)."""
    return gain >= 0.0 or (gain > -20.0 and number < math.exp(gain))
