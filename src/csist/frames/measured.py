"""What is known of a frame before anything is detected: its bad pixels, background, noise and PSF."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from csist._types import FloatArray
from csist.checks import InputError
from csist.frames.background import Background, box_sides, estimate_background, noise_floor
from csist.frames.mask import PixelKind, PixelMask, lone_share, mask_pixels
from csist.frames.options import FrameOptions
from csist.frames.streaks import streaks
from csist.physics.psf import PSF, equivalent_sigma

if TYPE_CHECKING:
    from csist.frames.psf_estimate import PSFEstimate


logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class FrameRules:
    """How a frame is measured.

    Args:
        ceiling: level in counts at which the frame clips; None guesses it.
        noise_std: noise of a pixel in counts; None measures it.
        box_sides_px: sides of the boxes of the background, coarse to fine; None chooses them by the PSF.
    """

    ceiling: float | None = None
    noise_std: float | None = None
    box_sides_px: tuple[int, ...] | None = None

    @classmethod
    def of(cls, options: FrameOptions) -> FrameRules:
        """The rules that the options of a frame state."""
        return cls(options.ceiling, options.stated_noise_std, options.box_sides_px)

    def sides(self, psf: PSF | None) -> tuple[int, ...]:
        """Sides in px of the boxes for a PSF; None where it is not known."""
        return box_sides(psf) if self.box_sides_px is None else self.box_sides_px


@dataclass(frozen=True, eq=False)
class MeasuredFrame:
    """A frame with its bad pixels, background and noise.

    Args:
        image: (H, W) in counts.
        pixels: which pixels are usable.
        background: level and noise.
        noise_measured: whether the noise was measured, not stated.
    """

    image: FloatArray
    pixels: PixelMask
    background: Background
    noise_measured: bool

    @cached_property
    def flattened(self) -> FloatArray:
        """(H, W) background-subtracted counts, NaN where masked."""
        flattened = self.image - self.background.level
        flattened[self.pixels.masked] = np.nan
        return flattened

    @cached_property
    def noise_floor(self) -> float:
        """Smallest noise of a pixel in counts that the frame can have."""
        return noise_floor(self.image)


@dataclass(frozen=True, eq=False)
class FramePSF:
    """The PSF of a frame and how it is known.

    Args:
        psf: point spread function.
        error: its error, as a share of the light in a window's brightest pixel.
        origin: "given" by the user, "measured" on isolated sources, or "guessed" from the widths of the spots.
        estimate: the measurement, if there was one.
    """

    psf: PSF
    error: float
    origin: Literal["given", "measured", "guessed"]
    estimate: PSFEstimate | None = field(default=None, repr=False)

    @property
    def guessed(self) -> bool:
        """Whether the PSF is a rough guess."""
        return self.origin == "guessed"

    @cached_property
    def sigma_px(self) -> float:
        """Sigma of the Gaussian with the same noise-equivalent area."""
        return equivalent_sigma(self.psf)

    @property
    def footprint_px(self) -> float:
        """Radius of the disc that holds some 90 % of a target's light."""
        return 2.0 * self.sigma_px + 0.5

    @property
    def margin_px(self) -> int:
        """Margin of a window around its peaks."""
        return int(np.ceil(3.0 * self.sigma_px)) + 2


def measure_frame(image: FloatArray, rules: FrameRules, psf: PSF | None = None) -> MeasuredFrame:
    """Mask the bad pixels of a frame (H, W) and measure its background and noise.

    Args:
        image: in counts, checked by `csist.frames.mask.check_frame`.
        rules: how it is measured.
        psf: point spread function, if it is known.

    Raises:
        InputError: if no pixel is valid.
    """
    pixels = mask_pixels(image, rules.ceiling, psf)
    if pixels.masked.all():
        raise InputError(f"frame has no valid pixel: all {image.size} are NaN, dead or hot")
    background = estimate_background(image, pixels.masked, rules.noise_std, rules.sides(psf))
    trails = streaks(np.where(pixels.masked, np.nan, image - background.level), background.noise)
    if trails is not None and not (trails | pixels.masked).all():
        pixels = pixels.with_kind(trails, PixelKind.STREAK)
        background = estimate_background(image, pixels.masked, rules.noise_std, rules.sides(psf))
    logger.info("pixels: %s", ", ".join(f"{count} {kind}" for kind, count in pixels.counts.items()))
    return MeasuredFrame(image, pixels, background, rules.noise_std is None)


def measured_alike(rules: FrameRules, psf: PSF) -> bool:
    """Whether `measure_frame` gives the same with this PSF as with an unknown one."""
    return lone_share(psf) == lone_share(None) and rules.sides(psf) == rules.sides(None)
