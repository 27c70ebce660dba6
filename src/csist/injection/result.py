"""How well injected groups are found: completeness, purity, biases and calibration, by flux and separation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csist._types import FloatArray
from csist.frames.measured import FramePSF
from csist.injection.groups import InjectedGroup
from csist.injection.plan import InjectionPlan
from csist.metrics import match_errors
from csist.targets import Targets

MATCH_SIGMAS = 1.0
"""Largest distance of a found target to its true place, in the PSF's sigma; at least `LEAST_MATCH_PX`."""
LEAST_MATCH_PX = 0.5
RESAMPLES, LEVEL = 1000, 0.95

Limits = tuple[float, float]
LIMITS = ("flux_low", "flux_high", "separation_px_low", "separation_px_high")
"""Columns with the limits of a row of results."""


class _Matched(NamedTuple):
    """Outcome of one group: targets found, detections, those that are right; and errors (pairs, 6) of the pairs.

    The errors are dx, dy in px, relative flux, and the three in units of the stated standard errors.
    """

    found: int
    detections: int
    right: int
    errors: FloatArray


@dataclass(frozen=True, eq=False)
class InjectionResult:
    """Groups that were injected and found, with the figures drawn from them.

    Args:
        groups: all groups.
        plan: by which they were drawn, with its ranges settled.
        psf: that they were drawn with.
        passes: number of times that the frame was unmixed.
    """

    groups: list[InjectedGroup]
    plan: InjectionPlan
    psf: FramePSF
    passes: int

    @property
    def match_px(self) -> float:
        """Largest distance in px of a found target to its true place."""
        return max(MATCH_SIGMAS * self.psf.sigma_px, LEAST_MATCH_PX)

    def rows(self) -> list[dict[str, Any]]:
        """Figures of all groups, then by flux, by separation, and by both.

        `completeness` is the share of injected targets with a detection within `match_px`, one to one; `purity` the
        share of detections near the groups that are injected targets or the frame's own. Intervals are 95 % bootstraps
        over groups. Biases are medians of found minus true; `within_68` is the share of errors within one standard
        error.
        """
        matched = [self._match(group) for group in self.groups]
        flux = np.array([group.flux for group in self.groups])
        apart = np.array([group.separation_px for group in self.groups])
        sizes = np.array([len(group.truth) for group in self.groups])
        rows = []
        for kind, limits in self._cuts():
            chosen = np.ones(len(flux), dtype=bool)
            for values, (low, high) in zip((flux, apart), limits, strict=True):
                chosen &= np.isnan(low) | ((values >= low) & (values < high))
            members = np.flatnonzero(chosen)
            if members.size:
                ends = dict(zip(LIMITS, (*limits[0], *limits[1]), strict=True))
                head = {"by": kind, **ends, "groups": len(members), "targets": int(sizes[members].sum())}
                rows.append(head | _figures([matched[k] for k in members], sizes[members]))
        return rows

    def _cuts(self) -> Iterator[tuple[str, tuple[Limits, Limits]]]:
        """Kind of each row, with its limits of flux and separation; NaN for no limit."""
        if self.plan.flux is None or self.plan.separation_px is None:
            raise RuntimeError("the plan of a result is settled")
        whole = (float("nan"), float("nan"))
        fluxes = _pairs(self.plan.flux.edges(log=True))
        apart = _pairs(self.plan.separation_px.edges(log=False)) if max(self.plan.counts) > 1 else []
        yield "all", (whole, whole)
        yield from (("flux", (each, whole)) for each in fluxes)
        yield from (("separation", (whole, each)) for each in apart)
        yield from (("both", (one, other)) for one in fluxes for other in apart)

    def _match(self, group: InjectedGroup) -> _Matched:
        truth = Targets.concatenate([group.truth, group.own])
        pairs = match_errors([group.found], [truth], self.match_px)
        mine = pairs.truth < len(group.truth)
        errors = np.stack(
            [
                pairs.dx,
                pairs.dy,
                pairs.relative_intensity,
                pairs.dx / pairs.x_std,
                pairs.dy / pairs.y_std,
                pairs.intensity / pairs.intensity_std,
            ],
            axis=1,
        )
        return _Matched(int(mine.sum()), len(group.found), len(pairs), errors[mine])


def _pairs(edges: FloatArray) -> list[Limits]:
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


def _figures(members: Sequence[_Matched], sizes: NDArray[np.int64]) -> dict[str, Any]:
    """Figures of some groups with so many targets each."""
    found, seen, right = (np.array([each[k] for each in members], dtype=np.float64) for k in range(3))
    errors = np.concatenate([each.errors for each in members])
    result: dict[str, Any] = {"found": int(found.sum())}
    for name, part, whole in (("completeness", found, sizes.astype(np.float64)), ("purity", right, seen)):
        result |= _share(name, part, whole)
    dx, dy, flux, *pulls = errors.T
    for name, values in (("x_bias_px", dx), ("y_bias_px", dy), ("flux_bias", flux)):
        result[name] = _median(values)
        result[f"{name}_std"] = _median_error(values)
    result["position_rms_px"] = float(np.sqrt(np.mean(dx**2 + dy**2))) if len(dx) else float("nan")
    for name, values in zip(("x", "y", "flux"), pulls, strict=True):
        known = values[np.isfinite(values)]
        result[f"{name}_within_68"] = float(np.mean(np.abs(known) <= 1.0)) if len(known) else float("nan")
    return result


def _share(name: str, part: FloatArray, whole: FloatArray) -> dict[str, float]:
    """A share with its interval, from its numerators and denominators in each group."""
    if not whole.sum():
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), float("nan"))
    value = float(part.sum() / whole.sum())
    drawn = np.random.default_rng(0).integers(0, len(part), (RESAMPLES, len(part)))
    top, bottom = part[drawn].sum(axis=1), whole[drawn].sum(axis=1)
    shares = top[bottom > 0] / bottom[bottom > 0]
    low, high = np.quantile(shares, [0.5 * (1.0 - LEVEL), 0.5 * (1.0 + LEVEL)])
    if value in (0.0, 1.0):
        # No resample differs: the rule of three gives the end of the interval.
        margin = min(1.0, 3.0 / whole.sum())
        low, high = (0.0, margin) if value == 0.0 else (1.0 - margin, 1.0)
    return {name: value, f"{name}_low": float(low), f"{name}_high": float(high)}


def _median(values: FloatArray) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def _median_error(values: FloatArray) -> float:
    """Standard error of a median, for normal errors."""
    if len(values) < 2:
        return float("nan")
    return float(1.2533 * 1.4826 * np.median(np.abs(values - np.median(values))) / np.sqrt(len(values)))
