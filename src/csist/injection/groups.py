"""Groups of targets and their places in a frame: far from its border and from one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from csist._types import BoolArray, FloatArray
from csist.injection.plan import InjectionPlan
from csist.targets import Targets

PLACE_TRIES = 40
BORDER_PX = 8.0
"""Least distance of a target to the border of the frame."""
APART_PX = 16.0
"""Least distance of targets of different groups in a pass."""
REACH_PX = 3.0
"""Largest distance to a target of a group of a detection that is counted as the group's."""
PIXELS_A_GROUP = 1600
"""Pixels of a frame for each group of a pass: few enough groups to leave the statistics of the frame as they are."""


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


def draw_plan(plan: InjectionPlan, rng: np.random.Generator) -> list[tuple[int, float, float]]:
    """Number of targets, flux and separation of each group."""
    if plan.flux is None or plan.separation_px is None:
        raise RuntimeError("the plan is not settled")
    counts = rng.permutation(np.resize(plan.counts, plan.groups)).tolist()
    flux = plan.flux.draw(plan.groups, True, rng).tolist()
    apart = plan.separation_px.draw(plan.groups, False, rng).tolist()
    return list(zip(counts, flux, apart, strict=True))


def place_groups(
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
