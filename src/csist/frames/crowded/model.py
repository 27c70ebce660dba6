"""The linearised image model of a crowded frame: light of the targets, and a background of quadratic B-splines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from scipy.interpolate import BSpline
from scipy.sparse import coo_array, csr_array, kron

from csist._types import BoolArray, FloatArray, IntArray
from csist.frames.background.estimate import Background
from csist.frames.measured import FramePSF, MeasuredFrame
from csist.physics.psf import PSF, by_place, equivalent_sigma, lone_significance, outer_response

PATCH_PX, PATCH_SIGMAS = 48.0, 16.0
"""Least spacing of the background's nodes, in px and in sigma: what bends more closely may be light of targets."""
BENT_SIGMAS = 2.0
"""Significance as a target, of what the darkest pixels leave of such a background, from which the spacing is halved."""
DEGREE = 2
"""Of the splines: patches with kinks leave a smooth hump standing out between their nodes."""
FIRST_LEVEL = 0.05
"""Quantile of a patch that its background starts from: where all pixels hold light, only the darkest show it."""
LOST_LIGHT = 0.2
"""Light of a target below this share of the noise is left out of the model."""
DIFFERENCE_PX = 0.1


@dataclass(frozen=True, eq=False)
class CrowdedFrame:
    """A frame whose targets are fitted simultaneously: pixels, noise and PSF.

    Args:
        image: (H, W) in counts.
        valid: (H, W) pixels that count.
        psf: point spread function.
        noise_std: noise of a pixel without a target, in counts.
        gain: electrons per count, None for no shot noise of the targets.
        psf_error: error of the PSF as a share of the light in a pixel.
        measured: whether the noise is measured again on the residual of every pass, `noise_std` being a first guess.
        error: (H, W) standard deviation of each pixel in counts if it is known, photons of the targets included;
            `noise_std` is a typical one then.
        spacing_px: of the background's nodes.
        may_count_photons: whether the values may be numbers of photons: whether the gain is 1 is left to the fit.
    """

    image: FloatArray
    valid: BoolArray
    psf: PSF
    noise_std: float
    gain: float | None
    psf_error: float
    measured: bool = False
    error: FloatArray | None = None
    spacing_px: float = PATCH_PX
    may_count_photons: bool = False

    @classmethod
    def of(cls, frame: MeasuredFrame, psf: FramePSF, gain: float | None) -> CrowdedFrame:
        """A measured frame with its PSF and the gain in electrons per count."""
        sigma_px = equivalent_sigma(psf.psf)
        plain = cls(
            image=frame.image,
            valid=~(frame.pixels.masked | frame.pixels.saturated),
            psf=psf.psf,
            noise_std=float(np.median(frame.background.noise)),
            gain=gain if frame.error is None else None,
            psf_error=psf.error,
            measured=frame.noise_measured,
            error=frame.error,
            spacing_px=max(PATCH_PX, PATCH_SIGMAS * sigma_px),
            may_count_photons=gain is None and frame.counts_photons,
        )
        return replace(plain, spacing_px=0.5 * plain.spacing_px) if _is_bent(plain) else plain

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the frame."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def sigma_px(self) -> float:
        """Sigma of the Gaussian with the same noise-equivalent area."""
        return equivalent_sigma(self.psf)

    @property
    def lone_error(self) -> float:
        """Standard error in counts of the flux of a target alone."""
        return self.noise_std / lone_significance(self.psf)

    @property
    def patches(self) -> csr_array:
        """(pixels, nodes) the background of each node."""
        return background_patches(self.shape, self.spacing_px)

    def weight(self, light: FloatArray) -> FloatArray:
        """Inverse standard deviation (H, W) of a pixel, given the light of the targets; 0 where not valid."""
        light = np.maximum(light, 0.0)
        dark = self.noise_std if self.error is None else self.error
        variance = dark**2 + (self.psf_error * light) ** 2
        if self.gain is not None:
            variance += light / self.gain
        return np.where(self.valid, 1.0 / np.sqrt(variance), 0.0)


@dataclass(frozen=True, eq=False)
class CrowdedFit:
    """Fitted targets and background.

    Args:
        targets: (n, 3) x, y in px and flux in counts.
        nodes: (m,) coefficients of `background_patches`, in counts.
    """

    targets: FloatArray
    nodes: FloatArray


@dataclass(frozen=True, eq=False)
class PatchBackground:
    """Background of smooth patches, and the noise.

    Args:
        shape: (rows, columns) of the frame.
        spacing_px: of the nodes.
        nodes: (m,) coefficients of `background_patches`, in counts.
        noise_std: noise of a pixel without a target, in counts.
        error: (H, W) standard deviation of each pixel in counts; None where all have that noise.
    """

    shape: tuple[int, int]
    spacing_px: float
    nodes: FloatArray
    noise_std: float
    error: FloatArray | None = field(default=None, repr=False)

    @classmethod
    def of(cls, frame: CrowdedFrame, fit: CrowdedFit) -> PatchBackground:
        """The background of a fit."""
        return cls(frame.shape, frame.spacing_px, fit.nodes, frame.noise_std, frame.error)

    def spread(self) -> Background:
        """Level and noise of each pixel."""
        down, across = (_splines(length, self.spacing_px) for length in self.shape)
        level = down @ (across @ self.nodes.reshape(down.shape[1], across.shape[1]).T).T
        return Background(level, np.full(self.shape, self.noise_std) if self.error is None else self.error)

    def compact(self) -> PatchBackground:
        """The background itself, which takes little memory."""
        return self


def _intervals(length: int, spacing_px: float) -> int:
    """Number of intervals between the nodes along rows or columns."""
    return max(1, round(length / spacing_px))


def _splines(length: int, spacing_px: float) -> csr_array:
    """B-splines (length, nodes) along rows or columns."""
    number = _intervals(length, spacing_px)
    step = max(length - 1, 1) / number
    knots = step * np.arange(-DEGREE, number + DEGREE + 1)
    knots[number + DEGREE] = max(length - 1, 1)  # not a little less, by rounding
    return csr_array(BSpline.design_matrix(np.arange(float(length)), knots, DEGREE))


@lru_cache(maxsize=4)
def background_patches(shape: tuple[int, int], spacing_px: float) -> csr_array:
    """Products of B-splines (pixels, nodes), the background of a frame."""
    rows, columns = shape
    return csr_array(kron(_splines(rows, spacing_px), _splines(columns, spacing_px)))


def _node_places(length: int, spacing_px: float) -> IntArray:
    """Pixel nearest to the middle of each spline along rows or columns."""
    number = _intervals(length, spacing_px)
    middle = (np.arange(number + DEGREE) + 0.5 * (1 - DEGREE)) * (length - 1) / number
    return np.clip(np.rint(middle), 0, length - 1).astype(np.int64)


def first_nodes(frame: CrowdedFrame) -> FloatArray:
    """Starting values (nodes,) of the background in counts."""
    rows, columns = (_node_places(length, frame.spacing_px) for length in frame.shape)
    return _darkest(frame, rows, columns, int(frame.spacing_px)).ravel() + 1.6 * frame.noise_std


def _darkest(frame: CrowdedFrame, rows: IntArray, columns: IntArray, reach: int) -> FloatArray:
    """A low quantile in counts of the pixels around each of some rows and columns."""
    everything = frame.image[frame.valid]
    found = np.empty((len(rows), len(columns)))
    for a, i in enumerate(rows):
        for b, j in enumerate(columns):
            part = np.s_[max(i - reach, 0) : i + reach + 1, max(j - reach, 0) : j + reach + 1]
            values = frame.image[part][frame.valid[part]]
            found[a, b] = np.quantile(values if values.size else everything, FIRST_LEVEL)
    return found


def _is_bent(frame: CrowdedFrame) -> bool:
    """Whether the darkest pixels of a frame bend more closely than its background can: the rest looks like targets."""
    close = 0.5 * frame.spacing_px
    rows, columns = (np.unique(_node_places(length, close)) for length in frame.shape)
    dark = _darkest(frame, rows, columns, int(0.5 * close)).ravel()
    pixels = (rows[:, None] * frame.shape[1] + columns).ravel()
    patches = background_patches(frame.shape, frame.spacing_px)[pixels].toarray()
    left = dark - patches @ np.linalg.lstsq(patches, dark, rcond=1e-3)[0]
    return bool(np.abs(left).max() > BENT_SIGMAS * frame.noise_std * lone_significance(frame.psf))


def _reach(frame: CrowdedFrame, flux: FloatArray) -> IntArray:
    """Half side (n,) in px of the square in which a target's light matters."""
    outside = outer_response(frame.psf)
    full = len(outside)
    reach = np.searchsorted(-outside, -LOST_LIGHT * frame.noise_std / np.maximum(flux, 1e-300))
    # Few distinct sizes, so that many targets are drawn at once.
    return np.minimum(np.maximum(3 * -(-reach // 3), int(np.ceil(3.0 * frame.sigma_px))), full)


def _alike(psf: PSF, targets: FloatArray, reach: IntArray) -> Iterator[tuple[PSF, int, IntArray]]:
    """Each PSF and half side of the square that some targets (n, 3) share, with the indices of these targets."""
    for half in np.unique(reach):
        members = np.flatnonzero(reach == half)
        for own, chosen in by_place(psf, targets[members, 0], targets[members, 1]):
            yield own, int(half), members[chosen]


def design_matrix(frame: CrowdedFrame, targets: FloatArray, curved: bool = False) -> csr_array:
    """Derivatives (pixels, 3 n) of the image by x, y and flux of each target.

    With `curved`, derivatives by xx, xy and yy instead: half of the second derivatives of a target of flux 1.
    """
    rows, columns = frame.image.shape
    reach = _reach(frame, targets[:, 2])
    parts: list[tuple[IntArray, IntArray, FloatArray]] = []
    for psf, half, chosen in _alike(frame.psf, targets, reach):
        x, y, flux = (targets[chosen, k, None, None] for k in range(3))
        i = np.rint(y).astype(int) + np.arange(-half, half + 1)[:, None]
        j = np.rint(x).astype(int) + np.arange(-half, half + 1)[None, :]
        dx, dy = j - x, i - y
        if curved:
            (xx, xy), (_, yy) = (
                [(after - before) / (2.0 * DIFFERENCE_PX) for after, before in zip(ahead, behind, strict=True)]
                for ahead, behind in (
                    (psf.gradient(dx - DIFFERENCE_PX, dy), psf.gradient(dx + DIFFERENCE_PX, dy)),
                    (psf.gradient(dx, dy - DIFFERENCE_PX), psf.gradient(dx, dy + DIFFERENCE_PX)),
                )
            )
            values = [0.5 * xx, xy, 0.5 * yy]
        else:
            along_x, along_y = psf.gradient(dx, dy)
            values = [flux * along_x, flux * along_y, psf.response(dx, dy)]
        inside = (i >= 0) & (i < rows) & (j >= 0) & (j < columns)
        pixel = (i * columns + j)[inside]
        for k, value in enumerate(values):
            column = np.broadcast_to(3 * chosen[:, None, None] + k, inside.shape)[inside]
            parts.append((pixel, column, value[inside]))
    if not parts:
        return csr_array((rows * columns, 0))
    pixel, column, value = (np.concatenate(each) for each in zip(*parts, strict=True))
    return csr_array(coo_array((value, (pixel, column)), shape=(rows * columns, 3 * len(targets))))
