"""How far the samples of a group can be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from csist._compiled import compiled, lean
from csist._types import FloatArray

MIXED_BELOW = 1.2
"""Potential scale reduction below which chains count as converged (Brooks & Gelman, J. Comput. Graph. Stat. 7, 434)."""


@dataclass(frozen=True)
class Diagnostics:
    """How the posterior of a group was sampled, and how well.

    Args:
        sampler: "annealing", "tempering", or "none" for a group without targets.
        effective_sample_size: independent samples that are worth as much, the least over the log likelihood, the sums
            of x and of y, and the total flux; it is estimated from how far the means of the chains are apart.
        acceptance: share of the steps at temperature 1 that were accepted, after burn-in.
        stages: temperatures through which the chains were annealed, or at which they ran side by side.
        scale_reduction: largest potential scale reduction (Gelman & Rubin, Statist. Sci. 7, 1992) of the same
            quantities: near 1 where the chains agree.
    """

    sampler: str = "none"
    effective_sample_size: float = 0.0
    acceptance: float = math.nan
    stages: int = 0
    scale_reduction: float = 1.0

    @property
    def converged(self) -> bool:
        """Whether the chains agree, by a potential scale reduction below 1.2."""
        return self.scale_reduction < MIXED_BELOW


@lean
def _compare(values: FloatArray, chains: int) -> tuple[float, float]:
    """Effective sample size and potential scale reduction of one quantity (records * chains,), record by record."""
    records = values.shape[0] // chains
    mean, low, high = 0.0, np.inf, -np.inf
    for m in range(records * chains):
        low, high = min(low, values[m]), max(high, values[m])
    if records * chains > 1 and low == high:
        return 1.0, np.inf  # no chain has moved
    for m in range(records * chains):
        mean += values[m] / (records * chains)
    within, between = 0.0, 0.0
    for chain in range(chains):
        own = 0.0
        for record in range(records):
            own += values[record * chains + chain] / records
        for record in range(records):
            within += (values[record * chains + chain] - own) ** 2
        between += (own - mean) ** 2
    spread_of_means = between / max(chains - 1, 1)
    within /= max(records * chains - chains, 1)
    total = within * (records - 1.0) / records + spread_of_means
    if not spread_of_means > 0.0:
        return float(records * chains), 1.0
    effective = min(chains * total / spread_of_means, float(records * chains))
    return effective, math.sqrt(total / within) if within > 0.0 else np.inf


@compiled
def compare_chains(theta: FloatArray, values: FloatArray, count: int, chains: int) -> tuple[float, float]:
    """Least effective sample size and largest potential scale reduction of what does not depend on the targets' order.

    Args:
        theta: (records * chains, parameters) samples, record by record; samples of an unfinished record are left out.
        values: (records * chains,) their log likelihoods.
        count: number of targets.
        chains: number of chains.
    """
    effective, reduction = _compare(values, chains)
    total = np.empty(values.shape[0])
    for p in range(min(count, 1) * 3):
        for m in range(values.shape[0]):
            total[m] = 0.0
            for k in range(count):
                total[m] += theta[m, 3 * k + p]
        least, largest = _compare(total, chains)
        effective, reduction = min(effective, least), max(reduction, largest)
    return effective, reduction
