"""What is kept of each frame that was unmixed alone, for the joint posterior of its groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from csist._types import FloatArray
from csist.frames.options import FrameOptions
from csist.frames.result import FrameResult
from csist.frames.shapes.source import ExtendedSource
from csist.frames.solve import solve_frame
from csist.physics.psf import PSF, GaussianPSF, equivalent_sigma
from csist.sequences.fresh import Fresh
from csist.targets import Flag, Targets

ROBUST = 1.4826
"""Standard deviation of normal numbers in units of their median distance from the median."""


class Shot(NamedTuple):
    """What is kept of one frame.

    Args:
        data: (H, W) in counts, background subtracted, 0 where masked.
        weight: (H, W) inverse variances, 0 where masked.
        targets: of the frame alone.
        psf: that they were fitted with.
        psf_error: its error as a share of the light in a window's brightest pixel.
        flagged: numbers of the groups that point targets do not explain.
        sources: the longest extended source or streak of a group, by number of the group.
        gain: electrons per count, where the photons of the targets are part of the noise beyond `weight`.
    """

    data: FloatArray
    weight: FloatArray
    targets: Targets
    psf: PSF
    psf_error: float
    flagged: frozenset[int]
    sources: Mapping[int, ExtendedSource]
    gain: float | None = None


def shot_of(image: FloatArray, options: FrameOptions) -> Shot:
    """Unmix a frame (H, W) in counts alone.

    Raises:
        InputError: if the frame cannot be used.
    """
    return shot_of_result(solve_frame(image, options))


def shot_of_result(result: FrameResult) -> Shot:
    """What is kept of a frame that was unmixed alone."""
    usable = ~(result.mask | result.saturated)
    data = np.where(usable, result.image - result.background, 0.0)
    weight = np.where(usable, 1.0 / np.maximum(result.noise, 1e-12) ** 2, 0.0)
    flagged = frozenset(group.number for group in result.groups if group.flags & Flag.POOR_FIT or group.sources)
    longest = {
        group.number: max(group.sources, key=lambda source: source.long_px)
        for group in result.groups if group.sources
    }  # fmt: skip
    return Shot(data, weight, result.targets, result.psf, result.psf_error, flagged, longest, result.gain)


def shot_if_new(image: FloatArray, fresh: Fresh, options: FrameOptions) -> Shot:
    """`shot_of` the next frame (H, W) of a sequence; of one that holds nothing new, an empty one."""
    return shot_of(image, options) if fresh.is_new(image) else empty_shot(image.shape)


def empty_shot(shape: tuple[int, ...]) -> Shot:
    """A frame (H, W) without any value."""
    nothing = np.zeros(shape)
    return Shot(nothing, nothing, Targets.empty(), GaussianPSF(1.0), 0.0, frozenset(), {})


def common_psf(shots: Sequence[Shot]) -> tuple[PSF, float]:
    """The PSF of some frames, and by how much the light of a frame's brightest pixel differs from it, as a share.

    It is that of the first where all have the same, else the Gaussian of the median width: the scatter of the widths is
    an error, and the light of the brightest pixel goes with the width to the power of -2.
    """
    shots = [shot for shot in shots if shot.weight.any()] or shots
    first = shots[0].psf
    if all(shot.psf == first for shot in shots):
        return first, 0.0
    widths = np.array([equivalent_sigma(shot.psf) for shot in shots])
    middle = float(np.median(widths))
    return GaussianPSF(middle), 2.0 * ROBUST * float(np.median(np.abs(np.log(widths / middle))))
