"""A source that is wider than the PSF, as it is reported and drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from csist._types import FloatArray
from csist.frames.shapes.light import OUTLINES, covariance_of, light_of
from csist.physics.psf import PSF

FWHM_PER_SIGMA = float(np.sqrt(8.0 * np.log(2.0)))
DIAMETER_PER_SIGMA = 4.0
REACH_SIGMAS = 6.0
"""A source is drawn up to so many standard deviations from its centre."""


@dataclass(frozen=True)
class ExtendedSource:
    """One extended source or streak, without the blur of the PSF.

    Args:
        outline: "ellipse" (a Gaussian), "disc" (uniform, elliptical) or "streak" (a line).
        x: column of its centre in px.
        y: row in px.
        intensity: total flux in counts.
        shape: parameters of its shape, see `csist.frames.shapes.light`.
        psf: the PSF at its place.
    """

    outline: str
    x: float
    y: float
    intensity: float
    shape: tuple[float, ...]
    psf: PSF

    @property
    def long_px(self) -> float:
        """Length of a streak, diameter of a disc or full width at half maximum of an ellipse, along its longer axis."""
        if self.outline == "streak":
            return float(np.exp(self.shape[0]))
        return self._axis(1.0)

    @property
    def short_px(self) -> float:
        """The same across it; 0 for a streak."""
        return 0.0 if self.outline == "streak" else self._axis(-1.0)

    @property
    def angle_deg(self) -> float:
        """Angle of the longer axis from x towards y (clockwise on the screen), -90 to 90 degrees."""
        angle = self.shape[1] if self.outline == "streak" else 0.5 * np.arctan2(self.shape[2], self.shape[1])
        return float((np.rad2deg(angle) + 90.0) % 180.0 - 90.0)

    def shifted(self, dx: float, dy: float) -> ExtendedSource:
        """The same source moved by (dx, dy) px."""
        return replace(self, x=self.x + dx, y=self.y + dy)

    def add_to(self, image: FloatArray) -> None:
        """Add the source to an image (H, W), within its reach only."""
        reach = int(np.ceil(0.5 * self.long_px + REACH_SIGMAS * self._widest())) + 1
        row, column = max(round(self.y) - reach, 0), max(round(self.x) - reach, 0)
        part = image[row : max(round(self.y) + reach + 1, 0), column : max(round(self.x) + reach + 1, 0)]
        if part.size:
            outline, shape = OUTLINES[self.outline](self.psf), (part.shape[0], part.shape[1])
            part += self.intensity * light_of(outline, np.array([self.x - column, self.y - row, *self.shape]), shape)[0]

    def _axis(self, sign: float) -> float:
        factor = DIAMETER_PER_SIGMA if self.outline == "disc" else FWHM_PER_SIGMA
        return float(factor * np.exp(self.shape[0] + sign * np.hypot(self.shape[1], self.shape[2])))

    def _widest(self) -> float:
        """Largest standard deviation of the blurred source in px, its own length left out for a streak."""
        psf = float(np.linalg.eigvalsh(covariance_of(self.psf))[1]) ** 0.5
        return psf if self.outline == "streak" else float(np.hypot(psf, self.long_px / FWHM_PER_SIGMA))
