"""From a whole frame to its targets: background, detection, windows, unmixing, frame coordinates.

The blobs of peaks and their windows are the matter of `csist.frames.blobs`. Where the PSF is not known, it is taken as
the Gaussian that fits the frame's isolated spots.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csist.checks import InputError, check_not_negative
from csist.frames.background import (
    PixelMask,
    check_frame,
    estimate_background,
    find_ceiling,
    mask_pixels,
    noise_floor,
)
from csist.frames.blobs import FrameGroup, Job, pixel_flags
from csist.frames.crowded import Field, unmix_crowded
from csist.frames.detect import (
    DETECTORS,
    FALSE_ALARM_RATE,
    detect_peaks,
    link,
    measure_sigma,
    threshold_sigmas,
)
from csist.frames.psf import MEASURED, PSFEstimate, estimate_psf, spread_evenly
from csist.frames.tiles import LARGEST_PIXELS, tiles, unmix_tiles
from csist.physics.psf import PSF, RAYLEIGH_PER_SIGMA, GaussianPSF, equivalent_sigma
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior
from csist.targets import Flag, Targets

FloatArray = NDArray[np.float64]

logger = logging.getLogger(__name__)

PSF_ERROR = 0.2
"""Error of a guessed PSF as a share of the light in a window's brightest pixel."""

CROWDED = "crowded"
"""The detector that fits a whole frame together, see `csist.frames.crowded`."""


def unmix_frame(
    frame: NDArray[np.generic],
    sensor: Sensor | None = None,
    prior: ScenePrior | None = None,
    mode: str = "accurate",
    noise_std: float | None = None,
    psf: PSF | float | str | None = None,
    false_alarm_rate: float = FALSE_ALARM_RATE,
    detector: str = "contrast",
    psf_error: float | None = None,
    box_sides_px: tuple[int, ...] | None = None,
    workers: int | None = None,
    keep_samples: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Targets, list[FrameGroup]]:
    """Targets of a whole frame in frame coordinates, and what is known of each blob.

    `Targets.score` ranks by confidence: z / (z + threshold), z the significance of the peak that a target belongs to,
    times the unmixer's own score. `Targets.group` holds the blob's number.

    Args:
        frame: (H, W) in counts, at least 3 x 3; NaN pixels are left out.
        sensor: PSF, shot noise and saturation; its shape, background and rounding are ignored. None: the PSF is
            found from the frame, and so is clipping.
        prior: scene prior of a window, not single-pixel; default `ScenePrior.flat()`.
        mode: "accurate" or "fast".
        noise_std: noise of a pixel in counts; None takes the sensor's, and if that is 0 measures it all over the
            frame.
        psf: point spread function, or sigma in px of a Gaussian one; goes before the sensor's. "auto" measures the
            sigma on isolated bright sources, "empirical" the shape too, see `csist.frames.psf.estimate_psf`, and both
            refuse where there are too few; None takes the sensor's, and without one a rough guess.
        false_alarm_rate: stated false alarms a pixel in Gaussian noise.
        detector: "contrast" (scenes with clutter), "matched" (frames limited by noise, star fields) or "crowded"
            (star fields without dark sky between the targets, fitted all together; `prior` and `mode` are not used).
        psf_error: error of the PSF, as a share of the light in a window's brightest pixel (it counts as noise whose
            variance grows with the light); None: 0.2 where the PSF is guessed, what the sources show where it is
            measured, else 0.
        box_sides_px: sides of the background's boxes in px, coarse to fine; None: (128, 32), wider for wide PSFs.
        workers: threads; the result does not depend on it.
        keep_samples: whether the groups get posterior samples; the crowded detector has none.
        progress: called with (blobs done, blobs in all) now and then, tile by tile in a very large frame; an
            exception of its own ends the work.

    Raises:
        InputError: if the frame has no valid pixel, is not one image, or an option is out of range, or if the PSF
            cannot be measured.
    """
    image = check_frame(frame)
    if detector not in (*DETECTORS, CROWDED):
        raise InputError(f"detector must be one of {', '.join((*DETECTORS, CROWDED))}, got {detector!r}")
    prior = ScenePrior.flat() if prior is None else prior
    if prior.single_pixel:
        raise InputError("a frame needs a prior with targets anywhere: use flat, or cut windows and unmix them")
    ceiling = None if sensor is None or not np.isfinite(sensor.ceiling) else sensor.ceiling
    if noise_std is None and sensor is not None and sensor.read_noise > 0.0 and sensor.gain is None:
        noise_std = sensor.read_noise
    if isinstance(psf, str):
        measured = measure_psf(image, psf, ceiling, noise_std)
        psf, psf_error = measured.psf, measured.psf_error if psf_error is None else psf_error
    elif isinstance(psf, int | float):
        psf = GaussianPSF(psf)
    if psf is None and sensor is not None:
        psf = sensor.psf
    if image.size > LARGEST_PIXELS:
        settled: dict[str, Any] = {
            "sensor": sensor, "prior": prior, "mode": mode, "noise_std": noise_std, "psf": psf,
            "false_alarm_rate": false_alarm_rate, "detector": detector, "psf_error": psf_error,
            "box_sides_px": box_sides_px, "workers": workers, "keep_samples": keep_samples, "progress": progress,
        }  # fmt: skip
        level = find_ceiling(image) if ceiling is None else ceiling
        return unmix_tiles(image, lambda part: _unmix_part(part, level, **settled))
    return _unmix_part(
        image, ceiling, sensor, prior, mode, noise_std, psf, false_alarm_rate, detector, psf_error, box_sides_px,
        workers, keep_samples, progress,
    )  # fmt: skip


def measure_psf(image: FloatArray, psf: str, ceiling: float | None, noise_std: float | None) -> PSFEstimate:
    """The PSF measured on a frame, of a very large one on some of its parts.

    Raises:
        InputError: if the word is none of `csist.frames.psf.MEASURED` or the PSF cannot be measured.
    """
    if psf not in MEASURED:
        raise InputError(f"psf must be a PSF, a sigma in px, {' or '.join(MEASURED)}, got {psf!r}")
    empirical = psf == "empirical"
    if image.size <= LARGEST_PIXELS:
        return estimate_psf(image, ceiling, noise_std, empirical=empirical)
    parts = [image[tile.part] for tile in tiles((image.shape[0], image.shape[1]))]
    valid = [part for part in parts if not np.isnan(part).all()]
    return estimate_psf((valid[index] for index in spread_evenly(len(valid))), ceiling, noise_std, empirical=empirical)


def _unmix_part(
    image: FloatArray,
    ceiling: float | None,
    sensor: Sensor | None,
    prior: ScenePrior,
    mode: str,
    noise_std: float | None,
    psf: PSF | None,
    false_alarm_rate: float,
    detector: str,
    psf_error: float | None,
    box_sides_px: tuple[int, ...] | None,
    workers: int | None,
    keep_samples: bool,
    progress: Callable[[int, int], None] | None,
) -> tuple[Targets, list[FrameGroup]]:
    """`unmix_frame` with its options settled."""
    pixels = mask_pixels(image, ceiling, psf)
    if pixels.masked.all():
        raise InputError(f"frame has no valid pixel: all {image.size} are NaN, dead or hot")
    logger.info(
        "masked: %d NaN, %d dead, %d hot; %d saturated",
        pixels.nan,
        pixels.dead,
        pixels.hot,
        pixels.saturated.sum(),
    )
    if box_sides_px is None:
        finest = 32 if psf is None else max(32, int(np.ceil(20.0 * equivalent_sigma(psf))))
        box_sides_px = (4 * finest, finest)
    background = estimate_background(image, pixels.masked, noise_std, box_sides_px)
    if detector == CROWDED:
        if psf is None:
            raise InputError("the crowded detector needs the PSF: give psf or sensor")
        field = Field(
            image=image,
            valid=~(pixels.masked | pixels.saturated),
            psf=psf,
            noise_std=float(np.median(background.noise)),
            gain=None if sensor is None else sensor.gain,
            psf_error=check_not_negative("psf_error", psf_error or 0.0),
            measured=noise_std is None,
        )
        return _as_groups(unmix_crowded(field, threshold_sigmas(false_alarm_rate)), psf, pixels)
    peaks, threshold = detect_peaks(image, background, pixels.masked, psf, false_alarm_rate, detector)
    flattened = image - background.level
    flattened[pixels.masked] = np.nan
    guessed = psf is None
    if psf is None:
        psf = GaussianPSF(measure_sigma(flattened, peaks, background.noise))
    job = Job(
        flattened=flattened,
        background=background,
        pixels=pixels,
        peaks=peaks,
        threshold=threshold,
        psf=psf,
        gain=None if sensor is None else sensor.gain,
        prior=prior,
        mode=mode,
        guessed=guessed,
        measured=noise_std is None,
        floor=noise_floor(image),
        keep_samples=keep_samples,
        psf_error=check_not_negative("psf_error", (PSF_ERROR if guessed else 0.0) if psf_error is None else psf_error),
    )
    return job.solve(workers or os.cpu_count() or 1, progress)


def _as_groups(targets: Targets, psf: PSF, pixels: PixelMask) -> tuple[Targets, list[FrameGroup]]:
    """Targets that were fitted all together, and the groups of those closer than 1 R."""
    sigma = equivalent_sigma(psf)
    positions = np.stack([targets.x, targets.y], axis=1)
    flags = pixel_flags(pixels, positions, int(np.ceil(2.0 * sigma + 0.5)))
    labels = link(positions, RAYLEIGH_PER_SIGMA * sigma)
    _, first, labels = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))[labels] if len(first) else labels
    significance = targets.intensity / targets.intensity_std
    groups = []
    for number in range(len(first)):
        members = np.flatnonzero(rank == number)
        low = np.maximum(np.rint(positions[members].min(axis=0)).astype(int), 0)
        high = np.rint(positions[members].max(axis=0)).astype(int)
        groups.append(
            FrameGroup(
                number=number,
                column=int(low[0]),
                row=int(low[1]),
                shape=(int(high[1] - low[1]) + 1, int(high[0] - low[0]) + 1),
                peaks=len(members),
                windows=1,
                significance=float(significance[members].max()),
                count=len(members),
                count_probability=np.empty(0),
                chi_squared=float("nan"),
                degrees_of_freedom=0,
                flags=Flag(int(np.bitwise_or.reduce(flags[members]))),
            )
        )
    return targets.replace(flags=flags, group=rank), groups
