"""Linking of detections in consecutive frames into tracks, with a constant-velocity model and global assignment.

Each track predicts its next position from its last position and velocity. Within a gate, detections are assigned to
tracks so that the sum of squared distances is minimal (Hungarian method; Kuhn 1955, Bourgeois & Lassalle 1971).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from csist._types import FloatArray, IntArray
from csist.checks import check_positive
from csist.targets import Targets

GATE_PX = 6.0
PATIENCE, MOST_PATIENCE = 3, 10
"""Frames that a new track, and that one of many detections may miss."""
LEAST_LENGTH, CONFIRMED_WITHIN = 3, 5
"""A reported track has so many detections within so many frames in a row (Blackman & Popoli, Design and Analysis of
Modern Tracking Systems, 1999, chapter 6): detections that come and go on clutter do not."""
VELOCITY_MEMORY = 0.5
"""Weight of the old velocity in the updated one."""


def patience_of(detections: ArrayLike, least: int = PATIENCE) -> IntArray:
    """Frames that a track may miss: as many as it has detections, in bounds.

    Args:
        detections: of each track.
        least: of a new one.

    >>> patience_of([1, 7, 100]).tolist()
    [3, 7, 10]
    """
    return np.maximum(least, np.minimum(np.asarray(detections, dtype=np.int64), MOST_PATIENCE))


def is_confirmed(frames: ArrayLike, least: int = LEAST_LENGTH) -> bool:
    """Whether a track has enough detections, close to each other.

    Args:
        frames: (n,) numbers of the frames with a detection, increasing.
        least: number of detections within `CONFIRMED_WITHIN` frames.

    >>> is_confirmed([0, 4, 5, 8]), is_confirmed([0, 4, 8, 12])
    (True, False)
    """
    numbers = np.asarray(frames)
    return bool((numbers[least - 1 :] - numbers[: len(numbers) - least + 1] < CONFIRMED_WITHIN).any())


@dataclass
class Linker:
    """Assigns track numbers to detections, frame by frame.

    Args:
        gate_px: largest distance in px of a detection from the predicted position of its track.
        patience: number of frames that a new track may miss before it ends; see `patience_of` for longer ones.

    Raises:
        InputError: if the gate is not positive.

    >>> linker = Linker()
    >>> [linker.update(k, Targets(x=[2.0 * k, 50.0], y=[1.0, 9.0], intensity=[1.0, 1.0])).tolist() for k in range(3)]
    [[0, 1], [0, 1], [0, 1]]
    """

    gate_px: float = GATE_PX
    patience: int = PATIENCE
    started: int = 0
    _number: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    _frame: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    _place: FloatArray = field(default_factory=lambda: np.empty((0, 2)))
    _velocity: FloatArray = field(default_factory=lambda: np.empty((0, 2)))
    _length: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def __post_init__(self) -> None:
        check_positive("gate_px", self.gate_px)

    def update(self, frame: int, targets: Targets) -> IntArray:
        """Return the track numbers (n,) of the targets of a frame; frames must be passed in increasing order."""
        place = np.stack([targets.x, targets.y], axis=1)
        alive = frame - self._frame <= patience_of(self._length, self.patience) + 1
        self._number, self._frame, self._length = self._number[alive], self._frame[alive], self._length[alive]
        self._place, self._velocity = self._place[alive], self._velocity[alive]
        gap = (frame - self._frame)[:, None]
        track, detection = _assign(self._place + gap * self._velocity, place, self.gate_px)
        step = (place[detection] - self._place[track]) / gap[track]
        memory = np.where(self._length[track] > 1, VELOCITY_MEMORY, 0.0)[:, None]
        self._velocity[track] = memory * self._velocity[track] + (1.0 - memory) * step
        self._place[track], self._frame[track] = place[detection], frame
        self._length[track] += 1
        numbers = np.full(len(place), -1, dtype=np.int64)
        numbers[detection] = self._number[track]
        new = np.flatnonzero(numbers < 0)
        numbers[new] = self.started + np.arange(len(new))
        self.started += len(new)
        self._number = np.concatenate([self._number, numbers[new]])
        self._frame = np.concatenate([self._frame, np.full(len(new), frame)])
        self._place = np.concatenate([self._place, place[new]])
        self._velocity = np.concatenate([self._velocity, np.zeros((len(new), 2))])
        self._length = np.concatenate([self._length, np.ones(len(new), dtype=np.int64)])
        return numbers

    def taken_over(self, least_length: int) -> list[tuple[int, FloatArray, FloatArray]]:
        """Number, last place (2,) and velocity (2,) of the tracks with so many detections, which are no longer linked.

        Args:
            least_length: number of detections.
        """
        given = self._length >= least_length
        rows = zip(self._number[given].tolist(), self._place[given], self._velocity[given], strict=True)
        kept = ~given
        self._number, self._frame, self._length = self._number[kept], self._frame[kept], self._length[kept]
        self._place, self._velocity = self._place[kept], self._velocity[kept]
        return [(number, place, velocity) for number, place, velocity in rows]


def _assign(expected: FloatArray, found: FloatArray, gate_px: float) -> tuple[IntArray, IntArray]:
    """Return pairs (track, detection) within the gate: the largest number, then the least sum of squared distances."""
    nothing = np.empty(0, dtype=np.int64)
    if not len(expected) or not len(found):
        return nothing, nothing
    pairs = KDTree(expected).sparse_distance_matrix(KDTree(found), gate_px, output_type="ndarray")
    if not len(pairs):
        return nothing, nothing
    # Only tracks and detections within the gate compete: many small problems instead of one large one.
    size = len(expected) + len(found)
    graph = coo_array((np.ones(len(pairs)), (pairs["i"], pairs["j"] + len(expected))), shape=(size, size))
    label = connected_components(graph, directed=False)[1][pairs["i"]]
    order = np.argsort(label, kind="stable")
    tracks, detections = [nothing], [nothing]
    for part in np.split(pairs[order], np.flatnonzero(np.diff(label[order])) + 1):
        rows, row = np.unique(part["i"], return_inverse=True)
        columns, column = np.unique(part["j"], return_inverse=True)
        too_far = 1e3 * gate_px**2
        cost = np.full((len(rows), len(columns)), too_far)
        cost[row, column] = part["v"] ** 2
        i, j = linear_sum_assignment(cost)
        near = cost[i, j] < too_far
        tracks.append(rows[i[near]])
        detections.append(columns[j[near]])
    return np.concatenate(tracks).astype(np.int64), np.concatenate(detections).astype(np.int64)
