"""Groups whose pixel is uncertain: the evidence of a count summed over the pixels, and the samples of all of them."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np

from csist._types import FloatArray, IntArray
from csist.methods.continuous.posterior import Draws, empty_draws
from csist.methods.continuous.search_in_pixel import PixelModes

LEAST_SHARE = 0.01
"""Probability, given the count, below which a pixel has no part in the samples."""


class Pairs(NamedTuple):
    """Hypotheses of a stack, one for each element.

    Args:
        windows: (M,) place of the window in the stack.
        slots: (M,) place of the hypothesis in the window's list.
    """

    windows: IntArray
    slots: IntArray


Arrays = TypeVar("Arrays", Pairs, Draws)


def join(first: Arrays, second: Arrays) -> Arrays:
    """Both after each other."""
    return type(first)(*(np.concatenate(both) for both in zip(first, second, strict=True)))


def by_count(found: PixelModes, most: int) -> tuple[FloatArray, IntArray]:
    """Log evidence of 0, 1, 2, ... targets, and the best hypothesis of each, both (N, most + 1)."""
    evidence, best = np.empty((len(found.evidence), most + 1)), np.zeros((len(found.evidence), most + 1), np.int64)
    for count in range(most + 1):
        own = np.where(found.counts == count, found.evidence, -np.inf)
        best[:, count] = own.argmax(axis=1)
        evidence[:, count] = np.logaddexp.reduce(own, axis=1)
    return evidence, best


def shares(found: PixelModes, counts: IntArray) -> FloatArray:
    """Probability of each hypothesis given the number of targets (N,), shape (N, hypotheses); small ones are zero."""
    own = np.where(found.counts == counts[:, None], found.evidence, -np.inf)
    share = np.exp(own - own.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    return np.where(share < LEAST_SHARE, 0.0, share)


def pool(draws: Draws, pairs: Pairs, share: FloatArray) -> Draws:
    """Samples of each window from those of its hypotheses, by their shares.

    Args:
        draws: samples of each of the pairs.
        pairs: which hypotheses were sampled.
        share: (N, hypotheses) probability; a window without any that was sampled gets no samples.
    """
    room, parameters = draws.theta.shape[1:]
    pooled = empty_draws(len(share), room, parameters)
    own = share[pairs]
    for n in range(len(share)):
        parts = np.flatnonzero((pairs.windows == n) & (own > 0.0))
        if not parts.size:
            continue
        ends = np.rint(np.cumsum(own[parts]) / own[parts].sum() * draws.kept[parts].min()).astype(np.int64)
        for part, start, end in zip(parts, np.r_[0, ends[:-1]], ends, strict=True):
            chosen = np.arange(end - start) * draws.kept[part] // max(end - start, 1)
            pooled.theta[n, start:end] = draws.theta[part, chosen]
            pooled.value[n, start:end] = draws.value[part, chosen]
        pooled.kept[n], pooled.quality[n] = ends[-1], draws.quality[parts[own[parts].argmax()]]
    return pooled
