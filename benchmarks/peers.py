"""Methods of other packages, configured as by a competent user, with the PSF, noise and scene prior of the data.

Their options were chosen by CSO-mAP on images of the benchmark's validation split, never on its test split. Both rank
their detections by the standard error of the position, which scores better than the flux. Each runs on one core;
`ParallelPeer` uses all cores with one process per core.
"""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, least_squares

from csist.checks import InputError
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, sample_scene_arrays
from csist.targets import Targets

FloatArray = NDArray[np.float64]

FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))

NO_ERROR_PX = 1e3
"""Standard error assigned to a detection without one, which ranks it last."""

START_SECONDS = 300.0


def gaussian_psf(sensor: Sensor) -> GaussianPSF:
    """Return the PSF of a sensor.

    Raises:
        InputError: if it is not a Gaussian.
    """
    if not isinstance(sensor.psf, GaussianPSF):
        raise InputError(f"the peers model Gaussian PSFs only, got {sensor.psf.kind!r}: use a dataset with that PSF")
    return sensor.psf


class PhotutilsPhotometry:
    """DAOPHOT's scheme: find, group, fit, subtract, find again in the residual, then fit all sources together.

    `photutils.psf.IterativePSFPhotometry` in mode "all" with the pixel-integrated Gaussian of known width, started by
    `DAOStarFinder` (Stetson, PASP 99, 1987). Options changed for blends that the finder detects as one source: a low
    threshold, no selection by shape, and positions kept within 1 px of their start.

    Args:
        sensor: sensor with PSF and noise.
        prior: not used.

    Raises:
        InputError: if the PSF is not Gaussian.
    """

    THRESHOLD_SIGMAS = 2.0
    FIT_SIDE_PX = 7
    APERTURE_RADIUS_PX = 1.5
    GROUP_DISTANCE_PX = 3.0
    REACH_PX = 1.0
    ITERATIONS = 8
    ANY_SHAPE = (-10.0, 10.0)

    def __init__(self, sensor: Sensor, prior: ScenePrior) -> None:
        from photutils.detection import DAOStarFinder
        from photutils.psf import CircularGaussianPRF, IterativePSFPhotometry, SourceGrouper

        fwhm = FWHM_PER_SIGMA * gaussian_psf(sensor).sigma_px
        self.sensor = sensor
        self.noise = float(np.sqrt(sensor.noise_variance()))
        finder = DAOStarFinder(
            self.THRESHOLD_SIGMAS * self.noise,
            fwhm,
            sharpness_range=self.ANY_SHAPE,
            roundness_range=self.ANY_SHAPE,
        )
        self.photometry = IterativePSFPhotometry(
            CircularGaussianPRF(fwhm=fwhm),
            (self.FIT_SIDE_PX, self.FIT_SIDE_PX),
            finder,
            grouper=SourceGrouper(self.GROUP_DISTANCE_PX),
            aperture_radius=self.APERTURE_RADIUS_PX,
            xy_bounds=self.REACH_PX,
            maxiters=self.ITERATIONS,
            mode="all",
            sub_shape=sensor.shape,
        )

    def predict_one(self, image: FloatArray) -> Targets:
        """Return the detections of an image (H, W) in counts."""
        with warnings.catch_warnings():
            # photutils warns about every fit that ends at a bound and every image whose last search finds nothing.
            warnings.simplefilter("ignore")
            table = self.photometry(image - self.sensor.background, error=np.full(image.shape, self.noise))
        if table is None:
            return Targets.empty()
        x, y, flux, x_std, y_std = (
            np.asarray(table[name], dtype=np.float64) for name in ("x_fit", "y_fit", "flux_fit", "x_err", "y_err")
        )
        score = -np.nan_to_num(np.hypot(x_std, y_std), nan=NO_ERROR_PX, posinf=NO_ERROR_PX)
        kept = np.isfinite(x) & np.isfinite(y) & (flux > 0)
        return Targets(x=x[kept], y=y[kept], intensity=flux[kept], score=score[kept])


@dataclass(frozen=True, eq=False)
class Fit:
    """One fitted configuration.

    Args:
        solution: result of SciPy, with parameters in the order x, y, flux.
        chi_squared: sum of the squared residuals in units of the noise.
        apart: whether all pairs satisfy the prior's minimum separation.
    """

    solution: OptimizeResult
    chi_squared: float
    apart: bool


class MultiStartFit:
    """Bounded least squares from many starts, with the count by the Bayesian information criterion.

    For each count, configurations are drawn from the prior in the 3 x 3 pixels around the brightest one. Those that
    explain the image best are the starts of `scipy.optimize.least_squares` (trust region reflective, Branch, Coleman &
    Li, SIAM J. Sci. Comput. 21, 1999) with the analytic Jacobian and the bounds of the prior. Fits that satisfy the
    minimum separation are preferred to fits that do not. The count k is the first minimum of chi^2 + 3 k ln(pixels)
    (Schwarz, Ann. Stat. 6, 1978).

    Args:
        sensor: sensor with PSF and noise.
        prior: prior of the starts and bounds; targets within one pixel.
        draws: number of configurations drawn for each count.
        starts: number of configurations fitted for each count.
        seed: seed of the draws, which all images share.

    Raises:
        InputError: if the PSF is not Gaussian or the prior is not of one pixel with known fluxes and 1 or more targets.
    """

    TOLERANCE = 1e-5
    EVALUATIONS = 100
    SEPARATION_SLACK = 0.9
    """Fraction of the minimum separation by which noise may shorten the distance of a fitted pair."""

    def __init__(self, sensor: Sensor, prior: ScenePrior, draws: int = 128, starts: int = 4, seed: int = 0) -> None:
        self.psf = gaussian_psf(sensor)
        if not prior.single_pixel or prior.intensity_range is None or prior.count_range[0] < 1:
            raise InputError("the multi-start fit needs a prior of 1 or more targets in one pixel and a flux range")
        self.sensor, self.prior, self.starts = sensor, prior, starts
        self.flux = prior.intensity_range
        self.noise = float(np.sqrt(sensor.noise_variance()))
        self.rows, self.columns = np.arange(sensor.shape[0]), np.arange(sensor.shape[1])
        rng, one_pixel = np.random.default_rng(seed), sensor.with_shape((1, 1))
        self.drawn = {
            count: sample_scene_arrays(replace(prior, count_range=(count, count)), one_pixel, draws, rng)[0]
            for count in range(prior.count_range[0], prior.count_range[1] + 1)
        }
        """Draw scenes (draws, count, 3) with columns x, y, flux, around the pixel (0, 0)."""

    def predict_one(self, image: FloatArray) -> Targets:
        """Return the detections of an image (H, W) in counts."""
        best, lowest = None, np.inf
        for count in self.drawn:
            fit = self.fit(image, count)
            criterion = fit.chi_squared + 3 * count * np.log(image.size)
            if criterion >= lowest:
                break
            best, lowest = fit, criterion
        if best is None:
            return Targets.empty()
        x, y, flux = best.solution.x.reshape(3, -1)
        jacobian = best.solution.jac
        variance = np.diag(np.linalg.pinv(jacobian.T @ jacobian)).reshape(3, -1)
        return Targets(x=x, y=y, intensity=flux, score=-np.sqrt(variance[0] + variance[1]))

    def fit(self, image: FloatArray, count: int) -> Fit:
        """Return the best fit of `count` targets to an image (H, W) in counts."""
        scenes, pixels = self.candidates(image, count)
        clean = self.sensor.render_stack(scenes[..., 0], scenes[..., 1], scenes[..., 2])
        order = np.argsort(((clean - image) ** 2).sum(axis=(1, 2)))[: self.starts]
        fits = [self.polish(image, scenes[index], pixels[index]) for index in order]
        return min(fits, key=lambda fit: (not fit.apart, fit.chi_squared))

    def candidates(self, image: FloatArray, count: int) -> tuple[FloatArray, NDArray[np.int64]]:
        """Return scenes (n, count, 3) around the brightest pixel, and the pixel (x, y) of each, (n, 2)."""
        row, column = np.unravel_index(int(image.argmax()), image.shape)
        near = [
            (x, y) for y in self.rows[max(row - 1, 0) : row + 2] for x in self.columns[max(column - 1, 0) : column + 2]
        ]
        drawn = self.drawn[count]
        scenes = np.concatenate([drawn + np.array([x, y, 0.0]) for x, y in near])
        return scenes, np.repeat(np.array(near), len(drawn), axis=0)

    def polish(self, image: FloatArray, scene: FloatArray, pixel: NDArray[np.int64]) -> Fit:
        """Fit from a start (count, 3), with the targets bounded to a pixel (x, y)."""
        count = len(scene)
        bounds = [
            np.repeat([pixel[0] + side, pixel[1] + side, flux], count)
            for side, flux in zip((-0.5, 0.5), self.flux, strict=True)
        ]
        solution = least_squares(
            lambda parameters: self.residual(parameters, image),
            np.clip(scene.T.ravel(), *bounds),
            self.jacobian,
            bounds=bounds,
            x_scale="jac",
            ftol=self.TOLERANCE,
            xtol=self.TOLERANCE,
            gtol=self.TOLERANCE,
            max_nfev=self.EVALUATIONS,
        )
        x, y, _ = solution.x.reshape(3, -1)
        first, second = np.triu_indices(count, 1)
        nearest = np.hypot(x[first] - x[second], y[first] - y[second]).min(initial=np.inf)
        apart = nearest >= self.SEPARATION_SLACK * self.prior.min_separation_px
        return Fit(solution, 2.0 * float(solution.cost), bool(apart))

    def residual(self, parameters: FloatArray, image: FloatArray) -> FloatArray:
        """Return model minus image in units of the noise, (pixels,)."""
        x, y, flux = parameters.reshape(3, -1)
        return np.asarray((self.sensor.render_stack(x[None], y[None], flux[None])[0] - image).ravel() / self.noise)

    def jacobian(self, parameters: FloatArray) -> FloatArray:
        """Return the derivatives of `residual`, (pixels, 3 count)."""
        x, y, flux = parameters.reshape(3, -1)
        dx, dy = self.columns - x[:, None], self.rows - y[:, None]
        along_x, along_y = self.psf.profile(dx)[:, None, :], self.psf.profile(dy)[:, :, None]
        by_x = along_y * self.psf.profile_gradient(dx)[:, None, :] * flux[:, None, None]
        by_y = self.psf.profile_gradient(dy)[:, :, None] * along_x * flux[:, None, None]
        return np.concatenate([by_x, by_y, along_y * along_x]).reshape(3 * len(x), -1).T / self.noise


PEERS: dict[str, Callable[[Sensor, ScenePrior], Any]] = {
    "photutils": PhotutilsPhotometry,
    "scipy": MultiStartFit,
}

_peer: Any = None


def _start(name: str, sensor: Sensor, prior: ScenePrior, image: FloatArray, ready: Any) -> None:
    """Build the peer of this process, run it on one image, and wait for the other processes."""
    global _peer
    _peer = PEERS[name](sensor, prior)
    _peer.predict_one(image)
    ready.wait()


def _predict_one(image: FloatArray) -> Targets:
    found: Targets = _peer.predict_one(image)
    return found


class ParallelPeer:
    """Peer in several processes, each of which processes one image at a time.

    Args:
        name: a key of `PEERS`.
        sensor: sensor of the images.
        prior: scene prior.
        workers: number of processes.
        image: (H, W) in counts, for the first call in each process.

    Raises:
        InputError: if the peer does not support the sensor or prior.
    """

    def __init__(self, name: str, sensor: Sensor, prior: ScenePrior, workers: int, image: FloatArray) -> None:
        PEERS[name](sensor, prior)  # raises here: a pool would restart failing processes without end
        context = multiprocessing.get_context("spawn")
        ready = context.Barrier(workers + 1)
        self.pool = context.Pool(workers, _start, (name, sensor, prior, image, ready))
        ready.wait(START_SECONDS)

    def predict(self, images: FloatArray) -> list[Targets]:
        """Return one `Targets` per image of a stack (N, H, W) in counts, in order."""
        return self.pool.map(_predict_one, list(images), chunksize=1)
