"""Completeness and accuracy on the user's own frame, from simulated groups of targets that are put into it.

This is the artificial-star test of stellar photometry (Stetson, PASP 99, 191, 1987, section IV): targets of known
position and flux are added to a real frame, which is then unmixed with the same options. Clutter, blending, bad pixels
and an inexact background act on them as on the real ones. The groups of a pass are far apart, so that they do not
disturb one another; further groups take further passes over the same frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from csist._types import BoolArray, FloatArray
from csist.checks import InputError, check_positive
from csist.frames.mask import check_frame
from csist.frames.measured import FramePSF, FrameRules, MeasuredFrame, measure_frame
from csist.frames.options import FrameOptions
from csist.frames.result import add_light
from csist.frames.solve import settle_psf, solve_frame
from csist.metrics import match_errors
from csist.physics.psf import PSF, RAYLEIGH_PER_SIGMA, equivalent_sigma, lone_significance
from csist.targets import Targets
from csist.windows import check_error, leave_out

PLACE_TRIES = 40
BORDER_PX = 8.0
"""Least distance of a target to the border of the frame."""
APART_PX = 16.0
"""Least distance of targets of different groups in a pass."""
REACH_PX = 3.0
"""Largest distance to a target of a group of a detection that is counted as the group's."""
PIXELS_A_GROUP = 1600
"""Pixels of a frame for each group of a pass: few enough groups to leave the statistics of the frame as they are."""
MATCH_SIGMAS = 1.0
"""Largest distance of a found target to its true place, in the PSF's sigma; at least `LEAST_MATCH_PX`."""
LEAST_MATCH_PX = 0.5
DEFAULT_SNR = (4.0, 200.0)
"""Range of the flux, in standard errors of a lone target, where none is stated."""
DEFAULT_SEPARATION = (0.5, 3.0)
"""Range of the separation in Rayleigh units where none is stated."""
BINS = 6
"""Bins of a stated range."""
RESAMPLES, LEVEL = 1000, 0.95

Limits = tuple[float, float]
LIMITS = ("flux_low", "flux_high", "separation_px_low", "separation_px_high")
"""Columns with the limits of a row of results."""


def draw_group(count: int, separation_px: float, rng: np.random.Generator) -> FloatArray:
    """Draw offsets (count, 2) in px from the centre, with each target at the separation from its nearest neighbour.

    Each target is placed at a random angle around a random earlier one, and redrawn until no other target is closer.
    """
    places = np.zeros((1, 2))
    while len(places) < count:
        angle = rng.uniform(0.0, 2.0 * np.pi)
        beside = places[rng.integers(len(places))] + separation_px * np.array([np.cos(angle), np.sin(angle)])
        if np.hypot(*(places - beside).T).min() >= separation_px * (1.0 - 1e-9):
            places = np.concatenate([places, beside[None]])
    offsets: FloatArray = places - places.mean(axis=0)
    return offsets


def place_group(
    size: FloatArray, count: int, separation_px: float, taken: FloatArray, rng: np.random.Generator
) -> FloatArray | None:
    """Positions (count, 2) of a group at a random place, away from other groups and the border; None without room.

    Args:
        size: (columns, rows) of the frame.
        count: number of targets.
        separation_px: distance of nearest neighbours in px.
        taken: (n, 2) targets of the other groups.
        rng: generator of the positions.
    """
    for _ in range(PLACE_TRIES):
        middle = rng.uniform(BORDER_PX, size - 1.0 - BORDER_PX)
        places: FloatArray = middle + draw_group(count, separation_px, rng)
        inside = ((places >= BORDER_PX) & (places <= size - 1.0 - BORDER_PX)).all()
        free = not len(taken) or np.hypot(*(places[:, None] - taken).T).min() >= APART_PX
        if inside and free:
            return places
    return None


def of_group(found: Targets, truth: Targets) -> Targets:
    """Select the detections near a group, in frame coordinates."""
    if not len(found) or not len(truth):
        return found[:0]
    distance = np.hypot(found.x[:, None] - truth.x, found.y[:, None] - truth.y).min(axis=1)
    return found[distance <= REACH_PX]


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


@dataclass(frozen=True, eq=False)
class InjectedGroup:
    """A group that was put into a frame, and what was found near it.

    Args:
        flux: of each target in counts.
        separation_px: distance of nearest neighbours; NaN for one target.
        truth: true targets in frame coordinates.
        own: targets that the frame itself has near them.
        found: detections near them.
    """

    flux: float
    separation_px: float
    truth: Targets
    own: Targets = field(default_factory=Targets.empty)
    found: Targets = field(default_factory=Targets.empty)


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


def inject_groups(
    image: NDArray[np.generic],
    plan: InjectionPlan | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    error: ArrayLike | None = None,
    **options: Any,
) -> InjectionResult:
    """Put simulated groups into a frame, unmix it, and compare.

    Args:
        image: (H, W) in counts; it is not changed.
        plan: what is injected; None for 200 pairs over a range of fluxes and separations.
        progress: called with (groups done, groups in all).
        error: (H, W) standard deviation of each pixel of the frame in counts, with all that adds to it; the photons of
            the groups are added where a gain is given. None if it is not known.
        **options: of the run, as of `csist.unmix_frame`; the PSF must be given or measured.

    Raises:
        InputError: if the frame cannot be used or has no room for a group, if the PSF is not known, or if an option is
            unknown or out of range.

    >>> from csist.physics.psf import GaussianPSF
    >>> from csist.physics.sensor import Sensor
    >>> sky = Sensor(GaussianPSF(1.0), shape=(80, 80), background=20.0, read_noise=1.0).observe(Targets.empty(), 0)
    >>> plan = InjectionPlan(groups=4, flux=Spread((500.0,)), counts=(1,))
    >>> result = inject_groups(sky, plan, psf=1.0, mode="fast")
    >>> result.rows()[0]["completeness"]
    1.0
    """
    return inject_into(image, plan or InjectionPlan(), FrameOptions.of(**options), progress, error)


def inject_into(
    image: NDArray[np.generic],
    plan: InjectionPlan,
    options: FrameOptions,
    progress: Callable[[int, int], None] | None = None,
    error: ArrayLike | None = None,
) -> InjectionResult:
    """`inject_groups` with the options of the run in one object."""
    frame = check_frame(image)
    rules = FrameRules.of(options)
    noise_map = check_error(error, frame.shape)
    if noise_map is not None:
        frame, noise_map = leave_out(frame[None], noise_map)[0], noise_map[0]
    psf, measured = settle_psf(frame, rules, options, noise_map)
    if psf is None:
        raise InputError("injected groups need the PSF: give psf or sensor (--psf-sigma, --psf, --sensor)")
    measured = measure_frame(frame, rules, psf.psf, noise_map) if measured is None else measured
    options = replace(options, psf=psf.estimate or psf.psf, psf_error=psf.error)
    plan = plan.settled(measured, psf.psf)
    own = solve_frame(frame, options, error=noise_map).targets
    rng = np.random.default_rng(plan.seed)
    waiting = _drawn(plan, rng)
    groups: list[InjectedGroup] = []
    passes = 0
    while waiting:
        placed, waiting = _place(waiting, frame, rng)
        if not placed:
            raise InputError(
                f"the frame of {frame.shape[1]} x {frame.shape[0]} px has no room for a group "
                f"{BORDER_PX:g} px from its border: give smaller separations, fewer targets or a larger frame"
            )
        passes += 1
        light = np.zeros(frame.shape)
        add_light(light, Targets.concatenate([group.truth for group in placed]), psf.psf)
        exposed = _exposed(frame, light, options, measured, rng)
        found = solve_frame(exposed, options, error=_with_photons(noise_map, light, options.gain)).targets
        groups += [replace(each, own=of_group(own, each.truth), found=of_group(found, each.truth)) for each in placed]
        if progress is not None:
            progress(len(groups), plan.groups)
    return InjectionResult(groups, plan, psf, passes)


def _drawn(plan: InjectionPlan, rng: np.random.Generator) -> list[tuple[int, float, float]]:
    """Number of targets, flux and separation of each group."""
    if plan.flux is None or plan.separation_px is None:
        raise RuntimeError("the plan is not settled")
    counts = rng.permutation(np.resize(plan.counts, plan.groups)).tolist()
    flux = plan.flux.draw(plan.groups, True, rng).tolist()
    apart = plan.separation_px.draw(plan.groups, False, rng).tolist()
    return list(zip(counts, flux, apart, strict=True))


def _place(
    waiting: Sequence[tuple[int, float, float]], frame: FloatArray, rng: np.random.Generator
) -> tuple[list[InjectedGroup], list[tuple[int, float, float]]]:
    """Groups of one pass with their places, and those that are left for later ones."""
    size = np.array([frame.shape[1], frame.shape[0]], dtype=np.float64)
    if size.min() <= 2.0 * BORDER_PX + 1.0:
        return [], list(waiting)
    most = max(1, frame.size // PIXELS_A_GROUP)
    placed: list[InjectedGroup] = []
    taken, left = np.empty((0, 2)), list(waiting)
    valid = np.isfinite(frame)
    for kind in list(left):
        if len(placed) == most:
            break
        count, flux, apart = kind
        places = place_group(size, count, apart, taken, rng)
        if places is None or not _on_valid(places, valid):
            continue
        left.remove(kind)
        taken = np.concatenate([taken, places])
        truth = Targets(places[:, 0], places[:, 1], np.full(count, flux))
        placed.append(InjectedGroup(flux, apart if count > 1 else float("nan"), truth))
    return placed, left


def _on_valid(places: FloatArray, valid: BoolArray) -> bool:
    columns, rows = np.rint(places).astype(np.int64).T
    return bool(valid[rows, columns].all())


def _with_photons(error: FloatArray | None, light: FloatArray, gain: float | None) -> FloatArray | None:
    """The error map of a frame (H, W) with the photon noise of light that is added to it."""
    if error is None or gain is None:
        return error
    return np.sqrt(error**2 + np.maximum(light, 0.0) / gain)


def _exposed(
    frame: FloatArray, light: FloatArray, options: FrameOptions, measured: MeasuredFrame, rng: np.random.Generator
) -> FloatArray:
    """The frame with light added as its camera would have: with photon noise, rounded and clipped as it is."""
    if options.gain is not None:
        light = rng.poisson(np.maximum(light, 0.0) * options.gain) / options.gain
    exposed: FloatArray = frame + light
    seen = np.isfinite(frame)
    if np.array_equal(frame[seen], np.rint(frame[seen])):
        exposed = np.rint(exposed)
    if np.isfinite(measured.pixels.ceiling):
        exposed = np.where(frame >= measured.pixels.ceiling, frame, np.minimum(exposed, measured.pixels.ceiling))
    return exposed
