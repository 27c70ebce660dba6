"""The noise of a crowded frame, measured on what the joint fit leaves.

Where the values may be numbers of photons, the more likely noise is taken: with the photons of the targets, or without.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from csist._types import FloatArray
from csist.frames.crowded.fit import state
from csist.frames.crowded.model import CrowdedFit, CrowdedFrame

DARK_WEIGHT = 0.9
"""Least weight, relative to a pixel without light, of the pixels on which the noise is measured."""
FEWEST_DARK_PIXELS = 100


def likelier_noise(frame: CrowdedFrame, fit: CrowdedFit) -> CrowdedFrame:
    """The frame with the more likely noise, given a fit; as it is where all of it is stated."""
    if not (frame.measured or frame.may_count_photons):
        return frame
    residual, _, design = state(frame, fit)
    light = (design[:, 2::3] @ fit.targets[:, 2]).reshape(frame.shape)
    if frame.may_count_photons:
        both = (replace(frame, gain=gain) for gain in (None, 1.0))
        frame = max(both, key=lambda each: _log_likelihood(residual, each.weight(light).ravel()))
    if not frame.measured:
        return frame
    return replace(frame, noise_std=_dark_noise(residual, frame.weight(light).ravel(), frame.noise_std))


def _log_likelihood(residual: FloatArray, weight: FloatArray) -> float:
    """Of the residual (pixels,) of a fit, given the inverse noise of each pixel, but for a constant."""
    used = weight > 0.0
    return float(np.log(weight[used]).sum() - 0.5 * ((weight * residual)[used] ** 2).sum())


def _dark_noise(residual: FloatArray, weight: FloatArray, noise_std: float) -> float:
    """Robust scatter in counts of the residual where the light of targets is below the noise.

    Args:
        residual: (pixels,) in counts.
        weight: (pixels,) inverse noise of each pixel; 0 where it is not valid.
        noise_std: noise of a dark pixel in counts until now.
    """
    dark = weight * noise_std > DARK_WEIGHT
    values = residual[dark if dark.sum() >= FEWEST_DARK_PIXELS else weight > 0.0]
    scatter = 1.4826 * float(np.median(np.abs(values - np.median(values)))) if values.size else 0.0
    return max(scatter, 1e-3 * noise_std)
