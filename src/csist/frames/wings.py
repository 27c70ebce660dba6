"""Peaks in the wings of brighter targets: bright rings, and the noise that the slope of a wing lifts.

They open no window of their own. The window of the bright target reaches as far as its wings can be seen, and what it
finds there beside them becomes a peak after all (`csist.frames.blobs`).
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import KDTree

from csist.frames.measured import FramePSF
from csist.frames.peaks import Peaks
from csist.physics.psf import outer_response

WING_FACTOR = 3.0
"""Peaks below so many times the wing of a brighter one at their place may be a part of it."""


def without_wings(peaks: Peaks, psf: FramePSF) -> Peaks:
    """The peaks, most significant first, that are too bright to be parts of the wings of brighter ones.

    Args:
        peaks: most significant first.
        psf: of the frame; where it is guessed, nothing is known of its wings and all peaks stay.
    """
    outer = outer_response(psf.psf)
    core, reach = 2.0 * psf.footprint_px, float(len(outer))
    if psf.guessed or len(peaks) < 2 or reach <= core:
        return peaks
    share = WING_FACTOR * outer / float(psf.psf.response(0.0, 0.0))
    tree = KDTree(peaks.positions)
    kept = np.ones(len(peaks), dtype=bool)
    for i in range(len(peaks)):
        if not kept[i]:
            continue
        near = np.array(tree.query_ball_point(peaks.positions[i], reach), dtype=np.int64)
        near = near[near > i]
        distance = np.hypot(*(peaks.positions[near] - peaks.positions[i]).T)
        # Along an axis the distance may be shorter, never longer.
        ring = np.minimum((distance / np.sqrt(2.0)).astype(np.int64), len(share) - 1)
        wing = peaks.significance[i] * share[ring]
        kept[near[(distance > core) & (peaks.significance[near] < wing)]] = False
    return peaks[kept]
