"""Detections of consecutive frames linked into tracks: nearest to where constant velocity leads, all at once.

Each track predicts its next place from its last one and its velocity; within a gate the detections are assigned to the
tracks so that the sum of squared distances is least (Hungarian method; Kuhn 1955, Bourgeois & Lassalle 1971).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from csist._types import FloatArray, IntArray
from csist.checks import check_positive
from csist.targets import Targets

GATE_PX = 6.0
PATIENCE = 3
LEAST_LENGTH = 3
"""Detections from which a track counts."""
VELOCITY_MEMORY = 0.5
"""Share of the old velocity in the new one."""


@dataclass
class Linker:
    """Gives every detection the number of its track, frame by frame.

    Args:
        gate_px: farthest that a detection may lie from where its track is expected.
        patience: frames a track may miss before it ends.

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
        """Numbers (n,) of the tracks that the targets of a frame belong to; frames come in rising order."""
        place = np.stack([targets.x, targets.y], axis=1)
        alive = frame - self._frame <= self.patience + 1
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


def _assign(expected: FloatArray, found: FloatArray, gate_px: float) -> tuple[IntArray, IntArray]:
    """Pairs (track, detection) within the gate, as many as possible with the least sum of squared distances."""
    nothing = np.empty(0, dtype=np.int64)
    if not len(expected) or not len(found):
        return nothing, nothing
    pairs = KDTree(expected).sparse_distance_matrix(KDTree(found), gate_px, output_type="ndarray")
    if not len(pairs):
        return nothing, nothing
    # Only what is within reach of each other competes: many small problems instead of one large one.
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
