"""Point targets, one extended source, a streak, or one point whose PSF is not exact: which explains a blob?

All are compared on the same pixels, with the same noise and background terms, by Laplace's evidence. No PSF and no
outline is exact: the error of a model is noise that grows with the light (see `FramePSF.error`), and its size is one of
several that are equally probable, but not below the error of the PSF. An extended source is clearly wider than the PSF:
what is hardly wider is a point with another PSF, and what is wider in one direction only, and hardly so, is a close
pair.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from csist._types import FloatArray
from csist.frames.shapes.fit import Mode, Range, climb
from csist.frames.shapes.light import OUTLINES, covariance_of, point_targets
from csist.methods.continuous.likelihood import chi_squared
from csist.methods.continuous.model import Noise, Window, pixel_codes
from csist.physics.psf import PSF
from csist.physics.sensor import Sensor

MODEL_ERRORS = (0.2, 0.1, 0.05, 0.02)
"""Errors of a model, as a share of the light in a window's brightest pixel, each as probable as the others."""
LEAST_SIZE = 0.85
"""Least geometric mean of the standard deviations of an extended source, in widths of the PSF."""
MOST_SHEAR = 0.8
"""Largest half logarithm of the ratio of its axes: 5 to 1."""
LEAST_LENGTH = 5.0
"""Least length of a streak, in widths of the PSF."""
LEAST_WIDTH_PX = 0.5
"""Least width of the PSF that sizes are measured in: a pixel blurs, too."""
WIDTH_ERROR = 0.03
"""Standard deviation of the relative error of the width of a PSF that is stated."""
BACKGROUND_WIDTH = 10.0
"""A background term lies within so many noise standard deviations of zero."""
MOST_POINT_ERROR = 0.05
"""Largest error of the model of that point."""
MOST_BLUR = 3.0
"""Largest error of that width in standard deviations."""
STREAK_SHARE = 0.8
"""Longer standard deviation of an ellipse from which a streak is tried, in units of that of the shortest streak."""
ROUND_SHEAR = 0.25
"""Shear of an ellipse (1.6 to 1) up to which a point with another PSF is tried, and from which a streak is."""
FLUX_ROOM = 7.0
"""Room, in the logarithm, for the flux of one source beyond the bounds of a point's."""
HOPELESS = 15.0
"""Log evidence below that of one or two points from which no other outline is tried."""
OUT_OF_REACH = 30.0
"""Log evidence below that of one or two points that no outline needs to reach: its probability is 0."""
FALLING = 5.0
"""Log evidence below that of another model error from which no further ones are tried."""
PARAMETERS = {"ellipse": 5, "disc": 5, "streak": 4, "point": 3}
"""Number of parameters of each outline, place included."""
LOG_ODDS = {"blurred": -2.0, "extended": -3.0, "streak": -4.0}
"""Prior log odds of the hypotheses against a number of points."""
GROUPED = 6.0
"""Log evidence that each target from the third on gains: the targets of a group lie near each other and are of like
brightness, while the prior of a point has the whole window and all fluxes. Without it three close targets are one wide
source."""
ROUGH_ERROR, ROUGH_LOG_ODDS = 0.1, 2.0
"""Error of the PSF from which it is only roughly known, and the prior log odds there: it cannot tell points apart."""


@dataclass(frozen=True, eq=False)
class Scene:
    """The pixels of a blob, and what is known of its sources.

    Args:
        data: (h, w) background-subtracted counts without other blobs' light, NaN where masked.
        sensor: PSF, shot noise and saturation.
        noise: standard deviation of a pixel in counts.
        psf_error: of the PSF, as a share of the light in the brightest pixel.
        flux: least and largest flux of a point in counts.
        error: (h, w) standard deviation of each pixel in counts, if it is known.
    """

    data: FloatArray
    sensor: Sensor
    noise: float
    psf_error: float
    flux: tuple[float, float]
    error: FloatArray | None = None

    @property
    def psf(self) -> PSF:
        """The PSF."""
        return self.sensor.psf

    @cached_property
    def top(self) -> float:
        """Brightest pixel in counts."""
        return max(float(np.nanmax(self.data)), self.noise)

    @cached_property
    def window(self) -> Window:
        """The pixels as the solver takes them, with a surface of second degree as background."""
        data, code = pixel_codes(self.data, self.sensor)
        rows, columns = data.shape
        y, x = np.meshgrid(np.linspace(-1.0, 1.0, rows), np.linspace(-1.0, 1.0, columns), indexing="ij")
        one = np.ones(data.shape)
        basis = np.stack([one, x, y, x**2 - one / 3.0, x * y, y**2 - one / 3.0])
        weight = np.ones(data.shape)
        if self.error is not None:
            usable = np.isfinite(self.error) & (self.error > 0.0)
            np.divide(self.noise, self.error, out=weight, where=usable)
            weight = weight**2
        return Window(np.ascontiguousarray(data), np.ascontiguousarray(code), weight, 0, 0, basis)

    def noise_with(self, model_error: float) -> Noise:
        """Noise of a pixel, with the error of a model as a share of the light in the brightest pixel."""
        gain = self.sensor.gain
        return Noise(self.noise**2, (0.0 if gain is None else 1.0 / gain) + model_error**2 * self.top, -1.0)

    @property
    def errors(self) -> list[float]:
        """Errors of a model, the largest first: none is smaller than that of the PSF."""
        return [error for error in MODEL_ERRORS if error > self.psf_error] or [self.psf_error]

    def log_odds(self, name: str) -> float:
        """Prior log odds of a hypothesis against a number of points."""
        return ROUGH_LOG_ODDS if self.is_rough else LOG_ODDS[name]

    @property
    def grouped(self) -> float:
        """Log evidence that each target from the third on gains."""
        return 0.0 if self.is_rough else GROUPED

    @property
    def is_rough(self) -> bool:
        """Whether the PSF is only roughly known."""
        return self.psf_error >= ROUGH_ERROR

    def background(self, terms: int) -> Range:
        """Bounds of the background's coefficients."""
        most = np.full(terms, BACKGROUND_WIDTH * self.noise)
        return Range.uniform(-most, most)

    def place(self) -> Range:
        """Bounds of a position."""
        rows, columns = self.data.shape
        return Range.uniform(np.array([-0.5, -0.5]), np.array([columns - 0.5, rows - 0.5]))

    def log_flux(self, room: float = 0.0) -> Range:
        """Bounds of the logarithm of a flux, with so much room beyond the prior's."""
        low, high = np.log(self.flux)
        return Range(np.array([low - room]), np.array([high + room]), np.array([high - low]), np.zeros(1))

    @property
    def width_px(self) -> float:
        """Width of the PSF that sizes are measured in."""
        return float(max(np.linalg.det(covariance_of(self.psf)) ** 0.25, LEAST_WIDTH_PX))

    @property
    def least_size_px(self) -> float:
        """Least size of an extended source: beyond what the error of the PSF makes of a point."""
        wider = (1.0 + 1.5 * self.psf_error) ** 2 - 1.0
        return float(self.width_px * max(LEAST_SIZE, wider**0.5))


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """One explanation of a blob.

    Args:
        name: "extended", "streak" or "blurred".
        log_weight: log evidence plus prior log odds.
        mode: its mode; parameters of the source, logarithm of its flux, background terms.
        outline: "ellipse", "disc", "streak" or "point".
        model_error: error of the model, as a share of the light in the brightest pixel.
        chi_squared: of the mode, the error of the model included in the noise.
    """

    name: str
    log_weight: float
    mode: Mode
    outline: str
    model_error: float
    chi_squared: float

    @property
    def flux_index(self) -> int:
        """Index of the logarithm of the flux among the parameters."""
        return PARAMETERS[self.outline]

    @property
    def theta(self) -> FloatArray:
        """Parameters of the mode."""
        return self.mode.theta


def weigh_points(scene: Scene, points: FloatArray, fitted: bool = False) -> float:
    """Log evidence of point targets.

    Args:
        scene: the blob.
        points: (n, 3) x, y in px and flux in counts to start from.
        fitted: whether they are a fit with a small error of the model, which is then tried first.
    """
    window, count = scene.window, len(points)
    terms = len(window.basis)
    fluxes = np.arange(2, 3 * count, 3)
    one = scene.place().joined(scene.log_flux(3.0))
    within = Range(*(np.tile(each, count) for each in one)).joined(scene.background(terms))
    start = np.concatenate([points.copy().ravel(), np.zeros(terms)])
    start[fluxes] = np.log(np.maximum(start[fluxes], 1e-3 * scene.flux[0]))
    weights: list[float] = []
    for error in reversed(scene.errors) if fitted else scene.errors:
        mode = climb(point_targets(scene.psf), start, within, window, scene.noise_with(error))
        start = mode.theta
        weights.append(mode.log_evidence)
        if mode.log_evidence < max(weights) - FALLING:
            break
    # Those that were not tried have no weight.
    untried = float(np.log(len(weights) / len(scene.errors)))
    orders = float(np.log(np.arange(1, count + 1)).sum())
    return _mean(weights) + untried + orders + scene.grouped * max(count - 2, 0)


def _mean(log_weights: list[float]) -> float:
    """Logarithm of the mean of some weights."""
    top = max(log_weights)
    return top + float(np.log(np.mean(np.exp(np.array(log_weights) - top)))) if np.isfinite(top) else -np.inf


def weigh_sources(scene: Scene, points: float, count: int, start: FloatArray) -> list[Hypothesis]:
    """The hypotheses of one source; those that cannot win are left out.

    Args:
        scene: the blob.
        points: log evidence of its point targets.
        count: number of these.
        start: (6,) x, y in px, logarithm of a size in px, two of shear, and flux in counts, to start from.
    """
    trial = _Trial(scene, scene.window, points - OUT_OF_REACH if count <= 2 else -np.inf)
    ellipses = trial.ellipses(start)
    best = max(ellipses, key=lambda each: each.log_weight)
    found = []
    if count > 2 or best.log_weight > points - HOPELESS:
        ellipses += trial.discs(best)
    shear = float(np.hypot(*best.theta[3:5]))
    elongated = shear > ROUND_SHEAR
    if elongated and np.exp(best.theta[2] + shear) > STREAK_SHARE * LEAST_LENGTH * scene.width_px / np.sqrt(12.0):
        found += _mixed("streak", trial.streaks(best), scene.log_odds("streak"))
    if (best.mode.given_up or bool(best.mode.at_bound[2])) and not elongated:
        found += _mixed("blurred", trial.blurred(best), scene.log_odds("blurred"))
    return [*_mixed("extended", ellipses, scene.log_odds("extended")), *found]


def _mixed(name: str, parts: list[Hypothesis], odds: float) -> list[Hypothesis]:
    """One hypothesis of several equally probable forms, with the mode of the best."""
    best = max(parts, key=lambda each: each.log_weight)
    total = _mean([each.log_weight for each in parts]) + odds
    return [replace(best, name=name, log_weight=total)] if np.isfinite(total) else []


@dataclass(frozen=True, eq=False)
class _Trial:
    """Fits of one source to a blob, each by all errors of its model.

    Args:
        scene: the blob.
        window: its pixels.
        needed: log evidence below which an outline is of no interest.
    """

    scene: Scene
    window: Window
    needed: float

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w) of the window."""
        return self.window.data.shape[0], self.window.data.shape[1]

    def ellipses(self, start: FloatArray) -> list[Hypothesis]:
        """Elliptical Gaussians, from a start as of `weigh_sources`."""
        at = np.concatenate([start[:5], np.log(start[5:]), np.zeros(len(self.window.basis))])
        return self._fits("ellipse", at, self._sizes())

    def discs(self, ellipse: Hypothesis) -> list[Hypothesis]:
        """Uniform elliptical discs, from an ellipse."""
        return self._fits("disc", ellipse.theta, self._sizes())

    def streaks(self, ellipse: Hypothesis) -> list[Hypothesis]:
        """Streaks, from an ellipse: with its angle and its variance along."""
        theta, width = ellipse.theta, self.scene.width_px
        least, most = np.log(LEAST_LENGTH * width), np.log(2.0 * max(self.shape) + LEAST_LENGTH * width)
        angle = 0.5 * float(np.arctan2(theta[4], theta[3]))
        length = theta[2] + float(np.hypot(*theta[3:5])) + 0.5 * np.log(12.0)
        at = np.concatenate([theta[:2], [length, angle], theta[5:]])
        line = Range.uniform(np.array([least, angle - 0.5 * np.pi]), np.array([most, angle + 0.5 * np.pi]))
        return self._fits("streak", at, line)

    def blurred(self, ellipse: Hypothesis) -> list[Hypothesis]:
        """A point whose PSF has another width, at the place of an ellipse."""
        sharpness = max(WIDTH_ERROR, 0.5 * self.scene.psf_error)
        most, width = np.full(1, MOST_BLUR * sharpness), np.full(1, np.sqrt(2.0 * np.pi) * sharpness)
        at = np.concatenate([ellipse.theta[:2], [0.0], ellipse.theta[5:]])
        change = Range(-most, most, width, np.full(1, sharpness**-2))
        # A point with a large error would be anything.
        errors = [error for error in self.scene.errors if error <= MOST_POINT_ERROR] or self.scene.errors[-1:]
        return self._fits("point", at, change, errors)

    def _sizes(self) -> Range:
        """Bounds of size and shear."""
        least, shear = np.log(self.scene.least_size_px), np.full(2, MOST_SHEAR)
        most = max(np.log(0.5 * max(self.shape)), least + 0.5)
        # Uniform over a disc of the two of shear.
        width = np.array([most - least, *(np.sqrt(np.pi) * shear)])
        return Range(np.array([least, *-shear]), np.array([most, *shear]), width, np.zeros(3))

    def _fits(
        self, outline: str, start: FloatArray, size: Range, errors: list[float] | None = None
    ) -> list[Hypothesis]:
        """A source with each error of its model, from the largest on, with which its mode is the easiest to find."""
        drawn = OUTLINES[outline](self.scene.psf)
        within = self.scene.place().joined(
            size, self.scene.log_flux(FLUX_ROOM), self.scene.background(len(self.window.basis))
        )
        found: list[Hypothesis] = []
        for error in errors or self.scene.errors:
            mode = climb(drawn, start, within, self.window, self.scene.noise_with(error), self.needed)
            start = mode.theta
            misfit = float(chi_squared(mode.image, self.window, self.scene.noise_with(error)))
            found.append(Hypothesis(outline, mode.log_evidence, mode, outline, error, misfit))
            if not mode.given_up and mode.log_evidence < max(each.log_weight for each in found) - FALLING:
                break
        return found
