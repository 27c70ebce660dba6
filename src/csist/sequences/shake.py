"""How a camera shakes: shifts of whole frames against each other that its groups share.

The middle of group g in frame t lies at p_g(t) + s(t), where p_g is the group's path, a polynomial of time, and s the
frame's shift. Both are fitted by weighted least squares in turn. What paths can describe is not in s: a camera that
drifts moves all groups alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares
from scipy.stats import chi2, norm

from csist._types import BoolArray, FloatArray, IntArray
from csist.frames.medians import row_medians
from csist.physics.psf import PSF, equivalent_sigma
from csist.targets import Targets

ROUNDS = 30
"""Times that paths and shifts are fitted in turn."""
CLIP = 4.0
"""Usual distances from its path beyond which a group has no say in a frame: its light is seen wrongly there."""
CHANCE = 1e-4
"""Probability with which a camera that stands is taken for one that shakes."""
AKAIKE = 2.0
"""Gain in chi-squared that a parameter is worth (Akaike, IEEE Trans. Autom. Control 19, 1974)."""


class Shake(NamedTuple):
    """Shifts of some frames.

    Args:
        shift: (T, 2) along x and y in px.
        std: (T,) its standard error along each axis in px.
    """

    shift: FloatArray
    std: FloatArray

    @property
    def rms_px(self) -> float:
        """Root mean square of the shifts along an axis."""
        return float(np.sqrt((self.shift**2).mean()))

    @property
    def price(self) -> float:
        """Gain in chi-squared that these shifts have to bring."""
        return AKAIKE * float(np.count_nonzero(self.shift))

    def of(self, part: slice) -> Shake:
        """That of some of the frames."""
        return Shake(self.shift[part], self.std[part])

    def applied(self, frames: Sequence[Targets]) -> list[Targets]:
        """Targets of each frame where the camera sees them, from where it would see them if it stood."""
        return [
            targets.shifted(x, y).replace(x_std=np.hypot(targets.x_std, std), y_std=np.hypot(targets.y_std, std))
            for targets, (x, y), std in zip(frames, self.shift.tolist(), self.std.tolist(), strict=True)
        ]


class Middles(NamedTuple):
    """Where the middle of each of some groups is seen.

    Args:
        place: (n, T, 2) x, y in px.
        error: (n, T) standard error of each coordinate; infinite where a group is not seen.
        degree: (n,) degrees of the polynomials of time that the groups follow.
    """

    place: FloatArray
    error: FloatArray
    degree: IntArray

    def of(self, group: int) -> Middles:
        """Those of one group."""
        one = slice(group, group + 1)
        return Middles(self.place[one], self.error[one], self.degree[one])

    def without(self, left_out: BoolArray) -> Middles:
        """The same without what is left out (n, T)."""
        return self._replace(error=np.where(left_out, np.inf, self.error))

    def seen_enough(self) -> Middles:
        """Those of the groups that are seen in more frames than their paths need."""
        enough = np.isfinite(self.error).sum(axis=1) > self.degree + 2
        return Middles(self.place[enough], self.error[enough], self.degree[enough])


def steady(frames: int) -> Shake:
    """A camera that stands."""
    return Shake(np.zeros((frames, 2)), np.zeros(frames))


def middle_error(flux: float, noise_std: float, psf: PSF, gain: float | None = None) -> float:
    """Standard error in px of the middle of a group: that of a lone source with all its light.

    From the Fisher information of a Gaussian in white noise and of its photons.

    Args:
        flux: in counts.
        noise_std: of a pixel in counts, without the photons of the group.
        psf: point spread function.
        gain: electrons per count; None leaves the photons of the group out.
    """
    sigma_px, flux = equivalent_sigma(psf), max(flux, 1e-12)
    variance = 8.0 * math.pi * (noise_std * sigma_px**2 / flux) ** 2
    return math.sqrt(variance if gain is None else variance + sigma_px**2 / (flux * gain))


class _Seen(NamedTuple):
    """A frame and its targets, to be moved.

    Args:
        data: (H, W) in counts, background subtracted.
        root: (H, W) roots of the weights.
        targets: where they are said to be.
        psf: point spread function.
    """

    data: FloatArray
    root: FloatArray
    targets: Targets
    psf: PSF

    def _beside(self, moved: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Distances (n, H, W) of the pixels from the targets moved by (2,) px, along x and y."""
        rows, columns = np.indices(self.data.shape)
        x, y = self.targets.x + moved[0], self.targets.y + moved[1]
        return columns - x[:, None, None], rows - y[:, None, None]

    def rest(self, moved: FloatArray) -> FloatArray:
        """What the targets, moved by (2,) px, leave of each pixel (H W,), in units of its noise."""
        light = np.tensordot(self.targets.intensity, self.psf.response(*self._beside(moved)), 1)
        return np.asarray(self.root * (self.data - light)).ravel()

    def slopes(self, moved: FloatArray) -> FloatArray:
        """Derivatives (H W, 2) of `rest`."""
        slopes = (np.tensordot(self.targets.intensity, each, 1) for each in self.psf.gradient(*self._beside(moved)))
        return np.stack([-(self.root * each).ravel() for each in slopes], axis=1)


def displacements(
    data: FloatArray, weight: FloatArray, frames: Sequence[Targets], psf: PSF, exact: bool = True
) -> tuple[FloatArray, FloatArray]:
    """By how much the light of each frame lies beside where its targets are said to be, by weighted least squares.

    Args:
        data: (T, H, W) in counts, background subtracted.
        weight: (T, H, W) inverse variances, 0 where there is no value.
        frames: targets of each frame.
        psf: point spread function.
        exact: whether the least squares are solved; else it is one step of Gauss and Newton, which shows whether there
            is anything to solve.

    Returns:
        (T, 2) along x and y in px, and its standard error (T,) along each axis; infinite where no light is seen.
    """
    shift, error = np.zeros((len(data), 2)), np.full(len(data), np.inf)
    for t, targets in enumerate(frames):
        if not len(targets) or not weight[t].any():
            continue
        seen = _Seen(data[t], np.sqrt(weight[t]), targets, psf)
        place = least_squares(seen.rest, shift[t], seen.slopes, method="lm").x if exact else shift[t]
        slopes = seen.slopes(place)
        information = slopes.T @ slopes
        if np.linalg.det(information) > 0.0:
            step = np.zeros(2) if exact else -np.linalg.solve(information, slopes.T @ seen.rest(place))
            shift[t], error[t] = place + step, math.sqrt(0.5 * float(np.trace(np.linalg.inv(information))))
    return shift, error


def shake_of(middles: Middles, times: FloatArray) -> Shake | None:
    """The shifts that groups share; None where they are not seen to share any.

    Of two groups and more, what moves them beside their paths must be correlated; where only one is seen, nothing is
    known. A single group says what moves it, whatever that is, but what moves it slowly is a manoeuvre of its own.

    Args:
        middles: of the groups.
        times: (T,) of the frames, increasing.
    """
    middles = middles.seen_enough()
    groups = len(middles.place)
    if groups > 1:
        together = np.isfinite(middles.error).sum(axis=0) > 1
        middles = middles.without(~together[None]).seen_enough()
    if len(middles.place) < max(min(groups, 2), 1):
        return None
    found = _fitted(middles, times)
    frames = found.weight.any(axis=0)
    freedom = 2 * int(frames.sum() - middles.degree.max() - 1)
    if freedom <= 0:
        return None
    variance = 1.0 / np.maximum(found.weight.sum(axis=0), 1e-300)
    power = found.shift[frames] ** 2 / variance[frames, None]
    is_shared = _are_correlated(found.beside, found.weight) if groups > 1 else _turns_often(found.shift[frames])
    if power.sum() < chi2.isf(CHANCE, freedom) or not is_shared:
        return None
    usual = max(float((found.shift[frames] ** 2).sum() / freedom - variance[frames].mean()), 1e-300)
    share = np.where(frames, usual / (usual + variance), 0.0)
    return Shake(found.shift * share[:, None], np.sqrt(np.where(frames, share * variance, usual)))


class _Fit(NamedTuple):
    """Shifts and what they leave.

    Args:
        shift: (T, 2) of the frames.
        beside: (n, T, 2) by how much groups lie beside paths fitted to them alone.
        weight: (n, T) inverse variances of the groups' middles; 0 where a group is not seen or has no say.
    """

    shift: FloatArray
    beside: FloatArray
    weight: FloatArray


def _fitted(middles: Middles, times: FloatArray) -> _Fit:
    """Fit the shifts of the frames and the paths of the groups in turn."""
    place, error, degrees = middles
    since = (times - times[0]) / max(float(times[-1] - times[0]), 1e-300)
    powers = since[:, None] ** np.arange(int(degrees.max()) + 1)
    seen, shift, rest = np.isfinite(error), np.zeros((len(times), 2)), np.zeros(place.shape)
    place, weight = np.where(seen[..., None], place, 0.0), np.where(seen, 1.0 / error**2, 0.0)
    rounds = ROUNDS if len(place) > 1 else 2  # one group agrees with itself
    for number in range(rounds):
        for k, degree in enumerate(degrees):
            fitted = _polynomial(powers[:, : degree + 1], place[k] - shift, weight[k])
            rest[k] = np.where(seen[k, :, None], place[k] - shift - fitted, 0.0)
        total = weight.sum(axis=0)
        if number < rounds // 2:  # a group that manoeuvres must not pull the others off their paths
            known = np.where(seen[..., None], rest, np.nan)
            shift += np.nan_to_num(row_medians(np.moveaxis(known, 0, -1)))
        else:
            shift += (weight[..., None] * rest).sum(axis=0) / np.maximum(total, 1e-300)[:, None]
            weight = _weights(rest, error)
        shift = np.where(total[:, None] > 0.0, shift - _polynomial(powers, shift, total), 0.0)
    alone = [
        own - _polynomial(powers[:, : degree + 1], own, each)
        for own, each, degree in zip(place, weight, degrees, strict=True)
    ]
    return _Fit(shift, np.stack(alone), weight)


def _weights(rest: FloatArray, error: FloatArray) -> FloatArray:
    """Inverse variances (n, T) of groups: their errors, or by how much they usually are beside their paths if more.

    A group has no say where it is much farther from its path than groups usually are.
    """
    seen = np.isfinite(error)
    ratio = np.where(seen, np.hypot(rest[..., 0], rest[..., 1]) / error, np.nan)
    # The median of the length of two normal numbers is 1.18; the mean of n groups takes 1 / n of the variance.
    free = math.sqrt(max(1.0 - 1.0 / len(rest), 0.5))
    own = np.maximum(row_medians(ratio)[:, None] / (1.18 * free), 1.0)
    usual = max(float(np.median(ratio[seen])), 1.0)
    return np.where(seen & (np.nan_to_num(ratio) <= CLIP * usual), 1.0 / (error * own) ** 2, 0.0)


def _are_correlated(beside: FloatArray, weight: FloatArray) -> bool:
    """Whether groups (n, T, 2) move alike beside their paths, whatever the errors of their middles are."""
    seen = weight > 0.0
    beside = np.where(seen[..., None], beside, 0.0)
    size = np.sqrt((beside**2).sum(axis=(1, 2)) / np.maximum(2.0 * seen.sum(axis=1), 1.0))
    alike = beside / np.maximum(size, 1e-300)[:, None, None]
    products = np.einsum("gta,hta->gh", alike, alike)
    pairs = np.triu_indices(len(alike), 1)
    number = 2.0 * (seen.astype(float) @ seen.T)[pairs].sum()
    return bool(products[pairs].sum() > norm.isf(CHANCE) * math.sqrt(max(number, 1.0)))


def _turns_often(shift: FloatArray) -> bool:
    """Whether shifts (T, 2) change from frame to frame by as much as they are large (von Neumann's ratio above 1).

    Those of a sine do where it has a period of fewer than six frames.
    """
    return bool((np.diff(shift, axis=0) ** 2).sum() > (shift**2).sum())


def _polynomial(powers: FloatArray, values: FloatArray, weight: FloatArray) -> FloatArray:
    """The polynomial (T, 2) that fits values (T, 2) with weights (T,) best, from powers (T, m) of time."""
    root = np.sqrt(weight / max(float(weight.max()), 1e-300))[:, None]
    return np.asarray(powers @ np.linalg.lstsq(powers * root, values * root, rcond=None)[0])
