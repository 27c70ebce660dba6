"""Agreement of tracks with true paths: GOSPA and OSPA of each frame, identity switches, mAP of whole tracks, errors.

OSPA: Schuhmacher, Vo & Vo, A Consistent Metric for Performance Evaluation of Multi-Object Filters, IEEE TSP 2008.
GOSPA (alpha = 2): Rahmathullah, Garcia-Fernandez & Svensson, Generalized Optimal Sub-Pattern Assignment Metric, FUSION
2017, arXiv 1601.05585. Identity switches: Bernardin & Stiefelhagen, Evaluating Multiple Object Tracking Performance:
The CLEAR MOT Metrics, EURASIP JIVP 2008.

A sequence is a list with one `Targets` per frame. Their column `track` says which targets belong together, -1 for a
target without a track. Where no target has one, the first target of each frame is one track, the second another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

from csist._types import FloatArray, IntArray
from csist.checks import InputError, check_positive
from csist.metrics.functional import CSO_DISTANCES_PX, Matches, average_precision, check_pair, summarise
from csist.targets import Targets

CUTOFF_PX = 1.0
"""Distance from which a target counts as missed and a detection as spurious."""
ORDER = 2.0
STATE = ("x", "y", "vx", "vy", "intensity")


class Gospa(NamedTuple):
    """GOSPA of one frame and its parts: distance^p = localisation + cutoff^p / 2 (missed + spurious)."""

    distance_px: float
    localisation: float
    """Sum of the p-th powers of the distances of assigned pairs."""
    missed: int
    spurious: int


class MovingTarget(Protocol):
    """A track with a state, as in `csist.SequenceResult.tracks`."""

    @property
    def state(self) -> FloatArray:
        """x, y, vx, vy, intensity in the first frame."""
        ...

    @property
    def covariance(self) -> FloatArray:
        """(5, 5) of the state."""
        ...


@dataclass(frozen=True, eq=False)
class PathErrors:
    """Errors (estimate minus truth) of the states of paired tracks; n pairs.

    Args:
        sequence: (n,) sequence of each pair.
        track: (n,) place of the track in its sequence.
        truth: (n,) number of the true track.
        error: (n, 5) errors of x, y in px, vx, vy in px per unit of time and intensity in counts, in the first frame.
        std: (n, 5) standard errors stated by the tracks.
        missed: true tracks without a partner.
        spurious: tracks without a partner.
    """

    sequence: IntArray = field(repr=False)
    track: IntArray = field(repr=False)
    truth: IntArray = field(repr=False)
    error: FloatArray = field(repr=False)
    std: FloatArray = field(repr=False)
    missed: int
    spurious: int

    def __len__(self) -> int:
        return len(self.error)

    def coverage(self, widths: Sequence[float] = (1.0, 1.96)) -> dict[str, list[float]]:
        """Fraction of positions, velocities and intensities within so many stated standard errors, for each width."""
        relative = np.abs(self.error) / self.std
        parts = {"position": relative[:, :2], "velocity": relative[:, 2:4], "intensity": relative[:, 4]}
        return {
            name: [float((values <= width).mean()) if len(self) else float("nan") for width in widths]
            for name, values in parts.items()
        }


def gospa(found: Targets, truth: Targets, cutoff_px: float = CUTOFF_PX, order: float = ORDER) -> Gospa:
    """GOSPA of the targets of one frame, and its parts.

    Args:
        found: detections.
        truth: true targets.
        cutoff_px: distance from which a pair is a miss and a false detection.
        order: exponent p.

    Raises:
        InputError: if the cutoff is not positive or the order is below 1.

    >>> found = Targets(x=[5.0, 9.0], y=[5.0, 9.0], intensity=[1.0, 1.0])
    >>> result = gospa(found, Targets(x=[5.3], y=[5.0], intensity=[1.0]), cutoff_px=2.0)
    >>> round(result.distance_px, 4), round(result.localisation, 4), result.missed, result.spurious
    (1.4457, 0.09, 0, 1)
    """
    pairs = _assigned(found, truth, cutoff_px, order)
    localisation = float((pairs.distance_px**order).sum())
    missed, spurious = len(truth) - len(pairs.found), len(found) - len(pairs.found)
    total = localisation + 0.5 * cutoff_px**order * (missed + spurious)
    return Gospa(total ** (1.0 / order), localisation, missed, spurious)


def ospa(found: Targets, truth: Targets, cutoff_px: float = CUTOFF_PX, order: float = ORDER) -> float:
    """OSPA of the targets of one frame in px, 0 to `cutoff_px`; 0 where both are empty.

    Args:
        found: detections.
        truth: true targets.
        cutoff_px: largest distance of a pair, and the cost of a target too many or too few.
        order: exponent p.

    Raises:
        InputError: if the cutoff is not positive or the order is below 1.

    >>> one = Targets(x=[5.0], y=[5.0], intensity=[1.0])
    >>> round(ospa(one.shifted(0.3, 0.4), one), 6), ospa(Targets.empty(), one)
    (0.5, 1.0)
    """
    pairs = _assigned(found, truth, cutoff_px, order)
    most = max(len(found), len(truth))
    if not most:
        return 0.0
    total = float((pairs.distance_px**order).sum()) + cutoff_px**order * (most - len(pairs.found))
    return float((total / most) ** (1.0 / order))


def identity_switches(found: Sequence[Targets], truth: Sequence[Targets], max_distance_px: float = CUTOFF_PX) -> int:
    """How often a true track passes from one found track to another.

    In each frame a pair of the frame before stays a pair while it is within the distance; the others are paired by the
    least total squared distance.

    Args:
        found: one sequence, one `Targets` per frame.
        truth: likewise.
        max_distance_px: largest distance of a pair.

    Raises:
        InputError: if the sequences differ in length or the distance is not positive.

    >>> pair = Targets(x=[1.0, 5.0], y=[1.0, 1.0], intensity=[9, 9], track=[0, 1])
    >>> identity_switches([pair, pair, pair.replace(track=[1, 0])], [pair] * 3)
    2
    """
    check_pair(found, truth)
    check_positive("max_distance_px", max_distance_px)
    last: dict[int, int] = {}
    switches = 0
    numbers = zip(_track_numbers(found), _track_numbers(truth), strict=True)
    for one, other, (found_tracks, true_tracks) in zip(found, truth, numbers, strict=True):
        apart = np.hypot(one.x[:, None] - other.x, one.y[:, None] - other.y)
        # A pair that stays costs less than any new one.
        cost = np.where(apart <= max_distance_px, 1.0 + (apart / max_distance_px) ** 2, 1e6)
        for i, j in zip(*np.nonzero(apart <= max_distance_px), strict=True):
            if last.get(int(true_tracks[j])) == found_tracks[i]:
                cost[i, j] = 0.0
        cost[found_tracks < 0], cost[:, true_tracks < 0] = 1e6, 1e6
        for i, j in zip(*linear_sum_assignment(cost), strict=True):
            if cost[i, j] < 1e6:
                number, own = int(true_tracks[j]), int(found_tracks[i])
                switches += last.get(number, own) != own
                last[number] = own
    return switches


def track_map(
    found: Sequence[Sequence[Targets]], truths: Sequence[Sequence[Targets]], cutoff_px: float = CUTOFF_PX
) -> dict[str, float]:
    """CSO-mAP of whole tracks in percent, keys as in `cso_map`.

    The distance of two tracks is the root of the mean squared distance over all frames in which one of them exists; a
    frame in which the other does not exist counts as `cutoff_px`, which is also the largest distance in a frame. Tracks
    are ranked by the mean score of their targets.

    Args:
        found: sequences, each a list with one `Targets` per frame.
        truths: likewise.
        cutoff_px: distance in px of a frame in which only one of the two exists.

    Raises:
        InputError: if numbers of sequences or frames differ, or the cutoff is not positive.

    >>> path = [Targets(x=[1.0 + t], y=[1.0], intensity=[9], score=[0.9]) for t in range(4)]
    >>> round(track_map([[each.shifted(0.0, 0.12) for each in path]], [path])["CSO-mAP"], 3)
    60.0
    """
    check_positive("cutoff_px", cutoff_px)
    if len(found) != len(truths):
        raise InputError(f"found and truths must be equally long, got {len(found)} and {len(truths)} sequences")
    image: list[int] = []
    nearest: list[int] = []
    distance: list[float] = []
    key: list[float] = []
    counts: list[int] = []
    for n, (one, other) in enumerate(zip(found, truths, strict=True)):
        check_pair(one, other)
        _, own, score = _paths(one)
        _, true, _ = _paths(other)
        apart = _path_distances(own, true, cutoff_px)
        image += [n] * len(own)
        key += score
        nearest += (apart.argmin(axis=1) + sum(counts)).tolist() if len(true) else [-1] * len(own)
        distance += apart.min(axis=1).tolist() if len(true) else [np.inf] * len(own)
        counts.append(len(true))
    matches = Matches(
        np.array(image, np.int64), np.array(nearest, np.int64), np.array(distance), np.array(key),
        np.array(counts, np.int64),
    )  # fmt: skip
    return summarise([average_precision(matches, distance_px) for distance_px in CSO_DISTANCES_PX])


def track_summary(
    found: Sequence[Targets], truth: Sequence[Targets], cutoff_px: float = CUTOFF_PX, order: float = ORDER
) -> dict[str, float]:
    """Metrics of one sequence.

    Args:
        found: one `Targets` per frame.
        truth: likewise.
        cutoff_px: cutoff of GOSPA and OSPA, and largest distance of a pair for identity switches.
        order: exponent p of GOSPA and OSPA.

    Returns:
        means over frames of `gospa_px` and `ospa_px`; sums of `missed`, `spurious` and `identity_switches`; numbers of
        `found_tracks` and `true_tracks`; `distance_rms_px` of the assigned pairs, NaN without any.

    Raises:
        InputError: if the sequences differ in length or hold no frame.
    """
    check_pair(found, truth)
    if not found:
        raise InputError("a summary of tracks needs at least one frame, got none")
    parts = [gospa(one, other, cutoff_px, order) for one, other in zip(found, truth, strict=True)]
    pairs = [_assigned(one, other, cutoff_px, order) for one, other in zip(found, truth, strict=True)]
    squares = np.concatenate([each.distance_px**2 for each in pairs])
    return {
        "gospa_px": float(np.mean([part.distance_px for part in parts])),
        "ospa_px": float(
            np.mean([ospa(one, other, cutoff_px, order) for one, other in zip(found, truth, strict=True)])
        ),
        "missed": sum(part.missed for part in parts),
        "spurious": sum(part.spurious for part in parts),
        "identity_switches": identity_switches(found, truth, cutoff_px),
        "found_tracks": len(_paths(found)[0]),
        "true_tracks": len(_paths(truth)[0]),
        "distance_rms_px": float(np.sqrt(squares.mean())) if len(squares) else float("nan"),
    }


def path_errors(
    tracks: Sequence[Sequence[MovingTarget]],
    truths: Sequence[Sequence[Targets]],
    times: ArrayLike | None = None,
) -> PathErrors:
    """Errors of the states of tracks that last over whole sequences, against true straight paths.

    Tracks and true paths are paired by the least total squared distance over the sequence. The true velocity and start
    are those of the straight line through a target's true positions, the true intensity is the mean.

    Args:
        tracks: of each sequence; states hold in its first frame.
        truths: true targets of each sequence, one `Targets` per frame.
        times: (T,) times of the frames since the first, in the unit of the velocities; None for 0, 1, 2, ...

    Raises:
        InputError: if the numbers of sequences differ, or a true track does not last over its whole sequence.

    >>> from types import SimpleNamespace
    >>> path = [Targets(x=[1.0 + 0.1 * t], y=[1.0], intensity=[9.0]) for t in range(4)]
    >>> track = SimpleNamespace(state=np.array([1.0, 1.0, 0.12, 0.0, 9.0]), covariance=np.eye(5))
    >>> round(float(path_errors([[track]], [path]).error[0, 2]), 3)
    0.02
    """
    if len(tracks) != len(truths):
        raise InputError(f"tracks and truths must be equally long, got {len(tracks)} and {len(truths)} sequences")
    rows: list[tuple[int, int, int]] = []
    errors, stds, missed, spurious = [], [], 0, 0
    for n, (own, truth) in enumerate(zip(tracks, truths, strict=True)):
        time = np.arange(len(truth), dtype=np.float64) if times is None else np.asarray(times, dtype=np.float64)
        numbers, states = _true_states(truth, time)
        state = np.array([track.state for track in own]).reshape(-1, 5)
        i, j = linear_sum_assignment(_line_distances(state, states, time))
        rows += [(n, int(a), int(numbers[b])) for a, b in zip(i, j, strict=True)]
        errors.append(state[i] - states[j])
        stds += [np.sqrt(np.diag(own[int(a)].covariance)) for a in i]
        missed, spurious = missed + len(states) - len(j), spurious + len(own) - len(i)
    sequence, track, number = np.array(rows, np.int64).reshape(-1, 3).T
    error = np.concatenate(errors) if errors else np.zeros((0, 5))
    return PathErrors(sequence, track, number, error, np.array(stds).reshape(-1, 5), missed, spurious)


class _Pairs(NamedTuple):
    """Assigned pairs of one frame."""

    found: IntArray
    truth: IntArray
    distance_px: FloatArray


def _assigned(found: Targets, truth: Targets, cutoff_px: float, order: float) -> _Pairs:
    """Pairs with the least sum of distances^p, each at most `cutoff_px`^p; pairs at the cutoff are left out."""
    check_positive("cutoff_px", cutoff_px)
    if not order >= 1.0:
        raise InputError(f"order must be at least 1, got {order:g}")
    apart = np.minimum(np.hypot(found.x[:, None] - truth.x, found.y[:, None] - truth.y), cutoff_px)
    i, j = linear_sum_assignment(apart**order)
    near = apart[i, j] < cutoff_px
    return _Pairs(i[near], j[near], apart[i, j][near])


def _track_numbers(frames: Sequence[Targets]) -> list[IntArray]:
    """Numbers of the tracks of the targets of each frame, or places in the frame where no target has a track."""
    if any((each.track >= 0).any() for each in frames):
        return [each.track for each in frames]
    return [np.arange(len(each)) for each in frames]


def _paths(frames: Sequence[Targets]) -> tuple[list[int], FloatArray, list[float]]:
    """Numbers of the tracks of a sequence, their positions (n, T, 2), NaN where they do not exist, and mean scores."""
    numbers = _track_numbers(frames)
    tracks = sorted({int(each) for part in numbers for each in part if each >= 0})
    place, score = np.full((len(tracks), len(frames), 2), np.nan), np.full((len(tracks), len(frames)), np.nan)
    row = {track: n for n, track in enumerate(tracks)}
    for t, (targets, part) in enumerate(zip(frames, numbers, strict=True)):
        for k, track in enumerate(part):
            if track >= 0:
                place[row[int(track)], t] = targets.x[k], targets.y[k]
                score[row[int(track)], t] = targets.score[k]
    stated = np.isfinite(score)
    mean = np.where(stated, score, 0.0).sum(axis=1) / np.maximum(stated.sum(axis=1), 1)
    return tracks, place, np.where(stated.any(axis=1), mean, np.nan).tolist()


def _path_distances(found: FloatArray, truth: FloatArray, cutoff_px: float) -> FloatArray:
    """Distances (n, m) in px between paths (n, T, 2) and (m, T, 2), as `track_map` defines them."""
    apart = np.hypot(*np.moveaxis(found[:, None] - truth[None], -1, 0))  # (n, m, T)
    exists = np.isfinite(found[..., 0])[:, None], np.isfinite(truth[..., 0])[None]
    either = exists[0] | exists[1]
    square = np.where(exists[0] & exists[1], np.minimum(np.nan_to_num(apart, nan=cutoff_px), cutoff_px), cutoff_px) ** 2
    return np.asarray(np.sqrt((square * either).sum(axis=-1) / np.maximum(either.sum(axis=-1), 1)))


def _true_states(frames: Sequence[Targets], time: FloatArray) -> tuple[list[int], FloatArray]:
    """Numbers and states (n, 5) of the straight lines through the true paths of a sequence."""
    numbers, place, _ = _paths(frames)
    if np.isnan(place).any():
        raise InputError("a true track is missing in some frames: cut the sequence to frames in which all exist")
    flux = np.zeros(len(numbers))
    for targets, part in zip(frames, _track_numbers(frames), strict=True):
        flux += targets.intensity[np.argsort(part, kind="stable")] / len(frames)
    functions = np.stack([np.ones_like(time), time - time[0]])[: 1 if len(time) == 1 else 2]
    line = np.einsum("ntc,tf->nfc", place, np.linalg.pinv(functions))
    states = np.zeros((len(numbers), 5))
    states[:, :2], states[:, 4] = line[:, 0], flux
    if len(functions) > 1:
        states[:, 2:4] = line[:, 1]
    return numbers, states


def _line_distances(found: FloatArray, truth: FloatArray, time: FloatArray) -> FloatArray:
    """Mean squared distances (n, m) over time of straight paths with states (n, 5) and (m, 5)."""
    since = (time - time[0])[:, None]
    one, other = ((state[:, None, :2] + since * state[:, None, 2:4]) for state in (found, truth))
    return np.asarray(((one[:, None] - other[None]) ** 2).sum(axis=-1).mean(axis=-1))
