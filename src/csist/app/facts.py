"""What an image was unmixed with, in sentences: PSF, background, noise, threshold and masked pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from csist.frames.masks.words import KIND_WORDS
from csist.physics.psf import equivalent_sigma
from csist.physics.sensor import Sensor
from csist.words import counted

if TYPE_CHECKING:
    from csist.frames.result import FrameResult


def frame_facts(result: FrameResult, noise_stated: bool) -> tuple[str, ...]:
    """Return what a frame was unmixed with.

    Args:
        result: of the frame.
        noise_stated: whether the noise was stated rather than estimated.
    """
    level, noise = float(np.nanmedian(result.background)), float(np.nanmedian(result.noise))
    origin = "stated" if noise_stated else "estimated"
    facts = [
        f"PSF: sigma {float(equivalent_sigma(result.psf)):.3g} px, {_psf_origin(result)}.",
        f"Background: {_counts(level)} counts. Noise: {noise:.3g} counts per pixel, {origin}.",
        f"Detection threshold: {result.threshold:.3g} standard deviations.",
    ]
    counts = {KIND_WORDS.get(kind, kind): number for kind, number in result.pixel_counts.items() if number}
    saturated = counts.pop("saturated", 0)
    if counts:
        kinds = ", ".join(f"{number} {kind}" for kind, number in counts.items())
        facts.append(f"Masked pixels: {kinds}.")
    if saturated:
        facts.append(f"Saturated pixels: {saturated}, used as lower bounds.")
    return tuple(facts)


def window_facts(sensor: Sensor, noise_std: float | None, psf_known: str) -> tuple[str, ...]:
    """Return what a window was unmixed with.

    Args:
        sensor: of the window.
        noise_std: median noise per pixel in counts; None if the method uses none.
        psf_known: how the PSF is known, in a word.

    >>> window_facts(Sensor(read_noise=2.0), 2.0, "stated")
    ('PSF: sigma 0.5 px, stated.', 'Background: 0 counts. Noise: 2 counts per pixel.')
    """
    noise = "" if noise_std is None else f" Noise: {noise_std:.3g} counts per pixel."
    return (
        f"PSF: sigma {float(equivalent_sigma(sensor.psf)):.3g} px, {psf_known}.",
        f"Background: {_counts(sensor.background)} counts.{noise}",
    )


def _counts(level: float) -> str:
    """Return a level in counts without digits that mean nothing.

    >>> _counts(49.8572), _counts(12345.6), _counts(2e-12)
    ('49.86', '12346', '2e-12')
    """
    return f"{level:.0f}" if abs(level) >= 1000.0 else f"{level:.4g}"


def _psf_origin(result: FrameResult) -> str:
    """Return how the PSF of a frame is known."""
    if result.psf_origin == "given":
        return "stated"
    estimate = result.psf_estimate
    if estimate is not None:
        return f"measured on {counted(estimate.sources, 'isolated source')}"
    return f"{result.psf_origin} ({result.psf_assumption})" if result.psf_assumption else result.psf_origin
