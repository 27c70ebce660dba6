"""What is known of a group besides its targets."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from csist._types import BoolArray, FloatArray
from csist.checks import InputError
from csist.methods.continuous.diagnostics import Diagnostics
from csist.methods.continuous.model import AT_CEILING, IGNORED, MEASURED, CodeArray
from csist.targets import Flag

POOR_FIT_SIGMAS = 5.0
"""A chi-squared as unlikely as so many standard deviations above the mean of a normal variable is a poor fit."""
POOR_FIT_TRUST = 0.1
"""Factor on the score of a poor fit: the model does not hold, so its probabilities do not either."""
AMBIGUOUS = 0.1
"""Probability of another count from which the count is called ambiguous."""


@dataclass(frozen=True)
class Group:
    """What is known of one group besides its targets.

    Args:
        count: most probable number of targets.
        count_probability: (Kmax + 1,) probability of 0, 1, 2, ... targets.
        chi_squared: of the best fit, over all measured pixels of the window.
        degrees_of_freedom: measured pixels minus parameters.
        flags: bits of `Flag`.
        samples: (m, count, 3) x, y in px and intensity in counts of the targets, in their order, drawn from the
            posterior given the count; None unless asked for.
        diagnostics: how well the posterior was sampled.
    """

    count: int
    count_probability: FloatArray
    chi_squared: float
    degrees_of_freedom: int
    flags: Flag
    samples: FloatArray | None = None
    diagnostics: Diagnostics = field(default_factory=Diagnostics)

    def covariance(self) -> FloatArray:
        """Covariance (3 count, 3 count) of x_1, y_1, intensity_1, x_2, ... given the count.

        Raises:
            InputError: if the samples were not kept.
        """
        samples = self._kept().reshape(-1, 3 * self.count) if self.count else np.zeros((2, 0))
        centred = samples - samples.mean(axis=0)
        return np.asarray(centred.T @ centred / max(len(samples) - 1, 1))

    def interval(self, level: float = 0.68) -> FloatArray:
        """Central credible interval (2, count, 3), lower and upper ends of x, y and intensity of each target.

        Args:
            level: probability that it holds, 0 to 1.

        Raises:
            InputError: if the samples were not kept.
        """
        return np.quantile(self._kept(), [0.5 - 0.5 * level, 0.5 + 0.5 * level], axis=0)

    def _kept(self) -> FloatArray:
        if self.samples is None:
            raise InputError("this group has no samples: ask for them by keep_samples=True")
        return self.samples


def is_poor_fit(chi_squared: ArrayLike, freedom: ArrayLike) -> BoolArray:
    """Whether a chi-squared is too large for its degrees of freedom to be chance.

    Its cube root is nearly normal, also with few of them (Wilson & Hilferty, PNAS 17, 684, 1931).

    Args:
        chi_squared: (n,) or a number.
        freedom: degrees of freedom, likewise.
    """
    number = np.asarray(freedom, dtype=np.float64)
    spread = 2.0 / (9.0 * number)
    return np.asarray(np.cbrt(np.asarray(chi_squared) / number) > 1.0 - spread + POOR_FIT_SIGMAS * np.sqrt(spread))


def describe(
    count: int,
    log_evidence: FloatArray,
    misfit: float,
    code: CodeArray,
    background_terms: int,
    *,
    samples: FloatArray | None = None,
    diagnostics: Diagnostics | None = None,
) -> Group:
    """Group information from the evidence and the best fit.

    Args:
        count: number of targets.
        log_evidence: (Kmax + 1,) of each count.
        misfit: chi-squared of the best fit.
        code: (h, w) codes of the window's pixels.
        background_terms: number of coefficients fitted besides the targets.
        samples: (m, count, 3) to be kept.
        diagnostics: how well the posterior was sampled.
    """
    probability = np.exp(log_evidence - log_evidence.max())
    probability /= probability.sum()
    freedom = max(int((code == MEASURED).sum()) - 3 * count - background_terms, 1)
    flags = Flag(0)
    if bool(is_poor_fit(misfit, freedom)):
        flags |= Flag.POOR_FIT
    if probability[count] < 1.0 - AMBIGUOUS:
        flags |= Flag.AMBIGUOUS_COUNT
    if (code == AT_CEILING).any():
        flags |= Flag.SATURATED
    if (code == IGNORED).any():
        flags |= Flag.MASKED
    return Group(count, probability, misfit, freedom, flags, samples, diagnostics or Diagnostics())
