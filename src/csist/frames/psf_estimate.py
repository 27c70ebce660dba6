"""What a measurement of the PSF says, see `csist.frames.psf_measure`."""

from __future__ import annotations

from dataclasses import dataclass, field

from csist._types import FloatArray
from csist.physics.psf import GaussianPSF, SampledPSF


@dataclass(frozen=True)
class PSFEstimate:
    """What frames say of their PSF.

    Args:
        sigma_px: standard deviation of the Gaussian PSF in px.
        sigma_px_std: its standard error.
        psf_error: standard deviation of what the PSF leaves, as a share of a source's brightest pixel.
        sources: how many sources it comes from.
        candidates: how many isolated, bright and unsaturated sources there were.
        frames: how many frames were looked at.
        profile: (n, 3) pixels of the sources: distance in columns and rows from the source, px, and share of its flux.
        sampled: the oversampled PSF, if that was asked for.
    """

    sigma_px: float
    sigma_px_std: float
    psf_error: float
    sources: int
    candidates: int
    frames: int
    profile: FloatArray = field(repr=False, compare=False)
    sampled: SampledPSF | None = field(default=None, repr=False)

    @property
    def gaussian(self) -> GaussianPSF:
        """The Gaussian that fits the sources best."""
        return GaussianPSF(self.sigma_px)

    @property
    def psf(self) -> GaussianPSF | SampledPSF:
        """The PSF itself: the empirical one if it was asked for, else the Gaussian."""
        return self.gaussian if self.sampled is None else self.sampled
