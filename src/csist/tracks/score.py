"""Figures of the tracks of several sequences."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from csist._types import IntArray
from csist.metrics.tracks import CUTOFF_PX, track_map, track_summary
from csist.targets import Targets
from csist.tracks.link import Linker

SUMS = ("missed", "spurious", "identity_switches", "found_tracks", "true_tracks")


def score_sequences(
    found: Sequence[Targets], truths: Sequence[Targets], trajectory: IntArray, cutoff_px: float = CUTOFF_PX
) -> dict[str, float]:
    """Figures of the tracks of sequences of windows; detections without tracks are linked within the cutoff.

    Args:
        found: detections of each image.
        truths: true targets of each image; the first of each image of a sequence is one track, the second another.
        trajectory: (N,) number of the sequence of each image, equal ones in a row.
        cutoff_px: see `csist.metrics.track_summary`.

    Returns:
        the keys of `csist.metrics.track_summary`, means over sequences or sums, and `track_map` in percent.

    >>> pair = Targets(x=[3.0, 7.0], y=[3.0, 7.0], intensity=[9.0, 9.0])
    >>> figures = score_sequences([pair] * 6, [pair] * 6, np.array([0, 0, 0, 1, 1, 1]))
    >>> figures["track_map"], figures["identity_switches"], figures["true_tracks"]
    (100.0, 0, 4)
    """
    edges = [0, *(np.flatnonzero(np.diff(trajectory)) + 1).tolist(), len(trajectory)]
    parts = [slice(first, end) for first, end in pairwise(edges)]
    linked = [_with_tracks(found[part], cutoff_px) for part in parts]
    true = [list(truths[part]) for part in parts]
    rows = [track_summary(one, other, cutoff_px) for one, other in zip(linked, true, strict=True)]
    means = {name: float(np.nanmean([row[name] for row in rows])) for name in ("gospa_px", "ospa_px")}
    pairs = [row["distance_rms_px"] for row in rows if np.isfinite(row["distance_rms_px"])]
    return {
        "sequences": len(parts),
        **means,
        **{name: sum(int(row[name]) for row in rows) for name in SUMS},
        "distance_rms_px": float(np.sqrt(np.mean(np.square(pairs)))) if pairs else float("nan"),
        "track_map": track_map(linked, true, cutoff_px)["CSO-mAP"],
    }


def _with_tracks(frames: Sequence[Targets], gate_px: float) -> list[Targets]:
    """Detections of one sequence with their tracks; those without any are linked."""
    if any((targets.track >= 0).any() for targets in frames):
        return list(frames)
    linker = Linker(gate_px=gate_px)
    return [targets.replace(track=linker.update(t, targets)) for t, targets in enumerate(frames)]
