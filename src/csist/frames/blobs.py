"""From the peaks of a frame to its targets: blobs, their windows, and what is reported of them.

Peaks whose PSF footprints overlap form a blob. Each blob gets a window with a margin, a blob too large for one
window several of them; every window is unmixed on its own. A fitted target belongs to the peak next to it, and a
window reports the targets of its own peaks only, so nothing is counted twice. What a window has explained is taken
out of the others of its blob. A target that is found where detection saw no peak, as significant as one, becomes a
peak, and the blobs around it are unmixed once more.

Where the PSF is not exact, a window that it does not explain is unmixed again with noise that grows with the light
(`psf_error`). What point targets do not explain even so (an extended source, a cloud's edge) is reported as one target
for each peak with a valley around it, with the flag POOR_FIT and no error bars.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from csist.frames.background import Background, PixelMask, scatter_about_plane
from csist.frames.detect import Peaks, keep_strongest, link, ridges, split
from csist.methods.continuous import Continuous, Group
from csist.physics.psf import PSF, equivalent_sigma, lone_significance
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior
from csist.targets import Flag, Targets

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

LEAST_EXTRA_SCORE = 0.1
"""Where the PSF is guessed, further targets of one peak need this much of the unmixer's score."""

LARGEST_WINDOW_PX = 24
MOST_PEAKS = 4
"""Peaks a window may have of its own; each may turn out to be several targets, and neighbours are fitted too."""
SEPARATE_PX = 4.0
"""Peaks closer than this, and than three sigma, are one source where point targets do not explain a blob."""
EXTENDED_PX = 12.0
"""Peaks within this distance and without a valley between them belong to one extended source."""
MOST_TARGETS_PER_PEAK = 3
"""A poor fit with more targets a peak than this is an extended source, whether or not the PSF is known."""
FEWEST_VALID_PIXELS = 9
NOISE_SIDE_PX = 21
"""Least side of the square around a window in which its noise is measured."""
CLUTTER_SHARE = 0.4
"""Weight of the map's noise, in the logarithm, in the noise that a window is fitted with."""
OVERRATED = 0.5
"""A window that leaves less than this share of its noise is unmixed again with what it leaves."""


@dataclass(frozen=True)
class FrameGroup:
    """What is known of one blob of a frame besides its targets.

    Args:
        number: of the blob; `Targets.group` refers to it.
        column: first column of the smallest rectangle that holds the blob's windows.
        row: its first row.
        shape: (rows, columns) of that rectangle in px.
        peaks: number of detected peaks.
        windows: number of windows it was unmixed in; 0 if it was not unmixed.
        significance: of its strongest peak, in standard deviations.
        count: number of targets reported.
        count_probability: (n,) probability of 0, 1, 2, ... targets; empty where point targets do not explain it.
        chi_squared: of the best fit, summed over the windows; NaN where there is none.
        degrees_of_freedom: measured pixels minus parameters, summed.
        flags: bits of `Flag`.
        samples: one (m, k, 3) a window: posterior samples of x, y in px and intensity in counts of k targets, in frame
            coordinates, given their number and the noise of the fit; empty unless asked for.
    """

    number: int
    column: int
    row: int
    shape: tuple[int, int]
    peaks: int
    windows: int
    significance: float
    count: int
    count_probability: FloatArray
    chi_squared: float
    degrees_of_freedom: int
    flags: Flag
    samples: tuple[FloatArray, ...] = ()


def pixel_flags(pixels: PixelMask, positions: FloatArray, reach: int) -> IntArray:
    """MASKED and SATURATED bits of each position (n, 2), by the pixels within `reach` along rows and columns."""
    bits = np.zeros(len(positions), dtype=np.int64)
    for k, (x, y) in enumerate(positions):
        part = np.s_[
            max(round(y) - reach, 0) : round(y) + reach + 1,
            max(round(x) - reach, 0) : round(x) + reach + 1,
        ]
        bits[k] |= int(Flag.MASKED) if pixels.masked[part].any() else 0
        bits[k] |= int(Flag.SATURATED) if pixels.saturated[part].any() else 0
    return bits


def unmix_window(
    window: FloatArray, sensor: Sensor, prior: ScenePrior, mode: str, noise_std: float, keep_samples: bool = False
) -> tuple[Targets, Group]:
    """Targets of one background-subtracted window (NaN is left out), in its own coordinates.

    What is left of the background is an unknown surface.

    Args:
        window: (h, w) in counts.
        sensor: PSF, shot noise and saturation.
        prior: scene prior.
        mode: "accurate" or "fast".
        noise_std: of a pixel in counts.
        keep_samples: whether the group gets posterior samples.
    """
    method = Continuous(
        sensor.with_shape((window.shape[0], window.shape[1])),
        prior=prior,
        mode=mode,
        noise_std=noise_std,
        background="surface",
        mask_nan=True,
        workers=1,
    )
    targets, groups = method.solve(window, keep_samples=keep_samples)
    return targets[0], groups[0]


@dataclass(frozen=True)
class _Solved:
    """What one window says of its own peaks, in frame coordinates."""

    targets: Targets
    probability: FloatArray
    chi_squared: float
    degrees_of_freedom: int
    flags: Flag
    fitted: bool
    samples: tuple[FloatArray, ...] = ()
    unseen: Peaks | None = None


@dataclass(frozen=True)
class Job:
    """One frame's data and options, and the way from its peaks to its targets."""

    flattened: FloatArray
    background: Background
    pixels: PixelMask
    peaks: Peaks
    threshold: float
    psf: PSF
    gain: float | None
    prior: ScenePrior
    mode: str
    guessed: bool
    psf_error: float
    measured: bool
    floor: float
    keep_samples: bool

    @property
    def sigma_px(self) -> float:
        """Of the Gaussian with the PSF's noise-equivalent area."""
        return equivalent_sigma(self.psf)

    @property
    def footprint_px(self) -> float:
        """Radius of the disc that holds some 90 % of a target's light."""
        return 2.0 * self.sigma_px + 0.5

    @property
    def margin_px(self) -> int:
        """Of a window around its peaks."""
        return int(np.ceil(3.0 * self.sigma_px)) + 2

    def solve(
        self, workers: int, progress: Callable[[int, int], None] | None = None
    ) -> tuple[Targets, list[FrameGroup]]:
        """Targets and group information of all blobs, the most significant blob first.

        A target that a window finds where no peak is becomes a peak, and the blobs around it are unmixed again.
        """
        if not len(self.peaks):
            return Targets.empty(), []
        blobs = self._blobs()
        results = self._solve(blobs, workers, progress)
        unseen = keep_strongest(
            self.peaks[:0].merged(*(peaks for _, _, several in results for peaks in several)), 2.0 * self.sigma_px
        )
        if len(unseen):
            distance, _ = KDTree(unseen.positions).query(self.peaks.positions)
            far = np.asarray(distance > 2.0 * LARGEST_WINDOW_PX)
            known = {
                self.peaks.positions[members].tobytes(): result
                for members, result in zip(blobs, results, strict=True)
                if far[members].all()
            }
            whole = replace(self, peaks=self.peaks.merged(unseen))
            blobs = whole._blobs()
            again = [members for members in blobs if whole.peaks.positions[members].tobytes() not in known]
            new = iter(whole._solve(again, workers, progress))
            results = [known.get(whole.peaks.positions[members].tobytes()) or next(new) for members in blobs]
        return (
            Targets.concatenate(
                targets.replace(group=np.full(len(targets), number)) for number, (targets, _, _) in enumerate(results)
            ),
            [replace(group, number=number) for number, (_, group, _) in enumerate(results)],
        )

    def _blobs(self) -> list[IntArray]:
        """Members of each blob, the blob with the most significant peak first."""
        extended = ridges(self.peaks, np.nan_to_num(self.flattened, nan=0.0), EXTENDED_PX)
        labels = link(self.peaks.positions, 2.0 * self.footprint_px, extended)
        # Peaks are sorted, so the first member of a blob is its strongest.
        _, first, labels = np.unique(labels, return_index=True, return_inverse=True)
        return [np.flatnonzero(labels == label) for label in np.argsort(first)]

    def _solve(
        self, blobs: list[IntArray], workers: int, progress: Callable[[int, int], None] | None
    ) -> list[tuple[Targets, FrameGroup, list[Peaks]]]:
        """Targets, group information and targets without a peak, of each blob."""
        tree = KDTree(self.peaks.positions)
        with ThreadPoolExecutor(workers) as pool:
            results = []
            solved = pool.map(lambda members: self._blob(members, tree), blobs)
            with closing(solved):  # type: ignore[type-var]  # a generator: closed, it calls off what has not begun
                for result in solved:
                    results.append(result)
                    if progress is not None:
                        progress(len(results), len(blobs))
        return results

    def _window(self, members: IntArray) -> tuple[slice, slice]:
        """(rows, columns) of the window around some peaks, inside the frame."""
        margin, (rows, columns) = self.margin_px, self.flattened.shape
        x, y = np.rint(self.peaks.x[members]).astype(int), np.rint(self.peaks.y[members]).astype(int)
        return (
            slice(max(y.min() - margin, 0), min(y.max() + margin + 1, rows)),
            slice(max(x.min() - margin, 0), min(x.max() + margin + 1, columns)),
        )

    def _blob(self, members: IntArray, tree: KDTree) -> tuple[Targets, FrameGroup, list[Peaks]]:
        extent = max(LARGEST_WINDOW_PX - 2.0 * self.margin_px - 1.0, 2.0 * self.footprint_px)
        parts = [np.sort(part) for part in split(self.peaks.positions, members, MOST_PEAKS, extent)]
        parts.sort(key=lambda part: int(part[0]))  # strongest first
        solved: list[_Solved] = []
        explained: list[Targets] = []
        unfitted: list[IntArray] = []
        for part in parts:
            result = self._part(part, tree, explained)
            if result is None:
                unfitted.append(part)
            else:
                solved.append(result)
                explained.append(result.targets)
        if unfitted:
            # Together, so that an extended source in several windows is one target.
            rest = np.sort(np.concatenate(unfitted))
            solved.append(self._as_peaks(rest, self._pixel_flags(rest)))
        targets = Targets.concatenate(result.targets for result in solved)
        fitted = [result for result in solved if result.fitted]
        flags = Flag(0)
        for result in solved:
            flags |= result.flags
        probability = np.ones(1)
        for result in solved:
            probability = np.convolve(probability, result.probability) if result.fitted else np.empty(0)
            if not probability.size:
                break
        windows = [self._window(part) for part in parts]
        top, left = min(w[0].start for w in windows), min(w[1].start for w in windows)
        bottom, right = max(w[0].stop for w in windows), max(w[1].stop for w in windows)
        group = FrameGroup(
            number=0,
            column=int(left),
            row=int(top),
            shape=(int(bottom - top), int(right - left)),
            peaks=len(members),
            windows=len(fitted),
            significance=float(self.peaks.significance[members].max()),
            count=len(targets),
            count_probability=probability,
            chi_squared=float(sum(r.chi_squared for r in fitted)) if fitted else float("nan"),
            degrees_of_freedom=sum(r.degrees_of_freedom for r in fitted),
            flags=flags,
            samples=tuple(cloud for result in fitted for cloud in result.samples),
        )
        return targets, group, [result.unseen for result in solved if result.unseen is not None]

    def _part(self, members: IntArray, tree: KDTree, explained: list[Targets]) -> _Solved | None:
        """Unmix one window and keep the targets of its own peaks; None if point targets do not explain it."""
        rows, columns = self._window(members)
        window = self.flattened[rows, columns].copy()
        bits = self._pixel_flags(members)
        if np.isfinite(window).sum() < FEWEST_VALID_PIXELS:
            return None
        sensor = Sensor(psf=self.psf, shape=(window.shape[0], window.shape[1]), gain=self.gain, quantised=False)
        for others in explained:
            near = (np.abs(others.x - columns.start) < 99.0) & (np.abs(others.y - rows.start) < 99.0)
            if near.any():
                window -= sensor.render(others[near].shifted(-columns.start, -rows.start))
        noise, beside = self._noise(rows, columns, tree)
        peak = max(float(np.nanmax(window)), 0.0)
        saturated = self.pixels.saturated[rows, columns]
        if saturated.any():
            level = float((self.pixels.ceiling - self.background.level[rows, columns])[saturated].min())
            if level > 0.0:
                window[saturated] = level
                # Only clipped pixels may touch the ceiling; the background's slope must not push others there.
                np.minimum(window, np.nextafter(level, 0.0), out=window, where=~saturated)
                sensor = replace(sensor, saturation=level)
        prior = self.prior
        tolerant = self.psf_error > 0.0 and peak > 0.0
        seen = self._peaks_inside(rows, columns)
        if tolerant:
            prior = self._at_most(seen + 1)
        found, group = unmix_window(window, sensor, prior, self.mode, noise, self.keep_samples)
        if tolerant and (Flag.POOR_FIT in group.flags or group.count > seen):
            # The PSF as it is does not do, or only with more targets than there are peaks. Its error grows with the
            # light: as shot noise of the strength that is right at the peak.
            per_count = self.psf_error**2 * peak + (0.0 if self.gain is None else 1.0 / self.gain)
            prior = self._at_most(MOST_TARGETS_PER_PEAK * seen)
            sensor = replace(sensor, gain=1.0 / per_count)
            found, group = unmix_window(window, sensor, prior, self.mode, noise, self.keep_samples)
        left = noise * (group.chi_squared / group.degrees_of_freedom) ** 0.5
        if self.measured and not tolerant and max(left, beside) < OVERRATED * noise:
            noise = max(left, beside)
            found, group = unmix_window(window, sensor, prior, self.mode, noise, self.keep_samples)
        poor = Flag.POOR_FIT in group.flags
        if poor and (self.guessed or group.count > MOST_TARGETS_PER_PEAK * len(members) + 1):
            return None
        # Clutter that is smooth over a target moves it little.
        found = found.shifted(columns.start, rows.start)
        found = found.replace(x_std=found.x_std * (beside / noise), y_std=found.y_std * (beside / noise))
        own, peak_of, far = self._own(found, members, tree)
        z = self.peaks.significance[peak_of]
        kept_bits = found.flags & ~int(Flag.MASKED | Flag.SATURATED) | bits[np.searchsorted(members, peak_of)]
        score = found.score
        if self.guessed:
            # With a guessed PSF the unmixer's own score says little of whether the peak's main target is there.
            order = np.argsort(-found.intensity, kind="stable")
            main = order[np.unique(peak_of[order], return_index=True)[1]]
            score = score.copy()
            score[main] = 1.0
            own &= score >= LEAST_EXTRA_SCORE
        targets = found.replace(flags=kept_bits, score=score * z / (z + self.threshold))[own]
        samples = () if group.samples is None else (group.samples[:, own] + np.array([columns.start, rows.start, 0.0]),)
        missed = self._unexplained(members, found)
        # The probabilities are of the window's count; what it found of other peaks is taken off.
        dropped = len(found) - len(targets)
        probability = group.count_probability[dropped:].copy()
        probability[0] += group.count_probability[:dropped].sum()
        kept_flags = Flag(int(group.flags) & ~int(Flag.MASKED | Flag.SATURATED))
        for bit in np.unique(bits):
            kept_flags |= Flag(int(bit))
        if missed.size:
            left_over = self._as_peaks(members[missed], bits[missed])
            targets, kept_flags = (
                Targets.concatenate([targets, left_over.targets]),
                kept_flags | left_over.flags,
            )
        return _Solved(
            targets, probability, group.chi_squared, group.degrees_of_freedom, kept_flags, True, samples,
            self._without_peak(found[far], noise),
        )  # fmt: skip

    def _without_peak(self, found: Targets, noise: float) -> Peaks:
        """Those of the targets of a window, none of which is next to a peak, that are as significant as a peak must be.

        Both alone and by their standard error, which counts what is shared with the neighbours.
        """
        alone = found.intensity * lone_significance(self.psf) / noise
        good = (alone >= self.threshold) & (found.intensity >= self.threshold * found.intensity_std)
        good &= (found.flags & int(Flag.AT_BOUND)) == 0
        # With a guessed PSF further targets are what it leaves.
        return Peaks(found.x, found.y, alone)[good & (not self.guessed)]

    def _noise(self, rows: slice, columns: slice, tree: KDTree) -> tuple[float, float]:
        """Noise of a pixel in a window, in counts: what to fit with, and what remains beside the peaks.

        Where it is measured, the map's noise holds the clutter of its wide boxes, the surroundings' own hardly any. The
        fit takes a geometric mean of both: clutter may look like a target and add to a flux.
        """
        mapped = float(np.median(self.background.noise[rows, columns]))
        if not self.measured:
            return mapped, mapped
        missing = NOISE_SIDE_PX - min(rows.stop - rows.start, columns.stop - columns.start)
        margin = max(-(-missing // 2), 0)
        top, left = max(rows.start - margin, 0), max(columns.start - margin, 0)
        around = self.flattened[top : rows.stop + margin, left : columns.stop + margin].copy()
        i, j = np.indices(around.shape)
        reach = self.footprint_px + 1.0
        middle = 0.5 * np.array([around.shape[1] - 1.0, around.shape[0] - 1.0]) + [left, top]
        near = tree.query_ball_point(middle, float(np.hypot(*around.shape)) / 2.0 + reach)
        for x, y in self.peaks.positions[near]:
            around[np.hypot(j + left - x, i + top - y) <= reach] = np.nan
        beside = scatter_about_plane(around)
        if not np.isfinite(beside):
            return mapped, mapped
        beside = max(beside, self.floor)
        return float(beside ** (1.0 - CLUTTER_SHARE) * mapped**CLUTTER_SHARE), beside

    def _peaks_inside(self, rows: slice, columns: slice) -> int:
        """Number of peaks in a window, those of other windows too."""
        x, y = self.peaks.x, self.peaks.y
        inside = (x >= columns.start - 0.5) & (x < columns.stop - 0.5) & (y >= rows.start - 0.5) & (y < rows.stop - 0.5)
        return max(int(inside.sum()), 1)

    def _at_most(self, count: int) -> ScenePrior:
        """The prior with a smaller largest count: a PSF that is only roughly known tells no more apart."""
        low, high = self.prior.count_range
        return replace(self.prior, count_range=(low, max(min(high, count), low)))

    def _unexplained(self, members: IntArray, found: Targets) -> IntArray:
        """Places in `members` of the peaks that a guessed PSF leaves without a target beside brighter ones.

        A window that is found empty is believed.
        """
        if not (self.guessed and len(found)):
            return np.empty(0, dtype=np.int64)
        apart = max(SEPARATE_PX, 3.0 * self.sigma_px)
        distance, _ = KDTree(np.stack([found.x, found.y], axis=1)).query(self.peaks.positions[members])
        return np.flatnonzero(distance > apart)

    def _own(self, found: Targets, members: IntArray, tree: KDTree) -> tuple[BoolArray, IntArray, BoolArray]:
        """Which fitted targets belong to the window's own peaks, to which (any own one for the others), and to none."""
        if not len(found):
            return np.empty(0, dtype=bool), np.empty(0, dtype=np.int64), np.empty(0, dtype=bool)
        distance, nearest = tree.query(np.stack([found.x, found.y], axis=1))
        near = np.asarray(distance <= self.footprint_px + 1.0)
        own = np.isin(nearest, members) & near
        return own, np.where(own, nearest, members[0]).astype(np.int64), ~near

    def _pixel_flags(self, members: IntArray) -> IntArray:
        """MASKED and SATURATED bits of each peak, by the pixels in its footprint."""
        return pixel_flags(self.pixels, self.peaks.positions[members], int(np.ceil(self.footprint_px)))

    def _as_peaks(self, members: IntArray, bits: IntArray) -> _Solved:
        """The peaks themselves, where point targets do not explain them: centroid and flux of their surroundings."""
        rows, columns = self._window(members)
        data = np.nan_to_num(self.flattened[rows, columns], nan=0.0)
        own = self.peaks[members]
        inside = Peaks(own.x - columns.start, own.y - rows.start, own.significance)
        sources = link(inside.positions, 0.0, ridges(inside, data, EXTENDED_PX))
        strongest = np.unique(sources, return_index=True)[1]
        peaks = keep_strongest(inside[np.sort(strongest)], max(SEPARATE_PX, 3.0 * self.sigma_px))
        grid = np.indices(data.shape)
        i, j = grid[0], grid[1]
        x, y, flux = peaks.x.copy(), peaks.y.copy(), np.zeros(len(peaks))
        nearest = KDTree(peaks.positions).query(np.stack([j.ravel(), i.ravel()], axis=1))[1].reshape(data.shape)
        for k, (column, row) in enumerate(np.rint(peaks.positions).astype(int)):
            mine = np.where(nearest == k, data, 0.0)
            footprint = np.hypot(j - column, i - row) <= self.footprint_px
            top = mine[footprint].max()
            bright = np.zeros(data.shape, dtype=np.int64)
            ndimage.label(mine > 0.5 * top, output=bright)
            label = bright[row, column]
            body = (bright == label) & (bright > 0) if label else footprint & (bright > 0)
            if top > 0.0 and body.any():
                weight = mine[body] - 0.5 * top
                x[k], y[k] = (weight * j[body]).sum() / weight.sum(), (weight * i[body]).sum() / weight.sum()
            flux[k] = mine[ndimage.binary_dilation(body, iterations=2) | footprint].sum()
        x, y = x + columns.start, y + rows.start
        flags = int(Flag.POOR_FIT) | int(np.bitwise_or.reduce(bits))
        z = peaks.significance
        targets = Targets(x=x, y=y, intensity=flux, score=z / (z + self.threshold), flags=np.full(len(peaks), flags))
        return _Solved(targets, np.empty(0), float("nan"), 0, Flag(flags), fitted=False)
