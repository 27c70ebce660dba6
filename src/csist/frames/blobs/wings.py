"""Peaks in the wings of brighter targets: bright rings, and the noise that the slope of a wing lifts.

They open no window of their own. The window of the bright target reaches as far as its wings can be seen, and what it
finds there beside them becomes a peak after all (`csist.frames.blobs.solve`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.spatial import KDTree

from csist._types import FloatArray, IntArray
from csist.frames.detection.peaks import Peaks
from csist.frames.measured import FramePSF
from csist.physics.psf import lone_significance, outer_response

BRIGHT_WING = 2.0
"""Light of a wing, in units of the noise of a pixel, from which the peaks in it are unmixed after its target."""
WING_FACTOR = 3.0
"""Peaks below so many times the wing of a brighter one at their place may be a part of it."""


def _in_wings(peaks: Peaks, psf: FramePSF) -> Iterator[tuple[int, IntArray, FloatArray]]:
    """Each peak with the weaker ones in its wings, and the light there of a target of flux 1."""
    outer = outer_response(psf.psf)
    core, reach = 2.0 * psf.footprint_px, float(len(outer))
    if psf.guessed or len(peaks) < 2 or reach <= core:
        return
    tree = KDTree(peaks.positions)
    for i in range(len(peaks)):
        near = np.array(tree.query_ball_point(peaks.positions[i], reach), dtype=np.int64)
        near = near[near > i]
        distance = np.hypot(*(peaks.positions[near] - peaks.positions[i]).T)
        # Along an axis the distance may be shorter, never longer.
        ring = np.minimum((distance / np.sqrt(2.0)).astype(np.int64), len(outer) - 1)
        beyond = distance > core
        yield i, near[beyond], outer[ring[beyond]]


def without_wings(peaks: Peaks, psf: FramePSF) -> Peaks:
    """The peaks, most significant first, that are too bright to be parts of the wings of brighter ones.

    Args:
        peaks: most significant first.
        psf: of the frame; where it is guessed, nothing is known of its wings and all peaks stay.
    """
    factor = WING_FACTOR / float(psf.psf.response(0.0, 0.0))
    kept = np.ones(len(peaks), dtype=bool)
    for i, near, light in _in_wings(peaks, psf):
        if kept[i]:
            kept[near[peaks.significance[near] < factor * light * peaks.significance[i]]] = False
    return peaks[kept]


def wing_pairs(peaks: Peaks, psf: FramePSF) -> IntArray:
    """Pairs (m, 2) of a peak and a weaker one that its wings reach: they are unmixed one after the other."""
    per_sigma = 1.0 / lone_significance(psf.psf)
    pairs = [np.empty((0, 2), dtype=np.int64)]
    for i, near, light in _in_wings(peaks, psf):
        reached = near[light * per_sigma * peaks.significance[i] > BRIGHT_WING]
        pairs.append(np.stack([np.full(len(reached), i), reached], axis=1))
    return np.concatenate(pairs)
