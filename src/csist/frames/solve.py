"""From a whole frame to its targets: bad pixels, background, PSF, detection, windows, unmixing, frame coordinates."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from csist._types import FloatArray
from csist.checks import InputError
from csist.frames.background.estimate import BackgroundSource
from csist.frames.blobs.solve import BlobSolver, Progress
from csist.frames.blobs.windows import WindowSolver
from csist.frames.blobs.wings import without_wings
from csist.frames.crowded.groups import unmix_crowded
from csist.frames.crowded.model import CrowdedFrame
from csist.frames.detection.choose import Choice, choose_detector
from csist.frames.detection.contrast import ContrastFrame
from csist.frames.detection.detect import detect_peaks
from csist.frames.detection.named import with_named
from csist.frames.detection.peaks import threshold_sigmas
from csist.frames.detection.spots import Widths, fitted_widths
from csist.frames.groups import FrameGroup, sources_of
from csist.frames.masks.mask import check_frame, find_ceiling
from csist.frames.measured import FramePSF, FrameRules, MeasuredFrame, measure_frame, measured_alike
from csist.frames.options import AUTO, CONTRAST, CROWDED, FrameOptions, as_positions
from csist.frames.photons import with_gain
from csist.frames.psf.elongated import elongated_psf
from csist.frames.psf.measure import estimate_psf, psf_of_spots, spots_of, spread_evenly
from csist.frames.psf.wide import wide_psf
from csist.frames.psf_estimate import PSFEstimate
from csist.frames.result import Detection, FrameModel, FrameResult, ModelPart, whole_region
from csist.frames.tiles import LARGEST_PIXELS, tiles, unmix_tiles
from csist.physics.psf import PSF, GaussianPSF
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior
from csist.targets import Flag, Targets
from csist.windows import check_error, leave_out
from csist.words import counted

logger = logging.getLogger(__name__)

GUESSED_PSF_ERROR = 0.2
"""Error of a guessed PSF as a share of the light in a window's brightest pixel."""
MOSTLY_POOR, STILL_POOR = 0.5, 0.5
"""Share of blobs with a poor fit from which the noise of photons is tried, and the share of these that may remain."""
CROWDED_PSF_ERROR = 0.05
"""The same of the Gaussian that fits the many spots of a crowded frame."""


def unmix_frame(
    image: NDArray[np.generic],
    sensor: Sensor | None = None,
    prior: ScenePrior | None = None,
    *,
    mode: str = "accurate",
    keep_samples: bool = False,
    progress: Progress | None = None,
    error: ArrayLike | None = None,
    **options: Any,
) -> FrameResult:
    """Unmix a whole frame: its targets in frame coordinates, its groups, and what they were measured against.

    Args:
        image: (H, W) in counts, at least 3 x 3; NaN pixels are left out.
        sensor: PSF, shot noise and saturation; its shape, background and rounding are ignored. None: the PSF is
            found from the frame, and so is clipping.
        prior: scene prior of a window, not single-pixel; default `ScenePrior.flat()`.
        mode: "accurate" or "fast".
        keep_samples: whether the groups keep their posterior samples; the crowded detector has none.
        progress: called with (blobs done, blobs in all) now and then, tile by tile in a very large frame; an
            exception of its own ends the work.
        error: (H, W) standard deviation of each pixel in counts, with all that adds to it, the photons of the targets
            too; takes the place of noise and gain. A pixel where it is 0 or not finite is left out.
        **options: the other fields of `csist.frames.FrameOptions`: noise_std, psf, psf_error, detector,
            false_alarm_rate, box_sides_px, start, extended, workers.

    Raises:
        InputError: if the frame has no valid pixel or is not one image, if an option is unknown or out of range, or if
            the PSF cannot be measured.

    >>> from csist.physics.sensor import Sensor
    >>> sky = Sensor(GaussianPSF(1.1), shape=(40, 60), background=20.0, read_noise=1.0)
    >>> frame = sky.observe(Targets(x=[30.2], y=[20.7], intensity=[900.0]), 0)
    >>> result = unmix_frame(frame, sky, mode="fast")
    >>> len(result.targets), result.psf_origin, round(float(np.median(result.background)))
    (1, 'given', 20)
    >>> float(np.abs(result.residual()).max()) < 5.0
    True
    """
    settled = FrameOptions.of(sensor=sensor, prior=prior, mode=mode, keep_samples=keep_samples, **options)
    return solve_frame(image, settled, progress, error)


def solve_frame(
    image: NDArray[np.generic],
    options: FrameOptions,
    progress: Progress | None = None,
    error: ArrayLike | None = None,
) -> FrameResult:
    """`unmix_frame` with its options in one object.

    Args:
        image: (H, W) in counts.
        options: how it is unmixed.
        progress: called with the number of blobs done.
        error: (H, W) standard deviation of each pixel in counts, see `unmix_frame`.

    Raises:
        InputError: if the frame has no valid pixel or is not one image, or if the PSF cannot be measured.
    """
    frame = check_frame(image)
    rules = FrameRules.of(options)
    noise_map = check_error(error, frame.shape)
    if noise_map is not None:
        frame, noise_map = leave_out(frame[None], noise_map)[0], noise_map[0]
    if frame.size > LARGEST_PIXELS:
        psf = _measured_in_tiles(frame, rules, options) or _given_psf(options)
        if rules.ceiling is None:
            rules = replace(rules, ceiling=find_ceiling(frame))

        def solve(part: tuple[slice, slice]) -> FrameResult:
            own = None if noise_map is None else noise_map[part]
            return _solve_part(frame[part], rules, _psf_of(psf, part), _moved(options, part), progress, error=own)

        return unmix_tiles(frame, solve)
    psf, measured = settle_psf(frame, rules, options, noise_map)
    return _solve_part(frame, rules, psf, options, progress, frame=measured, error=noise_map)


def settle_psf(
    image: FloatArray, rules: FrameRules, options: FrameOptions, error: FloatArray | None = None
) -> tuple[FramePSF | None, MeasuredFrame | None]:
    """The PSF that is stated or, where asked for, measured on the frame (H, W); None where it is to be guessed.

    With it comes the frame as it was measured for that, or None where it has to be measured again: for a PSF so wide or
    so narrow that other rules hold.

    Args:
        image: (H, W) in counts.
        rules: how the frame is measured.
        options: how it is unmixed.
        error: (H, W) standard deviation of each pixel in counts; None if it is not known.

    Raises:
        InputError: if the PSF cannot be measured.
    """
    if not isinstance(options.psf, str):
        return _given_psf(options), None
    frame = measure_frame(image, replace(rules, box_sides_px=None), None, error)
    psf = _measured_psf(psf_of_spots([spots_of(frame)], empirical=options.psf == "empirical"), options)
    alike = rules.box_sides_px is None and measured_alike(rules, psf.psf)
    return psf, frame if alike else None


def _given_psf(options: FrameOptions) -> FramePSF | None:
    """The PSF that is stated; None where it has to be found from the frame."""
    if isinstance(options.psf, PSFEstimate):
        return _measured_psf(options.psf, options)
    psf = options.psf
    if psf is None and options.sensor is not None and options.sensor_has_psf:
        psf = options.sensor.psf
    if psf is None or isinstance(psf, str | float):
        return None
    return FramePSF(psf, options.psf_error or 0.0, "given")


def _measured_psf(estimate: PSFEstimate, options: FrameOptions) -> FramePSF:
    error = estimate.psf_error if options.psf_error is None else options.psf_error
    return FramePSF(estimate.psf, error, "measured", estimate)


def _measured_in_tiles(frame: FloatArray, rules: FrameRules, options: FrameOptions) -> FramePSF | None:
    """The PSF of a very large frame, measured on some of its tiles; None where that is not asked for."""
    if not isinstance(options.psf, str):
        return None
    parts = [frame[tile.part] for tile in tiles((frame.shape[0], frame.shape[1]))]
    valid = [part for part in parts if not np.isnan(part).all()]
    chosen = (valid[index] for index in spread_evenly(len(valid)))
    estimate = estimate_psf(chosen, rules.ceiling, rules.noise_std, empirical=options.psf == "empirical")
    return _measured_psf(estimate, options)


def guess_psf(widths: Widths, error: float | None) -> FramePSF:
    """The Gaussian that fits the isolated spots of a frame, as a rough guess of its PSF.

    Args:
        widths: of the spots.
        error: of the guess, as a share of the light in a window's brightest pixel; None: `GUESSED_PSF_ERROR`.
    """
    sigmas, sigma_px = widths.sigmas_px, widths.middle_px
    shown = f"median width of {counted(len(sigmas), 'isolated spot')}"
    assumption = (
        f"circular Gaussian, {shown}" if sigmas else f"Gaussian of sigma {sigma_px:g} px: no spot shows its width"
    )
    share = GUESSED_PSF_ERROR if error is None else error
    return FramePSF(GaussianPSF(sigma_px), share, "guessed", assumption=assumption)


def _psf_of(psf: FramePSF | None, part: tuple[slice, slice]) -> FramePSF | None:
    """The PSF of a part of a frame, in its own coordinates."""
    return None if psf is None else replace(psf, psf=psf.psf.moved(part[1].start, part[0].start))


def _moved(options: FrameOptions, part: tuple[slice, slice]) -> FrameOptions:
    """The options of a part of a frame, in its own coordinates."""
    left, top = part[1].start, part[0].start
    return replace(options, start=tuple((x - left, y - top) for x, y in as_positions(options.start)))


def _solve_part(
    image: FloatArray,
    rules: FrameRules,
    psf: FramePSF | None,
    options: FrameOptions,
    progress: Progress | None,
    *,
    frame: MeasuredFrame | None = None,
    error: FloatArray | None = None,
) -> FrameResult:
    """Unmix a frame, or a tile of one.

    Args:
        image: (H, W) in counts.
        rules: how bad pixels and background are measured.
        psf: the PSF; None guesses it.
        options: how the frame is unmixed.
        progress: called with the number of blobs done.
        frame: the same image, if it has been measured by these rules.
        error: (H, W) standard deviation of each pixel in counts; None if it is not known.
    """
    known: PSF | None = None if psf is None else psf.psf
    frame = measure_frame(image, rules, known, error) if frame is None else frame
    seen = ContrastFrame.of(image, frame.background, frame.pixels.masked, known)
    choice = Choice(options.detector, "asked for")
    if options.detector == AUTO:
        choice = choose_detector(seen)
    logger.info("detector: %s (%s)", choice.detector, choice.reason)
    if choice.detector == CROWDED:
        return _solve_crowded(frame, seen, psf, options, choice)
    peaks, threshold = detect_peaks(
        image, frame.background, frame.pixels.masked, known, options.false_alarm_rate, choice.detector, seen=seen
    )
    if psf is None:
        widths = fitted_widths(frame.unclipped, peaks, frame.background.noise)
        wide = wide_psf(frame, rules, peaks, widths)
        if wide is not None:
            return _solve_part(image, rules, wide, options, progress, error=error)
        psf = elongated_psf(frame, peaks, options.psf_error) or guess_psf(widths, options.psf_error)
    peaks = with_named(without_wings(peaks, psf), frame, psf, as_positions(options.start))
    options = with_gain(options, frame, psf.psf, peaks)
    clutter = choice.detector == CONTRAST and not seen.noise_limited
    windows = WindowSolver(frame, psf, peaks, threshold, options, options.prior or ScenePrior.flat(), clutter)
    targets, groups, gain = _solve_blobs(windows, progress)
    return _result(frame, frame.background, psf, Detection(*choice, threshold), targets, groups, gain=gain)


def _solve_blobs(windows: WindowSolver, progress: Progress | None) -> tuple[Targets, list[FrameGroup], float | None]:
    """Targets and groups of all blobs of a frame, and the gain that they were fitted with.

    Where the values may be numbers of photons, and most blobs have more noise than the dark, the noise of their own
    photons is tried.
    """
    options = windows.options
    workers = options.workers or os.cpu_count() or 1
    targets, groups = BlobSolver(windows, workers, progress).solve()
    poor = _poor_share(groups)
    if poor < MOSTLY_POOR or options.gain is not None or not windows.frame.counts_photons:
        return targets, groups, options.gain
    photons = replace(options, sensor=replace(options.sensor or Sensor(), gain=1.0))
    again = BlobSolver(replace(windows, options=photons), workers, progress).solve()
    if _poor_share(again[1]) > poor * STILL_POOR:
        return targets, groups, None
    logger.info("values are numbers of photons")
    return *again, 1.0


def _poor_share(groups: list[FrameGroup]) -> float:
    """Share of the groups with targets that point targets do not explain: a poor fit, or another source."""
    seen = [group for group in groups if group.count]
    return sum(Flag.POOR_FIT in group.flags or bool(group.sources) for group in seen) / max(len(seen), 1)


def _solve_crowded(
    frame: MeasuredFrame, seen: ContrastFrame, psf: FramePSF | None, options: FrameOptions, choice: Choice
) -> FrameResult:
    """Unmix a crowded frame; an unknown PSF is the Gaussian that fits its spots best.

    Raises:
        InputError: if the detector was asked for and the PSF is not known.
    """
    if psf is None and options.detector == CROWDED:
        raise InputError("the crowded detector needs the PSF: give psf or sensor")
    if psf is None:
        error = CROWDED_PSF_ERROR if options.psf_error is None else options.psf_error
        spots = seen.peaks(options.false_alarm_rate)[0]
        psf = guess_psf(fitted_widths(frame.unclipped, spots, frame.background.noise), error)
    threshold = threshold_sigmas(options.false_alarm_rate)
    found = unmix_crowded(
        CrowdedFrame.of(frame, psf, options.gain),
        threshold,
        frame.pixels,
        prior=options.prior or ScenePrior.flat(),
        mode=options.mode,
        workers=options.workers or os.cpu_count() or 1,
        named=as_positions(options.start),
    )
    detection = Detection(*choice, threshold)
    return _result(frame, found.background, psf, detection, found.targets, found.groups, gain=found.frame.gain)


def _result(
    frame: MeasuredFrame,
    background: BackgroundSource,
    psf: FramePSF,
    detection: Detection,
    targets: Targets,
    groups: list[FrameGroup],
    *,
    gain: float | None,
) -> FrameResult:
    shape = (frame.image.shape[0], frame.image.shape[1])
    whole = whole_region(shape)
    drawing = FrameModel(shape, [ModelPart(whole, whole, background, psf.psf, targets, sources_of(groups))])
    counted = gain if frame.error is None else None
    return FrameResult(frame.image, targets, groups, frame.pixels, psf, detection, drawing, counted)
