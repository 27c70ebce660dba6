"""Groups of whole frames, followed from frame to frame, and the windows that go with them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from csist._types import BoolArray, FloatArray, IntArray
from csist.frames.result import WIDE, add_light
from csist.physics.psf import PSF, spread_px
from csist.sequences.motion import degree_of
from csist.sequences.result import Outline, outline_of
from csist.sequences.shake import Middles, middle_error
from csist.sequences.shots import Shot
from csist.targets import Targets
from csist.tracks.link import LEAST_LENGTH, Linker, is_confirmed
from csist.tracks.middles import group_middles
from csist.tracks.smooth import mean_score
from csist.windows import WINDOW_SIDE_PX

REACH_SPREADS = 3.0
"""Pixels on each side of a group's targets in a window, in spreads of the PSF."""
LEAST_HALF, MOST_HALF = 4, (WINDOW_SIDE_PX - 1) // 2
OFF_PATH_PX = 0.5
"""Root mean square distance of a group from its fitted path, beyond which it does not move as the motion says."""
BEFORE = 3
"""Frames before the first and after the last in which a group was seen, in which its light is looked for."""


class Chain(NamedTuple):
    """A group in some frames.

    Args:
        frame: (n,) numbers of the frames.
        middle: (n, 2) x, y of its light.
        extent_px: largest distance of one of its targets, or of the edge of an extended one, from the middle.
        group: (n,) its number in each of them.
        flagged: (n,) whether point targets do not explain it in a frame.
    """

    frame: IntArray
    middle: FloatArray
    extent_px: float
    group: IntArray
    flagged: IntArray

    @property
    def is_wide(self) -> bool:
        """Whether point targets do not explain it in more than half of its frames."""
        return bool(2 * self.flagged.sum() > len(self.flagged))

    def usual_count(self, shots: Sequence[Shot]) -> int:
        """Number of its targets in most single frames."""
        return int(np.bincount([len(targets) for targets in self.targets(shots)]).argmax())

    def is_unsteady(self, shots: Sequence[Shot]) -> bool:
        """Whether its targets cannot be followed: their number in single frames changes too often.

        It is another than the usual one in more than a quarter of the frames, or sometimes larger than a usual one.
        """
        frames_with = np.bincount([len(targets) for targets in self.targets(shots)])
        usual = self.usual_count(shots)
        return bool(4 * frames_with[usual] < 3 * frames_with.sum() or len(frames_with) - 1 > usual == 1)

    def gaps(self, frames: int) -> BoolArray:
        """Frames (T,) of a sequence in which it is not seen, between the first and the last in which it is."""
        between = np.zeros(frames, np.bool_)
        between[self.frame[0] : self.frame[-1]] = True
        between[self.frame] = False
        return between

    def score(self, shots: Sequence[Shot]) -> float:
        """Probability that it is no clutter, from the highest score of its targets in each of its frames."""
        return mean_score(np.array([np.nan_to_num(own.score, nan=1.0).max() for own in self.targets(shots)]))

    def part(self, frames: int) -> slice:
        """Frames of a sequence of so many in which the group may be."""
        return slice(max(int(self.frame[0]) - BEFORE, 0), min(int(self.frame[-1]) + 1 + BEFORE, frames))

    def half_px(self, psf: PSF) -> int:
        """Pixels on each side of the middle that a window needs; more than `MOST_HALF` if the group is too large."""
        return max(LEAST_HALF, math.ceil(self.extent_px + REACH_SPREADS * spread_px(psf) + 0.5))

    def outline(self, shots: Sequence[Shot]) -> Outline | None:
        """Its size and direction, of the frames in which it is an extended source or a streak; None without any."""
        seen = zip(self.frame.tolist(), self.group.tolist(), strict=True)
        sources = [shots[t].sources[number] for t, number in seen if number in shots[t].sources]
        return outline_of(sources) if sources else None

    def targets(self, shots: Sequence[Shot]) -> Iterator[Targets]:
        """Its targets of the single frames, in each of its frames."""
        for t, number in zip(self.frame.tolist(), self.group.tolist(), strict=True):
            yield shots[t].targets[shots[t].targets.group == number]


class Course(NamedTuple):
    """Where the middle of a group is.

    Args:
        place: (T, 2) x, y in every frame.
        speed: the largest, in px per unit of time.
    """

    place: FloatArray
    speed: float


class Cutout(NamedTuple):
    """Windows that follow a group, without the light of the other groups.

    Args:
        corner: (T, 2) row and column of each window's first pixel.
        data: (T, side, side) in counts.
        weight: (T, side, side) inverse variances.
    """

    corner: IntArray
    data: FloatArray
    weight: FloatArray


def chains_of(shots: Sequence[Shot]) -> list[Chain]:
    """Groups that are seen in enough frames to be confirmed, or in both of two."""
    linker, least = Linker(), min(LEAST_LENGTH, max(len(shots), 2))
    seen: dict[int, list[tuple[int, int, float, float, float, int]]] = {}
    for t, shot in enumerate(shots):
        middles = group_middles(shot.targets)
        found = linker.update(t, middles)
        for track, number, x, y in zip(found.tolist(), middles.group.tolist(), middles.x, middles.y, strict=True):
            own = shot.targets[shot.targets.group == number]
            source = shot.sources.get(number)
            extent = max(float(np.hypot(own.x - x, own.y - y).max()), 0.5 * source.long_px if source else 0.0)
            row = (t, number, float(x), float(y), extent, int(number in shot.flagged))
            seen.setdefault(track, []).append(row)
    chains = []
    for links in seen.values():
        frames, groups, x, y, extents, flagged = (np.array(each) for each in zip(*links, strict=True))
        if is_confirmed(frames, least):
            place = np.stack([x, y], axis=1)
            chains.append(Chain(frames, place, float(np.quantile(extents, 0.9)), groups, flagged))
    return chains


def merged_frames(chains: Sequence[Chain], frames: int, psf: PSF) -> list[BoolArray]:
    """Frames (T,) in which each group may be one blob with another: what is seen of one holds the light of both.

    Two groups of which one is in the window of the other are apart only if both are seen.

    Args:
        chains: the groups.
        frames: T.
        psf: of the frames.
    """
    number = np.arange(frames)
    place = np.array([[np.interp(number, each.frame, each.middle[:, axis]) for axis in (0, 1)] for each in chains])
    there, seen = np.zeros((2, len(chains), frames), np.bool_)
    for k, each in enumerate(chains):
        there[k, each.part(frames)], seen[k, each.frame] = True, True
    merged = []
    for k, each in enumerate(chains):
        near = np.abs(place - place[k]).max(axis=1) <= each.half_px(psf)
        near[k] = False
        merged.append((near & there & ~(seen & seen[k])).any(axis=0))
    return merged


def course_of(chain: Chain, since: FloatArray, motion: str, shift: FloatArray) -> Course | None:
    """Where the middle of a group is in every frame, were the camera still; None where it does not follow the motion.

    Args:
        chain: the group.
        since: (T,) times of the frames in which it may be.
        motion: one of `csist.sequences.motion.MOTIONS`.
        shift: (T, 2) x, y in px by which the camera shifts each frame.
    """
    seen = chain.frame
    middle, degree = chain.middle - shift[seen], degree_of(motion, len(seen))
    powers = since[:, None] ** np.arange(degree + 1)
    fitted = np.linalg.lstsq(powers[seen], middle, rcond=None)[0]
    rest = middle - powers[seen] @ fitted
    near = np.hypot(*rest.T) <= 3.0 * max(float(np.median(np.hypot(*rest.T))), 0.1)
    if near.sum() > degree + 1:
        fitted = np.linalg.lstsq(powers[seen[near]], middle[near], rcond=None)[0]
        rest = middle[near] - powers[seen[near]] @ fitted
    if float(np.sqrt((rest**2).sum(axis=1).mean())) > OFF_PATH_PX * math.sqrt(2.0):
        return None
    speed = np.hypot(*(np.diff(powers @ fitted, axis=0) / np.diff(since)[:, None]).T)
    return Course(powers @ fitted, float(speed.max()))


def middles_of(chains: Sequence[Chain], shots: Sequence[Shot], psf: PSF, motion: str) -> Middles:
    """Where the middles of groups are seen; one that point targets do not explain has no say.

    Args:
        chains: the groups.
        shots: the frames.
        psf: of the frames.
        motion: one of `csist.sequences.motion.MOTIONS`.
    """
    place, error = np.zeros((len(chains), len(shots), 2)), np.full((len(chains), len(shots)), np.inf)
    # In frames without any value no group is seen.
    noise_std = [
        1.0 / math.sqrt(float(np.median(shot.weight[shot.weight > 0.0]))) if shot.weight.any() else math.inf
        for shot in shots
    ]
    for k, chain in enumerate(chains):
        if chain.is_wide:
            continue
        place[k, chain.frame] = chain.middle
        for t, targets in zip(chain.frame.tolist(), chain.targets(shots), strict=True):
            error[k, t] = middle_error(float(targets.intensity.sum()), noise_std[t], psf, shots[t].gain)
    return Middles(place, error, np.array([degree_of(motion, len(chain.frame)) for chain in chains], np.int64))


def cut_out(shots: Sequence[Shot], chain: Chain, place: FloatArray, half: int, psf: PSF, left_out: BoolArray) -> Cutout:
    """The windows that follow a group.

    Args:
        shots: the frames in which the group may be.
        chain: the group; its frames count from the first of these.
        place: (T, 2) x, y of its middle.
        half: pixels on each side of it.
        psf: of the other groups.
        left_out: (T,) frames whose windows stay empty.
    """
    side, corner = 2 * half + 1, np.rint(place[:, ::-1]).astype(np.int64) - half
    numbers = dict(zip(chain.frame.tolist(), chain.group.tolist(), strict=True))
    data, weight, photons = np.zeros((3, len(shots), side, side))
    inverse_gain = np.array([0.0 if shot.gain is None else 1.0 / shot.gain for shot in shots])
    own_light: list[FloatArray] = []
    for t, (shot, (top, left)) in enumerate(zip(shots, corner.tolist(), strict=True)):
        rows, columns = (
            slice(max(first, 0), max(min(first + side, size), 0))
            for first, size in zip((top, left), shot.data.shape, strict=True)
        )
        if left_out[t] or rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        own = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
        data[t][own], weight[t][own] = shot.data[rows, columns], shot.weight[rows, columns]
        if t in numbers:
            is_own, moved = shot.targets.group == numbers[t], shot.targets.shifted(-left, -top)
            photons[t] = _light_of(moved[~is_own], side, psf)
            data[t] -= np.where(weight[t] > 0.0, photons[t], 0.0)
            own_light.append(_light_of(moved[is_own], side, psf))
    # The mean over the frames: weights that followed the noise of each would make fluxes too low.
    photons += np.mean(own_light, axis=0) if own_light else 0.0
    weight /= 1.0 + weight * np.maximum(photons, 0.0) * inverse_gain[:, None, None]
    return Cutout(corner, data, _weight_of_wrong_psf(data, weight, np.array([shot.psf_error for shot in shots])))


def _light_of(targets: Targets, side: int, psf: PSF) -> FloatArray:
    """Light (side, side) in counts of the point targets that reach a window."""
    light, reach = np.zeros((side, side)), side + math.ceil(psf.reach_px)
    distance = np.maximum(np.abs(targets.x - side / 2), np.abs(targets.y - side / 2))
    near = targets[(targets.flags & WIDE == 0) & (distance < reach)]
    if len(near):
        add_light(light, near, psf)
    return light


def _weight_of_wrong_psf(data: FloatArray, weight: FloatArray, error: FloatArray) -> FloatArray:
    """Weights (T, side, side) that allow for an error of the PSF.

    The error is nearly the same in all frames and does not average out, so that its variance counts once for each of
    them. The light is the mean over the frames: weights that followed the noise of each would make fluxes too low.

    Args:
        data: (T, side, side) in counts.
        weight: (T, side, side) inverse variances.
        error: (T,) as a share of the light in the brightest pixel.
    """
    seen = weight > 0.0
    frames = seen.sum(axis=0)
    light = np.maximum(np.where(seen, data, 0.0).sum(axis=0) / np.maximum(frames, 1), 0.0)
    variance = (error**2 * seen.any(axis=(1, 2)).sum())[:, None, None] * light.max() * light
    return np.where(seen, weight / (1.0 + weight * variance), 0.0)
