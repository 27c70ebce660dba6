"""Which detector suits a frame, by its own noise, clutter and source density."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from csist.frames.detection.contrast import ContrastFrame
from csist.frames.options import CONTRAST, CROWDED, MATCHED

CROWDED_SHARE = 0.06
"""Share of a frame covered by the light of point sources from which their blobs run into each other everywhere."""
FEWEST_CROWDED = 8
"""Fewer sources are a group, which a window holds."""


class Choice(NamedTuple):
    """A detector, and why it is used.

    Args:
        detector: "contrast", "matched" or "crowded".
        reason: in a few words.
    """

    detector: str
    reason: str


def choose_detector(frame: ContrastFrame) -> Choice:
    """The detector for a frame: "crowded" for dense point sources, "matched" for white noise, else "contrast".

    The matched filter needs the PSF; where it is not known, "contrast" looks for spots of all usual sizes.

    Args:
        frame: the frame as the contrast detector sees it.
    """
    for sources in (frame.sources, frame.faint_sources):
        if sources is None or sources.number < FEWEST_CROWDED:
            continue
        covered = sources.number * np.pi * (2.0 * sources.sigma_px + 0.5) ** 2 / frame.valid.sum()
        if covered >= CROWDED_SHARE:
            return Choice(CROWDED, f"{sources.number} point sources cover {min(covered, 1.0):.0%} of the frame")
    if not frame.noise_limited:
        return Choice(CONTRAST, "clutter")
    if frame.sigma_px is None:
        return Choice(CONTRAST, "white noise, PSF not known")
    return Choice(MATCHED, "white noise")
