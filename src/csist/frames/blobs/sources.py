"""Which peaks of a blob are one source that is wider than the PSF, and what it is.

The peaks of a blob without a valley between them may be one source. Where point targets need several of them, leave a
residual or fail, the hypotheses of `csist.frames.shapes.hypotheses` are weighed in a window that holds all of its
light. If one source explains it better, it takes the place of the targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from csist._types import BoolArray, FloatArray, IntArray
from csist.frames.blobs.extended import EXTENDED_PX
from csist.frames.blobs.windows import Cutout, SolvedWindow, WindowSolver
from csist.frames.detection.peaks import Peaks
from csist.frames.grouping import link, ridges
from csist.frames.shapes.hypotheses import Hypothesis, Scene, weigh_points, weigh_sources
from csist.frames.shapes.light import covariance_of
from csist.frames.shapes.source import ExtendedSource
from csist.methods.continuous.group import AMBIGUOUS, is_poor_fit
from csist.physics.psf import PSF, lone_significance
from csist.physics.sensor import Sensor
from csist.scenes import flux_bounds, with_room_for_light
from csist.targets import Flag, Targets

LARGEST_PX = 56
"""Side of the largest window of one source; larger ones are parts of the scene."""
BODY_SHARE = 0.25
"""Brightness of a source's body, in units of its brightest pixel, the light smoothed by the PSF."""
BODY_SIGMAS = 4.0
"""Least brightness of the body in units of the noise of the smoothed light."""
MISFIT_SIGMAS = 3.0
"""Excess of the chi-squared of a single point, in standard deviations, from which other sources are tried."""
UNEXPLAINED = 0.5
"""Share of the light at a peak that a single point has to leave for other sources to be tried."""
CLEAR_THRESHOLDS = 2.0
"""Significance of a peak, in thresholds, from which a window that is found empty is looked at again."""
FARTHEST_WING_PX = 40.0
"""Peaks farther from a window leave no light in it."""
MOST_MASKED = 0.5
"""Largest share of a window that may be left out."""
FLAGS = {"extended": Flag.EXTENDED, "streak": Flag.STREAK, "blurred": Flag(0)}


@dataclass(frozen=True, eq=False)
class Settled:
    """A blob after it was decided what its peaks are.

    Args:
        solved: its windows; sources that are wider than the PSF have one each.
        unfitted: (m,) peaks that nothing explains.
        sources: the extended sources and streaks, the brightest first.
        extended: probability that the blob's brightest doubtful part is one extended source.
        streak: the same of a streak.
        blurred: the same of one point whose PSF is not exact.
    """

    solved: list[SolvedWindow]
    unfitted: IntArray
    sources: tuple[ExtendedSource, ...] = ()
    extended: float = 0.0
    streak: float = 0.0
    blurred: float = 0.0


@dataclass(frozen=True, eq=False)
class Verdict:
    """The hypotheses of some peaks.

    Args:
        winner: the most probable one; None for point targets.
        probability: of each by name; "points" for point targets.
        cutout: the window.
    """

    winner: Hypothesis | None
    probability: dict[str, float]
    cutout: Cutout


@dataclass(frozen=True, eq=False)
class SourceSolver:
    """Decides for the blobs of a frame what their peaks are.

    Args:
        windows: the frame, its PSF and its peaks.
    """

    windows: WindowSolver

    def settle(self, members: IntArray, solved: list[SolvedWindow], unfitted: IntArray) -> Settled:
        """A blob with one source wherever that is more probable than its point targets.

        Args:
            members: (m,) indices of the blob's peaks, rising.
            solved: its fitted windows.
            unfitted: (k,) peaks of the windows that point targets do not explain.
        """
        settled = Settled(solved, unfitted)
        for part in self._parts(members, solved, unfitted):
            settled = self._settle_part(members, part, settled)
        return settled

    def _parts(self, members: IntArray, solved: Sequence[SolvedWindow], unfitted: IntArray) -> list[IntArray]:
        """Peaks without a valley between them, the strongest first."""
        if len(members) == 1:
            return [members]
        peaks, (rows, columns) = self.windows.peaks, self._around(members, 0)
        light = self._smooth(rows, columns)
        inside = peaks.positions[members] - [columns.start, rows.start]
        labels = link(inside, 0.0, ridges(inside, light, EXTENDED_PX))
        first = np.unique(labels, return_index=True)[1]
        return [members[labels == labels[k]] for k in np.sort(first)]

    def _settle_part(self, members: IntArray, part: IntArray, settled: Settled) -> Settled:
        own = [self._owned(members, part, window.targets) for window in settled.solved]
        if not (np.isin(part, settled.unfitted).any() or self._is_doubtful(part, settled.solved, own)):
            return settled
        verdict = self._weigh(members, part, settled, own)
        if verdict is None:
            return settled
        chances = verdict.probability
        if not any(each > 0.0 for each in (settled.extended, settled.streak, settled.blurred)):
            extended, streak, blurred = (chances.get(name, 0.0) for name in ("extended", "streak", "blurred"))
            settled = replace(settled, extended=extended, streak=streak, blurred=blurred)
        if verdict.winner is None:
            return replace(settled, solved=self._marked(settled.solved, own, chances["points"]))
        source = _source_of(verdict.winner, verdict.cutout)
        row = self._row(part, verdict, verdict.winner)
        kept = [
            _without(window, mask, verdict.cutout)
            for window, mask in zip(settled.solved, own, strict=True)
            if not (mask.any() and mask.all())
        ]
        sources = (*settled.sources, source) if verdict.winner.name != "blurred" else settled.sources
        return replace(
            settled,
            solved=[*kept, row],
            unfitted=np.setdiff1d(settled.unfitted, part),
            sources=tuple(sorted(sources, key=lambda each: -each.intensity)),
        )

    def _owned(self, members: IntArray, part: IntArray, targets: Targets) -> BoolArray:
        """Which targets (n,) are nearest to a peak of a part."""
        if not len(targets):
            return np.zeros(0, dtype=bool)
        positions = self.windows.peaks.positions[members]
        nearest = KDTree(positions).query(np.stack([targets.x, targets.y], axis=1))[1]
        return np.asarray(np.isin(members[nearest], part))

    def _is_doubtful(self, part: IntArray, solved: Sequence[SolvedWindow], own: Sequence[BoolArray]) -> bool:
        """Whether a part's light may be something else than its point targets."""
        count = sum(int(mask.sum()) for mask in own)
        if count > 1:
            return True
        if not count:
            # The background of a small window takes up the light of a wide source.
            strongest = float(self.windows.peaks.significance[part].max())
            return strongest >= CLEAR_THRESHOLDS * self.windows.threshold
        ((window, mask),) = ((window, mask) for window, mask in zip(solved, own, strict=True) if mask.any())
        if len(window.targets) > 1 or not window.degrees_of_freedom:
            return False
        excess = window.chi_squared - window.degrees_of_freedom
        misfit = excess > MISFIT_SIGMAS * (2.0 * window.degrees_of_freedom) ** 0.5
        return bool(misfit) or self._leaves_light(part, window.targets[mask])

    def _leaves_light(self, part: IntArray, target: Targets) -> bool:
        """Whether a target explains less than half of the light at the strongest peak of a part.

        The rest was taken up by the background of a small window, and its misfit by the noise of clutter.
        """
        strongest = part[int(self.windows.peaks.significance[part].argmax())]
        rows, columns = self._around(np.array([strongest]), 0)
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        x, y = (float(each[strongest]) for each in (self.windows.peaks.x, self.windows.peaks.y))
        drawn = Sensor(self.windows.psf.psf.at(x, y), shape).render(target.shifted(-columns.start, -rows.start))
        i, j = min(max(round(y - rows.start), 0), shape[0] - 1), min(max(round(x - columns.start), 0), shape[1] - 1)
        light = float(self._smooth(rows, columns)[i, j])
        explained = float(ndimage.gaussian_filter(drawn, self.windows.psf.sigma_px)[i, j])
        return light - explained > max(UNEXPLAINED * light, BODY_SIGMAS * self._smoothed_noise(rows, columns))

    def _smoothed_noise(self, rows: slice, columns: slice) -> float:
        """Noise in counts of a part of the frame, smoothed by the PSF."""
        noise = float(np.median(self.windows.frame.background.noise[rows, columns]))
        return float(noise / max(2.0 * np.pi**0.5 * self.windows.psf.sigma_px, 1.0))

    def _around(self, members: IntArray, margin: int) -> tuple[slice, slice]:
        """(rows, columns) of the peaks with a margin of a window and more, inside the frame."""
        margin += self.windows.psf.least_margin_px
        rows, columns = self.windows.frame.image.shape
        x, y = np.rint(self.windows.peaks.positions[members]).astype(int).T
        return (
            slice(max(y.min() - margin, 0), min(y.max() + margin + 1, rows)),
            slice(max(x.min() - margin, 0), min(x.max() + margin + 1, columns)),
        )

    def _smooth(self, rows: slice, columns: slice) -> FloatArray:
        """Light of a part of the frame, smoothed by the PSF: its noise makes no valleys."""
        light = np.nan_to_num(self.windows.frame.flattened[rows, columns], nan=0.0)
        return np.asarray(ndimage.gaussian_filter(light, self.windows.psf.sigma_px))

    def _body(self, part: IntArray) -> tuple[slice, slice] | None:
        """(rows, columns) of the window of a source with all its light; None if that is too large."""
        shape, margin = self.windows.frame.image.shape, self.windows.psf.least_margin_px
        around = self._around(part, margin)
        body = self._bright(part, around)
        # Most sources are small. The outermost pixels that are looked at are smoothed with less than there is.
        if any(
            each.start - margin < seen.start > 0 or each.stop + margin > seen.stop < length
            for each, seen, length in zip(body, around, shape, strict=True)
        ):
            body = self._bright(part, self._around(part, LARGEST_PX // 2))
        rows, columns = (
            slice(max(each.start - margin, 0), min(each.stop + margin, length))
            for each, length in zip(body, shape, strict=True)
        )
        if max(rows.stop - rows.start, columns.stop - columns.start) > LARGEST_PX:
            return None
        return rows, columns

    def _bright(self, part: IntArray, around: tuple[slice, slice]) -> tuple[slice, slice]:
        """(rows, columns) of the bright pixels next to some peaks, of those in a part of the frame."""
        rows, columns = around
        light = self._smooth(rows, columns)
        x, y = np.rint(self.windows.peaks.positions[part] - [columns.start, rows.start]).astype(int).T
        noise = self._smoothed_noise(rows, columns)
        labels, number = ndimage.label(light > max(BODY_SHARE * float(light[y, x].max()), BODY_SIGMAS * noise))
        own = np.zeros(number + 1, dtype=bool)
        own[labels[y, x]] = True
        own[0] = False
        body = own[labels]
        body[y, x] = True
        i, j = np.nonzero(body)
        return (
            slice(rows.start + int(i.min()), rows.start + int(i.max()) + 1),
            slice(columns.start + int(j.min()), columns.start + int(j.max()) + 1),
        )

    def _weigh(self, members: IntArray, part: IntArray, settled: Settled, own: Sequence[BoolArray]) -> Verdict | None:
        """The hypotheses of some peaks of a blob; None if they cannot be weighed."""
        solved, region = settled.solved, self._body(part)
        if region is None:
            return None
        others = self._others(members, region)
        explained = [window.targets[~mask] for window, mask in zip(solved, own, strict=True)]
        cutout = self.windows.cut(part, [*explained, self._as_points(self.windows.peaks[others])], region)
        if cutout is None:
            return None
        data = self._without(others, cutout, members)
        if np.isnan(data).mean() > MOST_MASKED:
            return None
        prior = with_room_for_light(self.windows.prior, cutout.data, cutout.sensor, cutout.noise)
        scene = Scene(
            data, cutout.sensor, cutout.noise, self.windows.psf.error,
            flux_bounds(prior, cutout.sensor, cutout.noise), cutout.error,
        )  # fmt: skip
        start = _moments(data, scene.psf, cutout.noise)
        if start is None:
            return None
        unfitted = bool(np.isin(part, settled.unfitted).any())
        if unfitted:
            # No fit of points passed, perhaps because of the PSF: weigh them with the same errors as the shapes.
            targets = self._as_points(self.windows.peaks[part])
        else:
            targets = Targets.concatenate(window.targets[mask] for window, mask in zip(solved, own, strict=True))
        # Without those that no peak shows yet, a group of points would be worse than it is.
        targets = Targets.concatenate([targets, *(self._as_points(each) for each in _unseen(solved, cutout))])
        inside = np.stack([targets.x - cutout.columns.start, targets.y - cutout.rows.start, targets.intensity], axis=1)
        points = weigh_points(scene, inside, fitted=not unfitted)
        found = weigh_sources(scene, points, len(targets), start)
        # A source whose centre is outside the window is not in it; a blurred point is a point either way.
        found = [each for each in found if not each.mode.at_bound[:2].any()]
        found = [each for each in found if each.name != "blurred" or unfitted or len(targets) != 1]
        return _judge(points, found, cutout)

    def _others(self, members: IntArray, region: tuple[slice, slice]) -> IntArray:
        """Peaks of other blobs in and around a window."""
        peaks, (rows, columns) = self.windows.peaks, region
        x = np.maximum(np.maximum(columns.start - peaks.x, peaks.x - columns.stop), 0.0)
        y = np.maximum(np.maximum(rows.start - peaks.y, peaks.y - rows.stop), 0.0)
        return np.setdiff1d(np.flatnonzero(np.hypot(x, y) <= FARTHEST_WING_PX), members)

    def _as_points(self, peaks: Peaks) -> Targets:
        """Some peaks as point targets, their flux by their significance."""
        noise = self.windows.frame.background.noise
        rows, columns = (
            np.clip(np.rint(each).astype(int), 0, length - 1)
            for each, length in zip((peaks.y, peaks.x), noise.shape, strict=True)
        )
        flux = peaks.significance * noise[rows, columns] / lone_significance(self.windows.psf.psf)
        return Targets(x=peaks.x, y=peaks.y, intensity=flux)

    def _without(self, others: IntArray, cutout: Cutout, members: IntArray) -> FloatArray:
        """Light of a window (h, w), NaN where other blobs have light and are nearer than the blob's own peaks."""
        peaks, data = self.windows.peaks, cutout.data.copy()
        rows, columns = np.indices(data.shape)
        places = np.stack([columns + cutout.columns.start, rows + cutout.rows.start], axis=-1)
        own = KDTree(peaks.positions[members]).query(places)[0]
        for k in others:
            distance = np.hypot(*np.moveaxis(places - peaks.positions[k], -1, 0))
            reach = max(self.windows.psf.margin_px(float(peaks.significance[k])), self.windows.psf.footprint_px)
            data[(distance <= reach) & (distance < own)] = np.nan
        return data

    def _marked(
        self, solved: Sequence[SolvedWindow], own: Sequence[BoolArray], probability: float
    ) -> list[SolvedWindow]:
        """Windows whose targets are ambiguous where another explanation is not improbable."""
        if probability >= 1.0 - AMBIGUOUS:
            return list(solved)
        bit = int(Flag.AMBIGUOUS_COUNT)
        return [
            replace(
                window,
                targets=window.targets.replace(flags=window.targets.flags | np.where(mask, bit, 0)),
                flags=window.flags | Flag.AMBIGUOUS_COUNT,
            )
            if mask.any()
            else window
            for window, mask in zip(solved, own, strict=True)
        ]

    def _row(self, part: IntArray, verdict: Verdict, winner: Hypothesis) -> SolvedWindow:
        """The window of a source, with its one row."""
        cutout, mode, place = verdict.cutout, winner.mode, winner.flux_index
        flux = float(np.exp(mode.theta[place]))
        deviation = np.sqrt(np.maximum(np.diag(mode.covariance), 0.0))
        freedom = max(int(np.isfinite(cutout.data).sum()) - len(mode.theta), 1)
        flags = FLAGS[winner.name] | Flag(int(np.bitwise_or.reduce(self.windows.pixel_flags(part))))
        if bool(is_poor_fit(winner.chi_squared, freedom)):
            flags |= Flag.POOR_FIT
        chance = verdict.probability[winner.name]
        if chance < 1.0 - AMBIGUOUS:
            flags |= Flag.AMBIGUOUS_COUNT
        targets = Targets(
            x=[mode.theta[0] + cutout.columns.start],
            y=[mode.theta[1] + cutout.rows.start],
            intensity=[flux],
            score=[float(self.windows.peaks.score[part].max())],
            x_std=deviation[:1],
            y_std=deviation[1:2],
            intensity_std=[flux * deviation[place]],
            flags=[int(flags)],
        )
        none = self.windows.peaks[:0]
        return SolvedWindow(targets, np.empty(0), winner.chi_squared, freedom, flags, unseen=none)


def _source_of(hypothesis: Hypothesis, cutout: Cutout) -> ExtendedSource:
    """The source of a hypothesis in frame coordinates."""
    theta, place = hypothesis.theta, hypothesis.flux_index
    return ExtendedSource(
        hypothesis.outline,
        float(theta[0] + cutout.columns.start),
        float(theta[1] + cutout.rows.start),
        float(np.exp(theta[place])),
        tuple(float(value) for value in theta[2:place]),
        cutout.sensor.psf,
    )


def _judge(points: float, found: Sequence[Hypothesis], cutout: Cutout) -> Verdict | None:
    """The most probable hypothesis; None if nothing could be fitted."""
    weights = {"points": points, **{each.name: each.log_weight for each in found}}
    top = max(weights.values())
    if not np.isfinite(top):
        return None
    chances = {name: float(np.exp(weight - top)) for name, weight in weights.items()}
    total = sum(chances.values())
    probability = {name: chance / total for name, chance in chances.items()}
    best = max(probability, key=lambda name: probability[name])
    return Verdict(next((each for each in found if each.name == best), None), probability, cutout)


def _moments(data: FloatArray, psf: PSF, noise: float) -> FloatArray | None:
    """Start (6,) of `weigh_sources` from the bright pixels of a window; None if there are none."""
    top = float(np.nanmax(data))
    if top <= 0.0:
        return None
    i, j = np.nonzero(data > max(BODY_SHARE * top, min(2.0 * noise, 0.5 * top)))
    weight = data[i, j]
    x, y = (float((weight * each).sum() / weight.sum()) for each in (j, i))
    places = np.stack([j - x, i - y])
    covariance = (weight * places) @ places.T / weight.sum()
    values, axes = np.linalg.eigh(covariance - covariance_of(psf))
    sizes = np.sqrt(np.maximum(values, 0.25 * np.linalg.det(covariance_of(psf)) ** 0.5))
    angle = 2.0 * float(np.arctan2(axes[1, 1], axes[0, 1]))
    shear = min(0.5 * float(np.log(sizes[1] / sizes[0])), 0.7)
    return np.array(
        [x, y, 0.5 * np.log(sizes[0] * sizes[1]), shear * np.cos(angle), shear * np.sin(angle), weight.sum()]
    )


def _unseen(solved: Sequence[SolvedWindow], cutout: Cutout) -> list[Peaks]:
    """The targets of windows that no peak is next to and that lie inside another window, as peaks."""
    return [window.unseen[_is_inside(window.unseen, cutout)] for window in solved if window.unseen is not None]


def _is_inside(peaks: Peaks, cutout: Cutout) -> BoolArray:
    """Which peaks (n,) lie inside a window."""
    x, y, rows, columns = peaks.x, peaks.y, cutout.rows, cutout.columns
    return np.asarray((x >= columns.start) & (x < columns.stop) & (y >= rows.start) & (y < rows.stop))


def _without(window: SolvedWindow, gone: BoolArray, cutout: Cutout) -> SolvedWindow:
    """A window without some of its targets, and without the unseen ones inside another window."""
    kept, unseen = ~gone, window.unseen
    if unseen is not None:
        unseen = unseen[~_is_inside(unseen, cutout)]
    return replace(
        window,
        targets=window.targets[kept],
        samples=tuple(cloud[:, kept[: cloud.shape[1]]] for cloud in window.samples),
        unseen=unseen,
    )
