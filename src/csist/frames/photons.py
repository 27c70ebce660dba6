"""The gain of a frame whose camera is not known, from the noise of its bright isolated sources.

The pixels of a source scatter about its fit by the noise of the dark, by that of its photons, whose variance is the
light over the gain, and, where the PSF is not the fitted one, by a share of the light. These grow differently with the
light (as in the photon transfer of a camera's calibration; Janesick, Photon Transfer, 2007, chapter 5), so that sources
of different brightness tell them apart. A fit takes a part of the scatter away, which is accounted for: least squares
leave (1 - H) e of the noise e, with the projection H onto the slopes of the fit, and onto the second derivatives of the
PSF, which is what unresolved neighbours and a PSF of another width change first.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls

from csist._types import FloatArray
from csist.frames.detection.detect import detect_peaks
from csist.frames.detection.peaks import Peaks
from csist.frames.detection.spots import Spot
from csist.frames.measured import MeasuredFrame
from csist.frames.options import FrameOptions
from csist.frames.psf.measure import agreeing, spots_of
from csist.physics.psf import PSF, GaussianPSF
from csist.physics.sensor import Sensor

logger = logging.getLogger(__name__)

BRIGHT_SIGMAS = 30.0
"""Significance of the sources on which the gain is measured."""
LIKE_ONE = 0.6, 1.7
"""Measured gains that may be 1 of a frame whose values may be numbers of photons."""
LEAST_SPOTS = 5
"""Sources without which no gain is measured."""
CERTAIN = 10.0
"""Gain in log likelihood by the noise of photons from which they are believed to be seen."""
NEEDED = 4.0
"""The same by a misfit of the PSF that grows with the light, and by photons beside it."""
OUTLYING = 4.0
"""Scatter in units of that expected from which a source is no single point."""
TOO_QUIET = 2.2
"""Mean deviance of the sources of less scatter than expected from which it is not that of photons."""
WING = 0.05
"""Light of a pixel, as a share of the brightest one, below which it counts less."""
BEND_PX = 0.05
"""Step of the second derivatives of the PSF."""
ROUNDS = 10
SCORINGS, CONVERGED = 50, 1e-6
"""Most steps to the most likely variances, and gain in log likelihood at which they end."""


def with_gain(options: FrameOptions, frame: MeasuredFrame, psf: PSF, peaks: Peaks | None = None) -> FrameOptions:
    """The options with the gain that a frame's bright sources show, where its noise is measured and no gain is given.

    Args:
        options: of the frame.
        frame: as it was measured.
        psf: of the frame.
        peaks: its peaks, the most significant first; None detects them.
    """
    if options.gain is not None or not frame.noise_measured:
        return options
    if peaks is None:
        peaks = detect_peaks(frame.image, frame.background, frame.pixels.masked, psf)[0]
    gain = gain_of_spots(spots_of(frame, peaks[peaks.significance >= BRIGHT_SIGMAS]), psf)
    if gain is None:
        return options
    if frame.counts_photons and LIKE_ONE[0] < gain < LIKE_ONE[1]:
        gain = 1.0
    logger.info("gain: %.3g electrons per count, by the scatter of bright sources", gain)
    return replace(options, sensor=replace(options.sensor or Sensor(), gain=gain))


class Scatter(NamedTuple):
    """Variance of the pixels of a source about its fit, in units of their light.

    Args:
        total: that was found.
        dark: that of the noise of the dark.
        light: what a variance of the square of the light would be, in counts.
        pixels: number of independent pixels that it comes from.
    """

    total: float
    dark: float
    light: float
    pixels: float


def scatter_of(spot: Spot, psf: PSF) -> Scatter:
    """The scatter of the pixels of a spot about its fit.

    Args:
        spot: the source.
        psf: that of the frame, of which a circular Gaussian has the width of the spot.
    """
    dx, dy, share = spot.profile.T
    own = GaussianPSF(spot.sigma_px) if isinstance(psf, GaussianPSF) else psf.at(spot.x, spot.y)
    response = own.response(dx, dy)
    light = spot.flux * np.maximum(response, 0.0)
    ahead, behind = (np.array(own.gradient(dx + step, dy)) for step in (BEND_PX, -BEND_PX))
    above, below = (np.array(own.gradient(dx, dy + step)) for step in (BEND_PX, -BEND_PX))
    slopes = [*own.gradient(dx, dy), response, np.ones(len(dx)), *(ahead - behind), (above - below)[1]]
    base = np.linalg.qr(np.stack(slopes, axis=1))[0]
    rest = spot.flux * (share - base @ (base.T @ share))
    left = (np.eye(len(dx)) - base @ base.T) ** 2
    by_photons = left @ light
    weight = by_photons / (left @ (light + WING * light.max())) ** 2
    unit = float(weight @ by_photons)
    return Scatter(
        total=float(weight @ rest**2) / unit,
        dark=spot.noise_std**2 * float(weight @ left.sum(axis=1)) / unit,
        light=float(weight @ (left @ light**2)) / unit,
        pixels=unit**2 / float(((weight * by_photons) ** 2).sum()),
    )


def gain_of_spots(spots: Sequence[Spot], psf: PSF) -> float | None:
    """Electrons per count, from the noise of isolated point sources; None where it does not show their photons.

    Args:
        spots: fitted sources.
        psf: of the frame.
    """
    alike = agreeing(list(spots))
    if len(alike) < LEAST_SPOTS:
        return None
    every = _Model(*np.array([scatter_of(spot, psf) for spot in alike]).T)
    kept = every.total <= np.median(every.total)  # unresolved pairs scatter more
    per_light = 0.0
    for _ in range(ROUNDS):
        per_light, per_square = _Model(*(values[kept] for values in every)).settled()
        before, kept = kept, every.total < OUTLYING * (every.dark + per_light + per_square * every.light)
        if kept.sum() < LEAST_SPOTS:
            return None
        if (kept == before).all():
            break
    if not per_light > 0.0 or _Model(*(values[kept] for values in every)).disquiet(per_light, per_square) >= TOO_QUIET:
        return None
    return 1.0 / per_light


class _Model(NamedTuple):
    """Scatters (n,) of sources, as sums of that of the dark, of photons and of a misfit."""

    total: FloatArray
    dark: FloatArray
    light: FloatArray
    pixels: FloatArray

    def settled(self) -> tuple[float, float]:
        """Most likely variances per light and per light squared, of which 0 are those that are not needed."""
        alone = self.log_likelihood(0.0, 0.0)
        photons, misfit, both = (self._most_likely(*free) for free in ((True, False), (False, True), (True, True)))
        if self.log_likelihood(*both) > self.log_likelihood(*photons) + NEEDED:
            needed = self.log_likelihood(*both) > self.log_likelihood(*misfit) + NEEDED
            return both if needed else misfit
        return photons if self.log_likelihood(*photons) > alone + CERTAIN else (0.0, 0.0)

    def log_likelihood(self, per_light: float, per_square: float) -> float:
        """Of scatters that are distributed as chi-squared."""
        expected = self.dark + per_light + per_square * self.light
        return float((-0.5 * self.pixels * (np.log(expected) + self.total / expected)).sum())

    def disquiet(self, per_light: float, per_square: float) -> float:
        """Mean deviance of the sources that scatter less than expected; about 1 if the expectation is true.

        Photons leave no source quiet. Unresolved pairs raise the scatter of some, and of others hardly.
        """
        ratio = self.total / (self.dark + per_light + per_square * self.light)
        low = np.flatnonzero(ratio < 1.0)
        return float((self.pixels[low] * (ratio[low] - 1.0 - np.log(ratio[low]))).sum() / max(low.size, 1))

    def _most_likely(self, photons: bool, misfit: bool) -> tuple[float, float]:
        """By Fisher scoring: least squares whose weights are those of the last step, halved where it goes too far."""
        free = np.array([photons, misfit])
        terms = np.stack([np.ones_like(self.light), self.light])[free]
        place = np.where(free, [np.median(self.total), np.median(self.total / self.light)], 0.0) / free.sum()
        value = self.log_likelihood(*place)
        for _ in range(SCORINGS):
            weights = self.pixels**0.5 / (self.dark + place[0] + place[1] * self.light)
            aim = np.zeros(2)
            aim[free] = nnls((terms * weights).T, weights * (self.total - self.dark))[0]
            step = aim - place
            reached = self.log_likelihood(*(place + step))
            while reached < value and np.abs(step).max() > 1e-9 * place.max():
                step *= 0.5
                reached = self.log_likelihood(*(place + step))
            if reached < value + CONVERGED:
                break
            place, value = place + step, reached
        return float(place[0]), float(place[1])
