"""Linear algebra and proposals of chains that step together; all arrays end with the chain.

Groups in one frame (`metropolis`) and in many (`sequence.proposals`) share them. Chains are a multiple of `WIDTH`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from csist._compiled import fused, inlined, lean
from csist._vectors import WIDTH, Row, larger_of, put, root_of, smaller_of, spread, take, where_above
from csist.methods.continuous.model import SingleArray
from csist.methods.continuous.population import uniform

WIDEST_STEP = 2.0
"""Largest proposal scale."""
TARGET_ACCEPTANCE = 0.25
UNIT_DEVIATION = math.sqrt(12.0)
"""Factor that gives a number uniform in [-0.5, 0.5) a standard deviation of 1."""
LEAST_GAIN = -20.0
"""Steps by which the log posterior falls so much are never accepted."""
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
    for part in range(0, chains, WIDTH):
        for i in range(size):
            for j in range(i + 1):
                total = take(matrix, (i, j, part))
                for k in range(j):
                    total -= take(matrix, (i, k, part)) * take(matrix, (j, k, part))
                if i == j:
                    put(matrix, (i, i, part), root_of(larger_of(total, take(least, (i, part)))))
                else:
                    put(matrix, (i, j, part), total / take(matrix, (j, j, part)))


@inlined
def invert(factor: SingleArray, root: SingleArray) -> None:
    """Fill `root` (n, n, chains) with the inverse of the lower triangle of `factor`."""
    size, _, chains = factor.shape
    for part in range(0, chains, WIDTH):
        for c in range(size):
            for i in range(c, size):
                total = spread(1.0 if i == c else 0.0)
                for j in range(c, i):
                    total -= take(factor, (i, j, part)) * take(root, (j, c, part))
                put(root, (i, c, part), total / take(factor, (i, i, part)))


@inlined
def propose(state: SingleArray, root: SingleArray, scale: SingleArray, random: Any, trial: SingleArray) -> None:
    """Fill `trial` with a step from the state of each chain.

    Args:
        state: (size, chains).
        root: (size, size, chains) inverse Cholesky factors, which shape the steps.
        scale: (chains,) lengths of the steps.
        random: (2, chains) states of `uniform`.
        trial: filled, (size, chains).
    """
    size, chains = state.shape
    for i in range(size):
        uniform(random, trial[i])
    for part in range(0, chains, WIDTH):
        for i in range(size):
            put(trial, (i, part), take(trial, (i, part)) - np.float32(0.5))
        length = take(scale, (part,)) * np.float32(UNIT_DEVIATION)
        for c in range(size):  # numbers 0 to c are not needed any more after parameter c
            total = spread(0.0)
            for i in range(c, size):
                total += take(trial, (i, part)) * take(root, (i, c, part))
            put(trial, (c, part), take(state, (c, part)) + length * total)


@lean
def accepts(gain: float, number: float) -> bool:
    """Whether a uniform number is below exp(gain)."""
    return gain >= 0.0 or (gain > LEAST_GAIN and number < math.exp(gain))


@fused
def chance_of(gain: Row) -> Row:
    """min(exp(gain), 1), right to 1e-4 of it, and 0 from `LEAST_GAIN` down and for NaN.

    64th power of the series of exp(gain / 64): the library's function works on one number at a time.
    """
    x = smaller_of(larger_of(gain, spread(LEAST_GAIN)), spread(0.0)) * np.float32(1.0 / 64.0)
    chance = ((x * np.float32(1.0 / 120.0) + np.float32(1.0 / 24.0)) * x + np.float32(1.0 / 6.0)) * x
    chance = ((chance + np.float32(0.5)) * x + np.float32(1.0)) * x + np.float32(1.0)
    for _ in range(6):
        chance = chance * chance
    return where_above(gain, spread(LEAST_GAIN), chance, spread(0.0))


@fused
def adopt(target: SingleArray, source: SingleArray, place: Any, chance: Row, number: Row) -> None:
    """Copy a row of `source` into `target` where the uniform number is below the chance."""
    put(target, place, where_above(chance, number, take(source, place), take(target, place)))
