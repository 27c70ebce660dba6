"""What is known of a frame before anything is detected: its bad pixels, background, noise and PSF."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from csist._types import FloatArray
from csist.checks import InputError
from csist.frames.background.estimate import Background, box_sides, estimate_background
from csist.frames.masks.mask import PixelKind, PixelMask, is_whole_numbered, lone_share, mask_pixels
from csist.frames.masks.streaks import streaks
from csist.frames.options import FrameOptions
from csist.physics.psf import PSF, equivalent_sigma, lone_significance, outer_response

if TYPE_CHECKING:
    from csist.frames.psf_estimate import PSFEstimate


logger = logging.getLogger(__name__)

FAINT_WING = 0.5
"""Light of a target, in units of the noise of a pixel, below which it may be left out of the window."""
PHOTON_NOISE = (0.6, 1.7)
"""Bounds of the variance in the dark, in units of the level there, of a frame whose values are numbers of photons."""
SILENT = 0.7
"""Ratio of the measured noise to that of the photons of the level, below which not all of the level is light."""
UNDERRATED = 1.1
"""Ratio of the noise that a sensor has at least to the measured one, up to which the measured one stands."""


@dataclass(frozen=True, eq=False)
class FrameRules:
    """How a frame is measured.

    Args:
        ceiling: level in counts at which the frame clips; None guesses it.
        noise_std: noise of a pixel in counts; None measures it.
        box_sides_px: sides of the boxes of the background, coarse to fine; None chooses them by the PSF.
        gain: electrons per count, where the photons of the background are part of the noise; None where not known.
        read_noise: in counts, likewise.
        light: counts of the background that are known to be light.
    """

    ceiling: float | None = None
    noise_std: float | None = None
    box_sides_px: tuple[int, ...] | None = None
    gain: float | None = None
    read_noise: float = 0.0
    light: float = 0.0

    @classmethod
    def of(cls, options: FrameOptions) -> FrameRules:
        """The rules that the options of a frame state."""
        return cls(
            options.ceiling, options.stated_noise_std, options.box_sides_px, options.gain, options.least_noise_std,
            options.stated_background,
        )  # fmt: skip

    def noise_of(self, background: Background) -> Background:
        """The background with the noise that the sensor has at least; a measured one can be larger, by clutter."""
        if self.noise_std is not None or self.gain is None:
            return background
        photons = background.level - offset_of(background, self.gain, self.read_noise, self.light)
        least = np.sqrt(np.maximum(photons, 0.0) / self.gain + self.read_noise**2)
        if (least <= UNDERRATED * background.noise).all():
            return background
        return replace(background, noise=np.maximum(background.noise, least), mesh=None)

    def sides(self, psf: PSF | None) -> tuple[int, ...]:
        """Sides in px of the boxes for a PSF; None where it is not known."""
        return box_sides(psf) if self.box_sides_px is None else self.box_sides_px


def offset_of(background: Background, gain: float, read_noise: float, light: float) -> float:
    """Counts of a background that are no light: a bias level, which was not subtracted.

    There are some where the background scatters by clearly less than as many photons do.

    Args:
        background: level and measured noise.
        gain: electrons per count.
        read_noise: in counts.
        light: counts of the background that are known to be light.
    """
    level, noise = float(np.nanmedian(background.level)), float(np.nanmedian(background.noise))
    if noise >= SILENT * np.sqrt(max(level, 0.0) / gain + read_noise**2):
        return 0.0
    return max(level - max(gain * (noise**2 - read_noise**2), light, 0.0), 0.0)


@dataclass(frozen=True, eq=False)
class MeasuredFrame:
    """A frame with its bad pixels, background and noise.

    Args:
        image: (H, W) in counts.
        pixels: which pixels are usable.
        background: level and noise.
        noise_measured: whether the noise was measured, not stated.
        error: (H, W) standard deviation of each pixel in counts if it is known, photons of the targets included.
    """

    image: FloatArray
    pixels: PixelMask
    background: Background
    noise_measured: bool
    error: FloatArray | None = field(default=None, repr=False)

    @cached_property
    def flattened(self) -> FloatArray:
        """(H, W) background-subtracted counts, NaN where masked."""
        flattened = self.image - self.background.level
        if self.pixels.masked.any():
            flattened[self.pixels.masked] = np.nan
        return flattened

    @property
    def unclipped(self) -> FloatArray:
        """(H, W) background-subtracted counts, NaN where masked or saturated: what shows the shape of a source."""
        return (
            np.where(self.pixels.saturated, np.nan, self.flattened) if self.pixels.saturated.any() else self.flattened
        )

    @cached_property
    def counts_photons(self) -> bool:
        """Whether the values may be numbers of photons: whole, none below 0, with the noise of so many in the dark."""
        if self.error is not None or np.nanmin(self.image) < 0.0 or not is_whole_numbered(self.image):
            return False
        level, variance = float(np.median(self.background.level)), float(np.median(self.background.noise)) ** 2
        # Below one photon a pixel, the level is a median of 0 and the noise that of rounding.
        return PHOTON_NOISE[0] * level <= variance <= PHOTON_NOISE[1] * max(level, 1.0)

    @cached_property
    def step(self) -> float:
        """Counts between the values that a pixel can have; 0 if they are no whole numbers."""
        return float(is_whole_numbered(self.image))

    @cached_property
    def filled(self) -> FloatArray:
        """(H, W) background-subtracted counts, 0 where masked."""
        return np.where(self.pixels.masked, 0.0, self.flattened) if self.pixels.masked.any() else self.flattened

    @cached_property
    def noise_floor(self) -> float:
        """Smallest noise of a pixel in counts that the frame can have."""
        return self.background.floor_of(self.image)


@dataclass(frozen=True, eq=False)
class FramePSF:
    """The PSF of a frame and how it is known.

    Args:
        psf: point spread function.
        error: its error, as a share of the light in a window's brightest pixel.
        origin: "given" by the user, "measured" on isolated sources, or "guessed" from the widths of the spots.
        estimate: the measurement, if there was one.
        assumption: what was assumed where the frame could not show it, in a few words; empty where nothing was.
    """

    psf: PSF
    error: float
    origin: Literal["given", "measured", "guessed"]
    estimate: PSFEstimate | None = field(default=None, repr=False)
    assumption: str = ""

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
    def least_margin_px(self) -> int:
        """Margin of a window around faint peaks."""
        return int(np.ceil(3.0 * self.sigma_px)) + 2

    def margin_px(self, significance: float) -> int:
        """Margin of a window around peaks, wide enough for the wings of the brightest one.

        Args:
            significance: of the brightest peak, in standard deviations.
        """
        flux = max(significance, 1e-300) / lone_significance(self.psf)
        bright = int(np.searchsorted(-outer_response(self.psf), -FAINT_WING / flux))
        return max(self.least_margin_px, 0 if self.guessed else bright)


def measure_frame(
    image: FloatArray, rules: FrameRules, psf: PSF | None = None, error: FloatArray | None = None
) -> MeasuredFrame:
    """Mask the bad pixels of a frame (H, W) and measure its background and noise.

    Args:
        image: in counts, checked by `csist.frames.masks.mask.check_frame`.
        rules: how it is measured.
        psf: point spread function, if it is known.
        error: (H, W) standard deviation of each pixel in counts, finite and > 0 where the image is finite; None if it
            is not known.

    Raises:
        InputError: if no pixel is valid.
    """
    pixels = mask_pixels(image, rules.ceiling, psf)
    if pixels.masked.all():
        raise InputError(f"frame has no valid pixel: all {image.size} are NaN, dead or hot")
    background = estimate_background(image, pixels.masked, rules.noise_std, rules.sides(psf))
    frame = MeasuredFrame(image, pixels, background, rules.noise_std is None)
    trails = streaks(frame.flattened, background.noise)
    if trails is not None and not (trails | pixels.masked).all():
        pixels = pixels.with_kind(trails, PixelKind.STREAK)
        background = estimate_background(image, pixels.masked, rules.noise_std, rules.sides(psf))
        frame = replace(frame, pixels=pixels, background=background)
    logger.info("pixels: %s", ", ".join(f"{count} {kind}" for kind, count in pixels.counts.items()))
    if error is not None:
        usable = np.where(pixels.masked, np.nan, error)
        known = np.where(np.isfinite(usable), usable, np.nanmedian(usable))
        return MeasuredFrame(image, pixels, replace(background, noise=known, mesh=None), False, known)
    settled = rules.noise_of(background)
    return frame if settled is background else replace(frame, background=settled)


def measured_alike(rules: FrameRules, psf: PSF) -> bool:
    """Whether `measure_frame` gives the same with this PSF as with an unknown one."""
    return lone_share(psf) == lone_share(None) and rules.sides(psf) == rules.sides(None)
