"""The result of measuring the PSF, see `csist.frames.psf.measure`."""

from __future__ import annotations

from dataclasses import dataclass, field

from csist._types import FloatArray
from csist.physics.psf import EllipticalGaussianPSF, GaussianPSF, SampledPSF


@dataclass(frozen=True)
class PSFEstimate:
    """The PSF measured on frames.

    Args:
        sigma_px: standard deviation of the Gaussian PSF in px.
        sigma_px_std: its standard error.
        psf_error: standard deviation of the residual beyond the noise, as a share of a source's brightest pixel.
        sources: number of sources it comes from.
        candidates: number of isolated, bright and unsaturated sources.
        frames: number of frames measured.
        profile: (n, 3) pixels of the sources: distance in columns and rows from the source, px, and share of its flux.
        sampled: the oversampled PSF, if that was asked for.
        elliptical: the elliptical Gaussian, if the sources show that the PSF is elongated.
    """

    sigma_px: float
    sigma_px_std: float
    psf_error: float
    sources: int
    candidates: int
    frames: int
    profile: FloatArray = field(repr=False, compare=False)
    sampled: SampledPSF | None = field(default=None, repr=False)
    elliptical: EllipticalGaussianPSF | None = None

    @property
    def gaussian(self) -> GaussianPSF:
        """The circular Gaussian that fits the sources best."""
        return GaussianPSF(self.sigma_px)

    @property
    def psf(self) -> GaussianPSF | EllipticalGaussianPSF | SampledPSF:
        """The PSF itself: the empirical one if it was asked for, else the Gaussian, elliptical if it is elongated."""
        return self.sampled or self.elliptical or self.gaussian
