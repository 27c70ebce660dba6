"""From the peaks of a frame to its targets.

Peaks whose PSF footprints overlap form a blob. Each blob gets a window with a margin, a blob too large for one window
several of them; every window is unmixed on its own (`csist.frames.blobs.windows`). A fitted target belongs to the peak
next to it, and a window reports the targets of its own peaks only, so nothing is counted twice. The targets of a window
are subtracted from the later windows of its blob. A target that is found where detection saw no peak, as significant as
one, becomes a peak, and the blobs around it are unmixed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree

from csist._types import FloatArray, IntArray
from csist.frames.blobs.extended import EXTENDED_PX
from csist.frames.blobs.sources import Settled, SourceSolver
from csist.frames.blobs.windows import SolvedWindow, WindowSolver
from csist.frames.blobs.wings import wing_pairs
from csist.frames.detection.peaks import Peaks, keep_strongest
from csist.frames.grouping import link, ridges, split
from csist.frames.groups import FrameGroup, ambiguity
from csist.targets import Flag, Targets

Progress = Callable[[int, int], None]
"""Called with (blobs done, blobs in all); an exception of its own ends the work."""

LARGEST_WINDOW_PX = 24
MOST_PEAKS = 4
"""Peaks a window may have of its own; each may turn out to be several targets, and neighbours are fitted too."""
MOST_ROUNDS = 4
"""Times that targets without a peak become peaks: each can show the next one, whose light it hid."""
UNSEEN_SIGMAS = 2.0
"""Least distance of two new peaks, in the PSF's sigma."""


class SolvedBlob(NamedTuple):
    """Targets and group of a blob, and its targets without a peak, as peaks."""

    targets: Targets
    group: FrameGroup
    unseen: list[Peaks]


@dataclass(frozen=True, eq=False)
class BlobSolver:
    """Unmixes all blobs of a frame.

    Args:
        windows: unmixes their windows.
        workers: threads.
        progress: called with the number of blobs done.
    """

    windows: WindowSolver
    workers: int = 1
    progress: Progress | None = None

    def solve(self) -> tuple[Targets, list[FrameGroup]]:
        """Targets and groups of all blobs, the most significant blob first.

        A target that a window finds where no peak is becomes a peak, and the blobs around it are unmixed again.
        """
        if not len(self.windows.peaks):
            return Targets.empty(), []
        solver, blobs = self, self._blobs()
        solved = self._solve_blobs(blobs)
        for _ in range(MOST_ROUNDS):
            unseen = solver._new_peaks(solved)
            if not len(unseen):
                break
            solver, blobs, solved = solver._solve_again(blobs, solved, unseen)
        return (
            Targets.concatenate(
                blob.targets.replace(
                    group=np.full(len(blob.targets), number),
                    flags=blob.targets.flags | int(blob.group.flags & Flag.AMBIGUOUS_COUNT),
                )
                for number, blob in enumerate(solved)
            ),
            [replace(blob.group, number=number) for number, blob in enumerate(solved)],
        )

    def _blobs(self) -> list[IntArray]:
        """Members of each blob, the blob with the most significant peak first."""
        peaks = self.windows.peaks
        extended = ridges(peaks.positions, self.windows.frame.filled, EXTENDED_PX)
        together = np.concatenate([extended, wing_pairs(peaks, self.windows.psf)])
        labels = link(peaks.positions, 2.0 * self.windows.psf.footprint_px, together)
        # Peaks are sorted, so the first member of a blob is its strongest.
        _, first, labels = np.unique(labels, return_index=True, return_inverse=True)
        return [np.flatnonzero(labels == label) for label in np.argsort(first)]

    def _new_peaks(self, solved: list[SolvedBlob]) -> Peaks:
        """The targets of blobs that no peak is next to, as peaks."""
        none = self.windows.peaks[:0]
        unseen = none.merged(*(peaks for blob in solved for peaks in blob.unseen))
        return keep_strongest(unseen, UNSEEN_SIGMAS * self.windows.psf.sigma_px)

    def _solve_again(
        self, blobs: list[IntArray], solved: list[SolvedBlob], unseen: Peaks
    ) -> tuple[BlobSolver, list[IntArray], list[SolvedBlob]]:
        """The solver with further peaks, and all blobs; those far from the new peaks keep their answers."""
        peaks = self.windows.peaks
        distance, _ = KDTree(unseen.positions).query(peaks.positions)
        far = np.asarray(distance > 2.0 * LARGEST_WINDOW_PX)
        known = {
            peaks.positions[members].tobytes(): blob._replace(unseen=[])
            for members, blob in zip(blobs, solved, strict=True)
            if far[members].all()
        }
        merged = peaks.merged(unseen)
        whole = replace(self, windows=replace(self.windows, peaks=merged))
        blobs = whole._blobs()
        keys = [merged.positions[members].tobytes() for members in blobs]
        new = iter(whole._solve_blobs([blob for blob, key in zip(blobs, keys, strict=True) if key not in known]))
        return whole, blobs, [known.get(key) or next(new) for key in keys]

    def _solve_blobs(self, blobs: list[IntArray]) -> list[SolvedBlob]:
        if self.workers == 1:
            return self._collected(map(self._solve_blob, blobs), len(blobs))
        with ThreadPoolExecutor(self.workers) as pool:
            solved = pool.map(self._solve_blob, blobs)
            with closing(solved):  # type: ignore[type-var]  # a generator: closing it cancels what has not begun
                return self._collected(solved, len(blobs))

    def _collected(self, solved: Iterable[SolvedBlob], number: int) -> list[SolvedBlob]:
        """The blobs as they come, announced one by one."""
        results = []
        for result in solved:
            results.append(result)
            if self.progress is not None:
                self.progress(len(results), number)
        return results

    def _solve_blob(self, members: IntArray) -> SolvedBlob:
        """One blob, in one or several windows."""
        psf, positions = self.windows.psf, self.windows.peaks.positions
        extent = max(LARGEST_WINDOW_PX - 2.0 * psf.least_margin_px - 1.0, 2.0 * psf.footprint_px)
        parts = [np.sort(part) for part in split(positions, members, MOST_PEAKS, extent)]
        parts.sort(key=lambda part: int(part[0]))  # strongest first
        fitted: list[SolvedWindow] = []
        unfitted: list[IntArray] = [members[:0]]
        for part in parts:
            result = self.windows.solve(part, [window.targets for window in fitted])
            if result is None:
                unfitted.append(part)
            else:
                fitted.append(result)
        settled = Settled(fitted, np.sort(np.concatenate(unfitted)))
        if self.windows.options.extended:
            settled = SourceSolver(self.windows).settle(members, fitted, settled.unfitted)
        if settled.unfitted.size:
            # Together, so that an extended source in several windows is one target.
            settled = replace(settled, solved=[*settled.solved, self.windows.as_peaks(settled.unfitted)])
        points = np.empty(0) if len(unfitted) > 1 else _count_probability(fitted)
        targets = Targets.concatenate(window.targets for window in settled.solved)
        unseen = [window.unseen for window in settled.solved if window.unseen is not None]
        return SolvedBlob(targets, self._group(members, parts, settled, points), unseen)

    def _group(self, members: IntArray, parts: list[IntArray], settled: Settled, points: FloatArray) -> FrameGroup:
        """What is reported of a blob.

        Args:
            members: (m,) its peaks.
            parts: the peaks of each of its windows.
            settled: what they are.
            points: (n,) probability of 0, 1, 2, ... targets if all of them are points; empty if they are not.
        """
        solved = settled.solved
        windows = [self.windows.around(part) for part in parts]
        top, left = min(rows.start for rows, _ in windows), min(columns.start for _, columns in windows)
        bottom, right = max(rows.stop for rows, _ in windows), max(columns.stop for _, columns in windows)
        fitted = [window for window in solved if window.fitted]
        flags = Flag(0)
        for window in solved:
            flags |= window.flags
        count = sum(len(window.targets) for window in solved)
        probability = _with_sources(points, settled)
        if not settled.sources:
            flags |= ambiguity(probability, count)
        return FrameGroup(
            number=0,
            column=int(left),
            row=int(top),
            shape=(int(bottom - top), int(right - left)),
            peaks=len(members),
            windows=len(fitted),
            significance=float(self.windows.peaks.significance[members].max()),
            count=count,
            count_probability=probability,
            chi_squared=float(sum(window.chi_squared for window in fitted)) if fitted else float("nan"),
            degrees_of_freedom=sum(window.degrees_of_freedom for window in fitted),
            flags=flags,
            samples=tuple(cloud for window in fitted for cloud in window.samples),
            sources=settled.sources,
            extended_probability=settled.extended,
            streak_probability=settled.streak,
        )


def _with_sources(points: FloatArray, settled: Settled) -> FloatArray:
    """Probability (n,) of 0, 1, 2, ... point targets, where the blob may be something else."""
    if not points.size:
        return points
    probability = max(1.0 - settled.extended - settled.streak - settled.blurred, 0.0) * points
    probability[1:2] += settled.blurred
    return probability


def _count_probability(solved: list[SolvedWindow]) -> FloatArray:
    """Probability (n,) of 0, 1, 2, ... targets in all windows together."""
    probability = np.ones(1)
    for window in solved:
        probability = np.convolve(probability, window.probability)
    return probability
