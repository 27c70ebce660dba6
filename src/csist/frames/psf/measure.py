"""The PSF, measured on bright isolated sources of frames whose scene is unknown.

Every source is fitted by a Gaussian of its own width (`csist.frames.detection.spots`). Single sources agree on the
width, while unresolved pairs and extended sources are wider, each by its own amount. The centre is therefore the mode
of the widths (half-sample mode; Bickel & Fruehwirth, CSDA 50, 3500, 2006), and outliers are clipped before the widths
are averaged. Where the shape is wanted too, `csist.frames.psf.table` builds it from the sources that remain, and once
more from all those that the first result explains.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from scipy.spatial import KDTree

from csist._types import FloatArray
from csist.checks import InputError
from csist.frames.detection.detect import detect_peaks
from csist.frames.detection.peaks import Peaks
from csist.frames.detection.spots import HALF_WINDOW_PX, Spot, fit_spot
from csist.frames.masks.mask import check_frame
from csist.frames.measured import FrameRules, MeasuredFrame, measure_frame
from csist.frames.psf.elongation import ellipse_of, elongation, is_elongated
from csist.frames.psf.table import empirical_psf, misfit, refit, well_fitted
from csist.frames.psf_estimate import PSFEstimate
from csist.words import counted

LEAST_SOURCES, LEAST_EMPIRICAL_SOURCES = 5, 10
LEAST_DIFFERENT = 3
"""Different sources that the frames must show: one that stays or moves slowly counts once."""
MOST_SOURCES_A_FRAME = 100
"""Sources taken from one frame, the most significant ones."""
MOST_FRAMES = 8
"""Frames of a sequence that are measured, spread evenly over it."""

SAME_SOURCE_PX = 10.0
"""Distance up to which a source is the same as one of the frame before."""
ISOLATION_PX = 1.5 * HALF_WINDOW_PX
"""Least distance of an isolated source to the nearest other detection."""
LARGEST_RELATIVE_ERROR = 0.1
"""Largest relative error of a source's sigma; fainter sources are left out."""
LARGEST_MISFIT = 0.1
"""Largest misfit, as a share of the brightest pixel; sources that a Gaussian fits worse are not point-like."""
CLIP_SIGMAS = 3.0
LEAST_SCATTER = 0.01
"""Relative scatter of the widths that any optics is allowed."""
SIGNIFICANT_SIGMAS = 3.0
"""Ratio of a misfit to its scatter above which it counts as an error of the PSF."""


def estimate_psf(
    frames: FloatArray | Iterable[FloatArray],
    ceiling: float | None = None,
    noise_std: float | None = None,
    least_sources: int | None = None,
    empirical: bool = False,
) -> PSFEstimate:
    """Measure the PSF of frames (H, W) on their isolated bright unsaturated sources.

    Args:
        frames: one frame (H, W), or several of the same optics, of any sizes.
        ceiling: level in counts at which the sensor clips; None guesses it.
        noise_std: noise of a pixel in counts; None measures it.
        least_sources: sources without which there is no estimate; default 5, of an empirical PSF 10.
        empirical: measure the shape too, see `csist.frames.psf.table`; else it is the Gaussian that fits best.

    Raises:
        InputError: if a frame cannot be used, if too few sources are found, or if they are too wide.

    >>> from csist.physics.psf import GaussianPSF
    >>> from csist.physics.sensor import Sensor
    >>> from csist.targets import Targets
    >>> at = np.arange(20.0, 180.0, 23.0)
    >>> sensor = Sensor(GaussianPSF(1.3), shape=(40, 200), read_noise=1.0)
    >>> frame = sensor.observe(Targets(x=at, y=20.0 + at % 1.7, intensity=np.full(at.size, 3000.0)), 0)
    >>> found = estimate_psf(frame)
    >>> abs(found.sigma_px - 1.3) < 0.02, found.sources >= 5
    (True, True)
    """
    several = [frames] if isinstance(frames, np.ndarray) and frames.ndim == 2 else frames
    rules = FrameRules(ceiling, noise_std)
    spots = [spots_of(measure_frame(check_frame(frame), rules)) for frame in several]
    return psf_of_spots(spots, least_sources, empirical)


def psf_of_spots(
    frames: Sequence[Sequence[Spot]], least_sources: int | None = None, empirical: bool = False
) -> PSFEstimate:
    """The PSF from the spots of some frames, see `estimate_psf`.

    Raises:
        InputError: if there are too few sources or if they are too wide.
    """
    spots = [spot for several in frames for spot in several]
    kept = agreeing(spots)
    if least_sources is None:
        least_sources = LEAST_EMPIRICAL_SOURCES if empirical else LEAST_SOURCES
    if len(kept) < least_sources:
        raise InputError(
            f"the PSF cannot be measured: only {len(kept)} isolated bright unsaturated point sources in "
            f"{counted(len(frames), 'frame')}, {least_sources} are needed: give its width (--psf-sigma), "
            "or more frames of the same optics (--sequence)"
        )
    different = _different(frames, kept)
    if different < LEAST_DIFFERENT:
        raise InputError(
            f"the PSF cannot be measured: all {len(frames)} frames show the same "
            f"{counted(different, 'isolated bright source')}, which may be groups; {LEAST_DIFFERENT} are needed: "
            "give its width (--psf-sigma)"
        )
    sigma, error = _average(kept)
    sampled = None
    ellipse = elongation(kept, sigma)
    if ellipse is not None and not empirical:
        kept = [refit(spot, ellipse) for spot in kept]
        kept = [replace(spot, misfit=misfit(spot, ellipse, sigma)) for spot in kept]
    if empirical:
        sampled, kept = empirical_psf(kept, sigma)
        explained = well_fitted(spots, sampled, sigma)
        if len(explained) >= least_sources:
            sampled, kept = empirical_psf(explained, sigma)
    return PSFEstimate(
        sigma_px=sigma,
        sigma_px_std=error,
        psf_error=_psf_error(kept, at_all=empirical),
        sources=len(kept),
        candidates=len(spots),
        frames=len(frames),
        profile=np.concatenate([spot.profile for spot in kept]),
        sampled=sampled,
        elliptical=ellipse,
    )


def _different(frames: Sequence[Sequence[Spot]], kept: Sequence[Spot]) -> int:
    """Number of different sources among the spots that were kept: an unresolved pair is one in every frame.

    Args:
        frames: the spots of each frame, in order of time.
        kept: those of them that count.
    """
    counted = {id(spot) for spot in kept}
    number, before = 0, np.empty((0, 2))
    for spots in frames:
        places = np.array([(spot.x, spot.y) for spot in spots if id(spot) in counted]).reshape(-1, 2)
        distance = KDTree(before).query(places)[0] if len(before) and len(places) else np.full(len(places), np.inf)
        number += int((np.asarray(distance) > SAME_SOURCE_PX).sum())
        before = places if len(places) else before
    return number


def spread_evenly(count: int, most: int = MOST_FRAMES) -> list[int]:
    """At most `most` of the indices 0 to count - 1, spread evenly.

    >>> spread_evenly(3), spread_evenly(100, 3)
    ([0, 1, 2], [0, 50, 99])
    """
    return [int(index) for index in np.unique(np.linspace(0, count - 1, min(count, most)).round())]


def spots_of(frame: MeasuredFrame, peaks: Peaks | None = None) -> list[Spot]:
    """Fits of a frame's bright, isolated, unsaturated sources that look like points.

    Args:
        frame: the frame.
        peaks: its peaks, the most significant first; None detects them.
    """
    image, pixels = frame.image, frame.pixels
    if peaks is None:
        peaks, _ = detect_peaks(image, frame.background, pixels.masked)
    if not len(peaks):
        return []
    unusable, flattened = pixels.masked | pixels.saturated, frame.unclipped
    distance = np.asarray(KDTree(peaks.positions).query(peaks.positions, k=[2])[0])[:, 0]
    spots = []
    for x, y in peaks[distance > ISOLATION_PX][:MOST_SOURCES_A_FRAME].positions:
        column, row = round(x), round(y)
        inside = (
            HALF_WINDOW_PX <= row < image.shape[0] - HALF_WINDOW_PX
            and HALF_WINDOW_PX <= column < image.shape[1] - HALF_WINDOW_PX
        )
        if not inside or unusable[row - 2 : row + 3, column - 2 : column + 3].any():
            continue
        spot = fit_spot(flattened, frame.background.noise, x, y)
        if spot is not None and _is_point(spot):
            spots.append(spot)
    return spots


def _is_point(spot: Spot) -> bool:
    """Whether a spot is bright enough and has the shape of a point source, perhaps of an elongated PSF."""
    if spot.sigma_px_std >= LARGEST_RELATIVE_ERROR * spot.sigma_px:
        return False
    if spot.misfit < LARGEST_MISFIT:
        return True
    ellipse = ellipse_of(spot) if is_elongated(spot) else None
    return ellipse is not None and misfit(refit(spot, ellipse), ellipse, spot.sigma_px) < LARGEST_MISFIT


def agreeing(spots: list[Spot]) -> list[Spot]:
    """The spots whose widths agree with the mode of all widths."""
    if len(spots) < 2:
        return spots
    sigmas = np.array([spot.sigma_px for spot in spots])
    errors = np.array([spot.sigma_px_std for spot in spots])
    centre = _half_sample_mode(np.sort(sigmas))
    kept = np.ones(len(spots), dtype=bool)
    for _ in range(20):
        reach = CLIP_SIGMAS * np.hypot(errors, LEAST_SCATTER * centre)
        before, kept = kept, np.abs(sigmas - centre) <= reach
        if not kept.any() or (kept == before).all():
            break
        centre = float(np.average(sigmas[kept], weights=1.0 / (errors[kept] ** 2 + (LEAST_SCATTER * centre) ** 2)))
    return [spot for spot, keep in zip(spots, kept, strict=True) if keep]


def _psf_error(spots: list[Spot], at_all: bool) -> float:
    """Median misfit of the brighter half of the spots, where noise contributes least.

    Args:
        spots: the sources.
        at_all: whether it counts where it may be chance, too; else it is 0 there.
    """
    brighter = sorted(spots, key=lambda spot: -spot.flux / spot.noise_std)[: -(-len(spots) // 2)]
    misfits = np.array([spot.misfit for spot in brighter])
    misfit = float(np.median(misfits))
    scatter = 1.4826 * float(np.median(np.abs(misfits - misfit))) / len(brighter) ** 0.5
    significant = misfit > SIGNIFICANT_SIGMAS * max(scatter, 1e-9) and (misfits > 0.0).mean() > 0.9
    return misfit if significant or at_all else 0.0


def _half_sample_mode(values: FloatArray) -> float:
    """Half-sample mode of sorted values: the shortest half, repeatedly."""
    while len(values) > 3:
        half = -(-len(values) // 2)
        first = int((values[half - 1 :] - values[: len(values) - half + 1]).argmin())
        values = values[first : first + half]
    return float(np.median(values))


def _average(spots: list[Spot]) -> tuple[float, float]:
    """Weighted mean of the widths, and its standard error from their scatter."""
    sigmas = np.array([spot.sigma_px for spot in spots])
    weights = 1.0 / (np.array([spot.sigma_px_std for spot in spots]) ** 2 + (LEAST_SCATTER * sigmas.mean()) ** 2)
    mean = float(np.average(sigmas, weights=weights))
    scatter = ((weights * (sigmas - mean)) ** 2).sum() / max(len(spots) - 1, 1) * len(spots)
    return mean, float(scatter**0.5 / weights.sum())
