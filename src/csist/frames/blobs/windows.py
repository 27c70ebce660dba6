"""One window of a frame: cut out, unmixed, and its targets attributed to the window's own peaks.

Where the PSF is not exact, a window that it does not explain is unmixed again with noise that grows with the light
(`FramePSF.error`). Windows that point targets do not explain even so are left to `csist.frames.blobs.extended`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.spatial import KDTree

from csist._types import BoolArray, FloatArray, IntArray
from csist.frames.background.estimate import scatter_about_plane
from csist.frames.blobs.extended import peaks_as_targets, separation_px
from csist.frames.detection.peaks import Peaks
from csist.frames.groups import pixel_flags, probability_within
from csist.frames.kernels import blank_discs
from csist.frames.measured import FramePSF, MeasuredFrame
from csist.frames.options import FrameOptions, as_positions
from csist.methods.continuous import Continuous, Group
from csist.physics.psf import lone_significance
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, with_room_for_light
from csist.targets import Flag, Targets

LEAST_EXTRA_SCORE = 0.1
"""Where the PSF is guessed, further targets of one peak need this much of the unmixer's score."""
CLUTTER_SIGMAS = 8.0
"""In clutter, further targets of a peak must be as significant as this, alone in the noise beside the peaks."""
MOST_TARGETS_PER_PEAK = 3
"""A poor fit with more targets per peak than this is an extended source, whether or not the PSF is known."""
MOST_PEAKS_IN_WINGS = 6
"""A window is not widened for the wings of a bright target beyond so many peaks, itself included."""
FEWEST_VALID_PIXELS = 9
NOISE_SIDE_PX = 21
"""Least side of the square around a window in which its noise is measured."""
CLUTTER_SHARE = 0.4
"""Weight of the map's noise, in the logarithm, in the noise that a window is fitted with."""
OVERRATED = 0.5
"""A window whose residual is below this share of its noise is unmixed again with the noise of the residual."""
FARTHEST_EXPLAINED_PX = 99.0
"""Targets of the blob's other windows that are farther away leave no light in a window."""

PIXEL_BITS = int(Flag.MASKED | Flag.SATURATED)


@dataclass(frozen=True, eq=False)
class Cutout:
    """A window ready to be unmixed.

    Args:
        rows: of the frame.
        columns: of the frame.
        data: (h, w) background-subtracted counts without the targets already explained, NaN where masked.
        sensor: PSF, shot noise and saturation.
        top: brightest pixel in counts, at least 0.
        noise: of a pixel in counts, to fit with.
        noise_beside: of a pixel in counts beside the peaks.
        error: (h, w) standard deviation of each pixel in counts, if it is known.
    """

    rows: slice
    columns: slice
    data: FloatArray
    sensor: Sensor
    top: float
    noise: float
    noise_beside: float
    error: FloatArray | None = None

    def inside(self, positions: FloatArray) -> FloatArray:
        """The positions (n, 2), x and y in px, of the frame that lie in the window, in its coordinates."""
        own = positions - [self.columns.start, self.rows.start]
        high = np.array([self.data.shape[1], self.data.shape[0]]) - 0.5
        return np.asarray(own[((own >= -0.5) & (own < high)).all(axis=1)])


@dataclass(frozen=True, eq=False)
class WindowFit:
    """Targets and group information of a window, in its own coordinates, and the noise that it was fitted with."""

    targets: Targets
    group: Group
    noise: float


@dataclass(frozen=True, eq=False)
class SolvedWindow:
    """What one window says of its own peaks, in frame coordinates.

    Args:
        targets: of its own peaks.
        probability: (n,) probability of 0, 1, 2, ... targets; empty where point targets do not explain the window.
        chi_squared: of the best fit.
        degrees_of_freedom: of the best fit.
        flags: bits of `Flag`.
        samples: one posterior sample array (m, k, 3), or none.
        unseen: targets that no peak is next to, as peaks; None if the window was not fitted.
    """

    targets: Targets
    probability: FloatArray
    chi_squared: float
    degrees_of_freedom: int
    flags: Flag
    samples: tuple[FloatArray, ...] = ()
    unseen: Peaks | None = None

    @property
    def fitted(self) -> bool:
        """Whether point targets were fitted."""
        return self.unseen is not None


def unmix_window(cutout: Cutout, prior: ScenePrior, noise_std: float, options: FrameOptions) -> WindowFit:
    """Unmix a window; what is left of its background is an unknown surface.

    Args:
        cutout: the window.
        prior: scene prior.
        noise_std: of a pixel in counts.
        options: how the frame is unmixed.
    """
    method = Continuous(
        cutout.sensor.with_shape((cutout.data.shape[0], cutout.data.shape[1])),
        prior=with_room_for_light(prior, cutout.data, cutout.sensor, noise_std),
        mode=options.mode,
        noise_std=noise_std,
        background="surface",
        mask_nan=True,
        workers=1,
    )
    named = cutout.inside(np.reshape(as_positions(options.start), (-1, 2)))
    targets, groups = method.solve(cutout.data, keep_samples=options.keep_samples, error=cutout.error, start=[named])
    return WindowFit(targets[0], groups[0], noise_std)


def count_of_own(probability: FloatArray, found: int, own: int, doubtful: int) -> FloatArray:
    """Probability of 0, 1, 2, ... of a window's own targets.

    Targets of other peaks are taken as certain. Where the window has fewer targets than were found, those that are not
    reported are the first to be absent.

    Args:
        probability: (n,) of 0, 1, 2, ... targets in the window.
        found: number of targets that were found.
        own: number of them that are reported.
        doubtful: number of them that are not reported: no peak is next to them, or they are not believed.

    >>> count_of_own(np.array([0.0, 0.1, 0.2, 0.7]), found=3, own=1, doubtful=2).round(2).tolist()
    [0.0, 1.0]
    >>> count_of_own(np.array([0.0, 0.1, 0.2, 0.7]), found=3, own=1, doubtful=0).round(2).tolist()
    [0.3, 0.7]
    """
    number = np.arange(len(probability))
    believed = np.where(number > found, number - doubtful, np.minimum(number, found - doubtful))
    answer = np.bincount(np.maximum(believed - (found - doubtful - own), 0), weights=probability)
    return answer.astype(np.float64)


@dataclass(frozen=True, eq=False)
class WindowSolver:
    """Unmixes the windows of one frame.

    Args:
        frame: the frame with its background and noise.
        psf: its PSF.
        peaks: all its peaks, most significant first.
        threshold: significance that a peak must have.
        options: how it is unmixed.
        prior: scene prior of a window.
        clutter: whether there is more beside the targets than noise.
    """

    frame: MeasuredFrame
    psf: FramePSF
    peaks: Peaks
    threshold: float
    options: FrameOptions
    prior: ScenePrior
    clutter: bool = False

    @cached_property
    def tree(self) -> KDTree:
        """The positions of the peaks."""
        return KDTree(self.peaks.positions)

    def margin_px(self, members: IntArray) -> int:
        """Margin of the window around some peaks: room for the wings of the brightest, but not for many other peaks."""
        brightest = members[int(self.peaks.significance[members].argmax())]
        margin = self.psf.margin_px(float(self.peaks.significance[brightest]))
        least = self.psf.least_margin_px
        if margin > least:
            near = np.asarray(
                self.tree.query(self.peaks.positions[brightest], k=[MOST_PEAKS_IN_WINGS + 1], p=np.inf)[0]
            )
            margin = max(least, int(np.minimum(margin, near)[0]))
        return margin

    def around(self, members: IntArray) -> tuple[slice, slice]:
        """(rows, columns) of the window around some peaks, inside the frame."""
        margin, (rows, columns) = self.margin_px(members), self.frame.image.shape
        x, y = np.rint(self.peaks.x[members]).astype(int), np.rint(self.peaks.y[members]).astype(int)
        return (
            slice(max(y.min() - margin, 0), min(y.max() + margin + 1, rows)),
            slice(max(x.min() - margin, 0), min(x.max() + margin + 1, columns)),
        )

    def solve(self, members: IntArray, explained: Sequence[Targets]) -> SolvedWindow | None:
        """Unmix the window of some peaks and keep their targets; None if point targets do not explain it.

        Args:
            members: (m,) indices of the window's own peaks, rising.
            explained: targets of the blob's other windows, whose light is subtracted first.
        """
        cutout = self.cut(members, explained, self.around(members))
        if cutout is None:
            return None
        fit = self._fit(cutout)
        poor = Flag.POOR_FIT in fit.group.flags
        if poor and (self.psf.guessed or fit.group.count > MOST_TARGETS_PER_PEAK * len(members) + 1):
            return None
        return self._attribute(cutout, fit, members)

    def as_peaks(self, members: IntArray) -> SolvedWindow:
        """The peaks themselves as targets, where point targets do not explain them."""
        targets = peaks_as_targets(
            self.frame, self.psf, self.peaks[members], self.around(members), self.pixel_flags(members)
        )
        flags = Flag(int(np.bitwise_or.reduce(targets.flags)))
        return SolvedWindow(targets, np.empty(0), float("nan"), 0, flags)

    def pixel_flags(self, members: IntArray) -> IntArray:
        """MASKED and SATURATED bits of each peak, by the pixels in its footprint."""
        return pixel_flags(self.frame.pixels, self.peaks.positions[members], int(np.ceil(self.psf.footprint_px)))

    def cut(self, members: IntArray, explained: Sequence[Targets], region: tuple[slice, slice]) -> Cutout | None:
        """A window of some peaks; None if it has too few valid pixels.

        Args:
            members: (m,) indices of the peaks, rising.
            explained: other targets, whose light is subtracted.
            region: its rows and columns.
        """
        rows, columns = region
        data = self.frame.flattened[rows, columns].copy()
        if np.isfinite(data).sum() < FEWEST_VALID_PIXELS:
            return None
        shape = (data.shape[0], data.shape[1])
        brightest = members[0]  # they are sorted
        own = self.psf.psf.at(float(self.peaks.x[brightest]), float(self.peaks.y[brightest]))
        sensor = Sensor(psf=own, shape=shape, gain=self.options.gain, quantised=False)
        for others in explained:
            near = np.abs(others.x - columns.start) < FARTHEST_EXPLAINED_PX
            near &= np.abs(others.y - rows.start) < FARTHEST_EXPLAINED_PX
            if near.any():
                data -= sensor.render(others[near].shifted(-columns.start, -rows.start))
        noise, beside = self._noise(rows, columns)
        top = max(float(np.nanmax(data)), 0.0)
        saturated = self.frame.pixels.saturated[rows, columns]
        if saturated.any():
            level = float((self.frame.pixels.ceiling - self.frame.background.level[rows, columns])[saturated].min())
            if level > 0.0:
                data[saturated] = level
                # Only clipped pixels may touch the ceiling; the background's slope must not push others there.
                np.minimum(data, np.nextafter(level, 0.0), out=data, where=~saturated)
                sensor = replace(sensor, saturation=level)
        error = None if self.frame.error is None else self.frame.error[rows, columns]
        return Cutout(rows, columns, data, sensor, top, noise, beside, error)

    def _noise(self, rows: slice, columns: slice) -> tuple[float, float]:
        """Noise of a pixel in a window, in counts: to fit with, and beside the peaks.

        Where it is measured, the noise map holds the clutter of its wide boxes, the window's surroundings hardly any.
        The fit takes a geometric mean of both: clutter may look like a target and add to a flux.
        """
        mapped = float(np.median(self.frame.background.noise[rows, columns]))
        if not self.frame.noise_measured:
            return mapped, mapped
        missing = NOISE_SIDE_PX - min(rows.stop - rows.start, columns.stop - columns.start)
        margin = max(-(-missing // 2), 0)
        top, left = max(rows.start - margin, 0), max(columns.start - margin, 0)
        around = self.frame.flattened[top : rows.stop + margin, left : columns.stop + margin].copy()
        reach = self.psf.footprint_px + 1.0
        middle = 0.5 * np.array([around.shape[1] - 1.0, around.shape[0] - 1.0]) + [left, top]
        near = self.tree.query_ball_point(middle, float(np.hypot(*around.shape)) / 2.0 + reach)
        blank_discs(around, np.ascontiguousarray(self.peaks.positions[near][:, ::-1] - [top, left]), reach)
        beside = scatter_about_plane(around, self.frame.step)
        if not np.isfinite(beside):
            return mapped, mapped
        beside = max(beside, self.frame.noise_floor)
        return float(beside ** (1.0 - CLUTTER_SHARE) * mapped**CLUTTER_SHARE), beside

    def _fit(self, cutout: Cutout) -> WindowFit:
        """Fit of a window, repeated where the first one shows that the PSF or the noise is not what was assumed."""
        if self.psf.error > 0.0 and cutout.top > 0.0:
            return self._fit_inexact_psf(cutout)
        fit = self._unmix(cutout, self.prior, cutout.noise)
        left = cutout.noise * (fit.group.chi_squared / fit.group.degrees_of_freedom) ** 0.5
        noise = max(left, cutout.noise_beside)
        if self.frame.noise_measured and noise < OVERRATED * cutout.noise:
            fit = self._unmix(cutout, self.prior, noise)
        return fit

    def _fit_inexact_psf(self, cutout: Cutout) -> WindowFit:
        """Fit of a window whose PSF has an error.

        If the PSF as it stands does not explain the window, or only with more targets than there are peaks, its error
        is taken as noise that grows with the light: as shot noise of the strength that is right at the peak.
        """
        seen = self._peaks_inside(cutout)
        fit = self._unmix(cutout, self._at_most(seen + 1), cutout.noise)
        if Flag.POOR_FIT not in fit.group.flags and fit.group.count <= seen:
            return fit
        gain, most = self.options.gain, self._at_most(MOST_TARGETS_PER_PEAK * seen)
        per_count = self.psf.error**2 * cutout.top + (0.0 if gain is None else 1.0 / gain)
        tolerant = replace(cutout, sensor=replace(cutout.sensor, gain=1.0 / per_count))
        if cutout.error is not None:
            misfit = self.psf.error**2 * cutout.top * np.nan_to_num(np.maximum(cutout.data, 0.0))
            tolerant = replace(cutout, error=np.sqrt(cutout.error**2 + misfit))
        return self._unmix(tolerant, most, cutout.noise)

    def _unmix(self, cutout: Cutout, prior: ScenePrior, noise_std: float) -> WindowFit:
        return unmix_window(cutout, prior, noise_std, self.options)

    def _peaks_inside(self, cutout: Cutout) -> int:
        """Number of peaks in a window, those of other windows included."""
        x, y, rows, columns = self.peaks.x, self.peaks.y, cutout.rows, cutout.columns
        inside = (x >= columns.start - 0.5) & (x < columns.stop - 0.5) & (y >= rows.start - 0.5) & (y < rows.stop - 0.5)
        return max(int(inside.sum()), 1)

    def _at_most(self, count: int) -> ScenePrior:
        """The prior with a smaller largest count: a PSF that is only roughly known cannot tell more targets apart."""
        low, high = self.prior.count_range
        return replace(self.prior, count_range=(low, max(min(high, count), low)))

    def _attribute(self, cutout: Cutout, fit: WindowFit, members: IntArray) -> SolvedWindow:
        """The targets of a window that belong to its own peaks, with scores and flags."""
        offset = np.array([cutout.columns.start, cutout.rows.start, 0.0])
        # Clutter that is smooth over a target moves it little.
        calm = cutout.noise_beside / fit.noise
        found = fit.targets.shifted(cutout.columns.start, cutout.rows.start)
        found = found.replace(x_std=found.x_std * calm, y_std=found.y_std * calm)
        bits = self.pixel_flags(members)
        own, peak_of, far = self._owners(found, members)
        score, believed = self._scores(found, peak_of, cutout.noise_beside)
        doubtful = int((far | (own & ~believed)).sum())
        own &= believed
        # Where targets are not reported, the group says anew whether it is ambiguous.
        stale = PIXEL_BITS | (int(Flag.AMBIGUOUS_COUNT) if doubtful else 0)
        flags = found.flags & ~stale | bits[np.searchsorted(members, peak_of)]
        targets = found.replace(flags=flags, score=score * self.peaks.score[peak_of])[own]
        group_flags = Flag(int(fit.group.flags) & ~stale | int(np.bitwise_or.reduce(bits)))
        missed = self._unexplained(members, found)
        probability = count_of_own(fit.group.count_probability, len(found), len(targets), doubtful)
        if missed.size:
            left_over = self.as_peaks(missed)
            targets, group_flags = Targets.concatenate([targets, left_over.targets]), group_flags | left_over.flags
            # They are taken as certain: each count has as many targets more.
            probability = np.concatenate([np.zeros(len(left_over.targets)), probability])
        return SolvedWindow(
            targets=targets,
            probability=probability,
            chi_squared=fit.group.chi_squared,
            degrees_of_freedom=fit.group.degrees_of_freedom,
            flags=group_flags,
            samples=() if fit.group.samples is None else (fit.group.samples[:, own] + offset,),
            unseen=self._without_peak(found[far], fit.noise),
        )

    def _owners(self, found: Targets, members: IntArray) -> tuple[BoolArray, IntArray, BoolArray]:
        """Which targets belong to the window's own peaks, to which peak (any own one for the others), and to none."""
        if not len(found):
            return np.empty(0, dtype=bool), np.empty(0, dtype=np.int64), np.empty(0, dtype=bool)
        distance, nearest = self.tree.query(np.stack([found.x, found.y], axis=1))
        near = np.asarray(distance <= self.psf.footprint_px + 1.0)
        own = np.isin(nearest, members) & near
        return own, np.where(own, nearest, members[0]).astype(np.int64), ~near

    def _scores(self, found: Targets, peak_of: IntArray, noise: float) -> tuple[FloatArray, BoolArray]:
        """The unmixer's score of each target, and whether the target is believed.

        With a guessed PSF that score says little about whether a peak's main target is there: what counts is that the
        target is at the peak, by the probability that its position is within the PSF's footprint. Further targets need
        `LEAST_EXTRA_SCORE`. In clutter they need `CLUTTER_SIGMAS`: what is around a target has faint spots, too.
        """
        score = found.score.copy()
        order = np.argsort(-found.intensity, kind="stable")
        main = order[np.unique(peak_of[order], return_index=True)[1]]
        believed = np.ones(len(found), dtype=bool)
        if self.clutter:
            believed &= found.intensity * lone_significance(self.psf.psf) >= CLUTTER_SIGMAS * noise
        if self.psf.guessed:
            believed &= score >= LEAST_EXTRA_SCORE
            score[main] = probability_within(self.psf.footprint_px, found.x_std[main], found.y_std[main])
        believed[main] = True
        return score, believed

    def _without_peak(self, found: Targets, noise: float) -> Peaks:
        """The targets of a window that no peak is next to and that are as significant as a peak must be.

        Both alone and by their standard error, which includes what is shared with the neighbours.
        """
        alone = found.intensity * lone_significance(self.psf.psf) / noise
        good = (alone >= self.threshold) & (found.intensity >= self.threshold * found.intensity_std)
        good &= (found.flags & int(Flag.AT_BOUND)) == 0
        # With a guessed PSF further targets are what it does not explain.
        peaks = Peaks.beyond(self.threshold, found.x, found.y, alone)[good & (not self.psf.guessed)]
        return peaks if self.clutter else peaks.in_white_noise()

    def _unexplained(self, members: IntArray, found: Targets) -> IntArray:
        """Own peaks that a guessed PSF leaves without a target beside brighter ones.

        A window that is found empty is believed.
        """
        if not (self.psf.guessed and len(found)):
            return np.empty(0, dtype=np.int64)
        positions = np.stack([found.x, found.y], axis=1)
        distance, _ = KDTree(positions).query(self.peaks.positions[members])
        return np.asarray(members[np.asarray(distance > separation_px(self.psf))])
