"""What is injected: numbers, fluxes and separations of the groups."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from csist._types import FloatArray
from csist.checks import InputError, check_positive
from csist.frames.measured import MeasuredFrame
from csist.physics.psf import PSF, RAYLEIGH_PER_SIGMA, equivalent_sigma, lone_significance

DEFAULT_SNR = (4.0, 200.0)
"""Range of the flux, in standard errors of a lone target, where none is stated."""
DEFAULT_SEPARATION = (0.5, 3.0)
"""Range of the separation in Rayleigh units where none is stated."""
BINS = 6
"""Bins of a stated range."""


@dataclass(frozen=True)
class Spread:
    """Values that a quantity of the groups takes: some in turn, or all of a range.

    Args:
        values: one or several values; with `ranged` the two ends of a range.
        ranged: whether it is a range.

    Raises:
        InputError: if there is no value, or one is not a finite number > 0, or a range has no extent.

    >>> Spread((2.0, 4.0)).edges(log=False).round(3).tolist()
    [1.999, 3.0, 4.001]
    """

    values: tuple[float, ...]
    ranged: bool = False

    def __post_init__(self) -> None:
        if not self.values:
            raise InputError("a flux or separation needs at least one value")
        for value in self.values:
            check_positive("flux, separation and count", value)
        if self.ranged and not (len(self.values) == 2 and self.values[0] < self.values[1]):
            raise InputError(f"a range must be LOW:HIGH with LOW < HIGH, got {':'.join(f'{v:g}' for v in self.values)}")

    def draw(self, number: int, log: bool, rng: np.random.Generator) -> FloatArray:
        """Draw values (number,): uniform, or uniform in the logarithm; of several values each in turn, shuffled."""
        if self.ranged:
            low, high = self.values
            if log:
                return np.asarray(np.exp(rng.uniform(np.log(low), np.log(high), number)))
            return rng.uniform(low, high, number)
        return rng.permutation(np.resize(self.values, number))

    def edges(self, log: bool) -> FloatArray:
        """Edges of the bins in which results are given: `BINS` of a range, else one for each value."""
        if self.ranged:
            low, high = self.values
            inner = np.geomspace(low, high, BINS + 1) if log else np.linspace(low, high, BINS + 1)
            return np.asarray(inner * np.array([1.0 - 1e-9, *np.ones(BINS - 1), 1.0 + 1e-9]))
        values = np.unique(self.values)
        between = 0.5 * (values[1:] + values[:-1])
        return np.array([values[0] - 1e-3, *between, values[-1] + 1e-3])


@dataclass(frozen=True)
class InjectionPlan:
    """Groups to be injected.

    Args:
        groups: their number.
        flux: of each target in counts, the same for all targets of a group; None for a range from 4 to 200 standard
            errors of a lone target.
        separation_px: distance of nearest neighbours; None for a range from 0.5 to 3 Rayleigh units.
        counts: numbers of targets, each in turn.
        seed: of all random numbers.

    Raises:
        InputError: if a number is out of range.
    """

    groups: int = 200
    flux: Spread | None = None
    separation_px: Spread | None = None
    counts: tuple[int, ...] = (2,)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.groups < 1:
            raise InputError(f"groups must be a whole number >= 1, got {self.groups}")
        if self.seed < 0:
            raise InputError(f"seed must be a whole number >= 0, got {self.seed}")
        if not self.counts or min(self.counts) < 1:
            raise InputError(f"count must be whole numbers >= 1, got {', '.join(map(str, self.counts)) or 'none'}")

    def settled(self, frame: MeasuredFrame, psf: PSF) -> InjectionPlan:
        """The plan with the ranges that are not stated taken from the noise and the PSF of a frame."""
        error = float(np.median(frame.background.noise)) / lone_significance(psf)
        rayleigh = RAYLEIGH_PER_SIGMA * equivalent_sigma(psf)
        flux = self.flux or Spread((DEFAULT_SNR[0] * error, DEFAULT_SNR[1] * error), ranged=True)
        apart = self.separation_px or Spread(
            (DEFAULT_SEPARATION[0] * rayleigh, DEFAULT_SEPARATION[1] * rayleigh), ranged=True
        )
        return replace(self, flux=flux, separation_px=apart)
