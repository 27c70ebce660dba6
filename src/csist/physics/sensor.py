"""Sensor model: from a scene of point targets to the counts of an image."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from csist._types import FloatArray
from csist.checks import InputError, check_fields, check_not_negative, check_positive, check_shape
from csist.physics.psf import PSF, GaussianPSF, as_psf, psf_from_card
from csist.targets import Targets

ROUNDING_VARIANCE = 1.0 / 12.0
"""Variance in counts^2 that rounding to whole counts adds."""


@dataclass(frozen=True)
class Sensor:
    """PSF, image shape, background, noise, rounding and saturation of a camera.

    render(targets) returns the noise-free image, background + sum of intensity * PSF; observe() adds shot noise
    (variance = image / gain) and read noise, rounds to whole counts and clips.

    Args:
        psf: point spread function.
        shape: (rows, columns) of the image.
        background: constant level in counts.
        read_noise: standard deviation of the white Gaussian noise in counts.
        gain: electrons per count; None for no shot noise.
        quantised: whether values are rounded to whole counts.
        bits: bit depth of the converter: values are clipped to [0, 2^bits - 1]; None for no limit.
        saturation: level in counts at which a pixel clips, if below the limit set by `bits`; None for no such level.

    Raises:
        InputError: if a number is out of its range.

    >>> Sensor().render(Targets(x=[5.0], y=[5.0], intensity=[200.0]))[5, 4:7].round(2).tolist()
    [21.48, 93.21, 21.48]
    """

    psf: PSF = field(default_factory=lambda: GaussianPSF(0.5))
    shape: tuple[int, int] = (11, 11)
    background: float = 0.0
    read_noise: float = 0.0
    gain: float | None = None
    quantised: bool = True
    bits: int | None = None
    saturation: float | None = None

    def __post_init__(self) -> None:
        psf = as_psf(self.psf)
        if psf is None:
            raise InputError(f"psf must be a PSF or a sigma in px, got {self.psf!r}")
        object.__setattr__(self, "psf", psf)
        object.__setattr__(self, "shape", check_shape(self.shape))
        if not np.isfinite(self.background):
            raise InputError(f"background must be finite, got {self.background}")
        object.__setattr__(self, "read_noise", check_not_negative("read_noise", self.read_noise))
        if self.gain is not None:
            check_positive("gain", self.gain)
        if self.bits is not None and not (int(self.bits) == self.bits and 1 <= self.bits <= 32):
            raise InputError(f"bits must be a whole number from 1 to 32, got {self.bits}")
        if self.saturation is not None:
            check_positive("saturation", self.saturation)

    @property
    def ceiling(self) -> float:
        """Highest value in counts that a pixel can have; a pixel at this value is saturated."""
        limits = [np.inf, self.saturation, None if self.bits is None else 2.0**self.bits - 1.0]
        return min(limit for limit in limits if limit is not None)

    @property
    def floor(self) -> float:
        """Lowest value in counts that a pixel can have."""
        return -np.inf if self.bits is None else 0.0

    @property
    def rounding_variance(self) -> float:
        """Variance in counts^2 that rounding adds."""
        return ROUNDING_VARIANCE if self.quantised else 0.0

    @property
    def background_variance(self) -> float:
        """Variance in counts^2 of the photons of the background."""
        return 0.0 if self.gain is None else max(self.background, 0.0) / self.gain

    @property
    def pixel_noise(self) -> float:
        """Standard deviation in counts of a pixel without targets, before rounding: read noise and background."""
        return float(np.sqrt(self.read_noise**2 + self.background_variance))

    def with_pixel_noise(self, noise_std: float) -> Sensor:
        """Return the same sensor with the read noise that gives this noise to a pixel without targets."""
        return replace(self, read_noise=float(np.sqrt(max(noise_std**2 - self.background_variance, 0.0))))

    def with_shape(self, shape: tuple[int, int]) -> Sensor:
        """Return the same sensor with another image shape."""
        return replace(self, shape=shape)

    def responses(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Return the response of every pixel to unit flux at each position: (..., n) positions give (..., n, H, W)."""
        rows, columns = self.shape
        dx = np.arange(columns) - np.asarray(x, dtype=np.float64)[..., None]
        dy = np.arange(rows) - np.asarray(y, dtype=np.float64)[..., None]
        if isinstance(self.psf, GaussianPSF):
            return np.asarray(self.psf.profile(dy)[..., :, None] * self.psf.profile(dx)[..., None, :])
        return np.asarray(self.psf.response(dx[..., None, :], dy[..., :, None]))

    def render(self, targets: Targets) -> FloatArray:
        """Return the clean image in counts, (H, W) float64, without noise, rounding or clipping."""
        return np.asarray(self.render_stack(targets.x[None], targets.y[None], targets.intensity[None])[0])

    def render_stack(self, x: FloatArray, y: FloatArray, intensity: FloatArray) -> FloatArray:
        """Return the clean images (N, H, W) of N scenes given as arrays (N, k), padded with intensity 0."""
        if isinstance(self.psf, GaussianPSF):
            rows, columns = self.shape
            along_y = self.psf.profile(np.arange(rows) - y[..., None]) * intensity[..., None]
            along_x = self.psf.profile(np.arange(columns) - x[..., None])
            return np.asarray(self.background + np.swapaxes(along_y, 1, 2) @ along_x)
        images = np.full((len(x), *self.shape), float(self.background))
        for k in range(x.shape[1]):
            images += intensity[:, k, None, None] * self.responses(x[:, k], y[:, k])
        return images

    def observe(self, targets: Targets, rng: np.random.Generator | int) -> FloatArray:
        """Simulate a measured image, (H, W) float64; `rng` is a NumPy generator or a seed."""
        return self.measure(self.render(targets), rng)

    def measure(self, clean: FloatArray, rng: np.random.Generator | int) -> FloatArray:
        """Return a copy of clean images, of any shape, with noise, rounding and clipping applied."""
        rng = np.random.default_rng(rng)
        image = np.array(clean, dtype=np.float64)
        if self.gain is not None:
            image = rng.poisson(np.maximum(image, 0.0) * self.gain) / self.gain
        if self.read_noise > 0:
            image += rng.normal(0.0, self.read_noise, image.shape)
        if self.quantised:
            np.rint(image, out=image)
        if self.floor > -np.inf or self.ceiling < np.inf:
            np.clip(image, self.floor, self.ceiling, out=image)
        return image

    def noise_variance(self, clean: FloatArray | float = 0.0) -> FloatArray:
        """Return the variance in counts^2 of a pixel whose clean value is `clean`."""
        shot = 0.0 if self.gain is None else np.maximum(clean, 0.0) / self.gain
        return np.asarray(shot + self.read_noise**2 + self.rounding_variance + np.zeros_like(clean, dtype=np.float64))

    def to_card(self) -> dict[str, Any]:
        """Return a JSON-ready description from which `from_card` builds an equal sensor."""
        return {
            "psf": self.psf.to_card(),
            "shape": list(self.shape),
            "background": self.background,
            "read_noise": self.read_noise,
            "gain": self.gain,
            "quantised": self.quantised,
            "bits": self.bits,
            "saturation": self.saturation,
        }

    @classmethod
    def from_card(cls, card: dict[str, Any]) -> Sensor:
        """Build the sensor that a card describes; fields that are left out take their defaults.

        Raises:
            InputError: if a field is unknown or has a wrong value.
        """
        check_fields("sensor", card, cls.__dataclass_fields__)
        values = dict(card)
        if "psf" in values:
            values["psf"] = psf_from_card(values["psf"])
        if "shape" in values:
            values["shape"] = tuple(values["shape"])
        return cls(**values)
