"""What the images of `csist unmix` were measured against: PSF, noise, background and threshold, for its summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from csist.cli.unmix.settings import Settings
    from csist.frames.background.estimate import Background
    from csist.frames.measured import FramePSF
    from csist.frames.options import FrameOptions
    from csist.frames.result import FrameModel, FrameResult
    from csist.io import ImageStack
    from csist.io.sequences import FrameSequence
    from csist.physics.sensor import Sensor

NAN = float("nan")

COUNTS_PHOTONS = "1 electron per count: the values are numbers of photons"
"""What is assumed of the gain where the photons of the targets explain their noise."""

NO_PHOTONS = "not known: the errors are without the photons of the targets"
"""What is said of the gain where they may matter."""
BRIGHT_SIGMAS = 10.0
"""Light of a target in a pixel, in units of its noise, from which that is said; one electron a count has to matter."""

NUMBERS = ("psf_sigma_px", "noise_std", "background", "threshold", "measured_gain")
"""Fields of `Measured` that are numbers; NaN where not known."""


@dataclass(frozen=True)
class Measured:
    """What an image, or the windows of a file, were unmixed with.

    Args:
        psf_sigma_px: equivalent standard deviation of the PSF in px.
        psf_known: "given", "measured" on isolated sources, "guessed" from the spots, or "assumed".
        noise_std: median noise of a pixel in counts.
        noise_known: "given", "given for each pixel" or "measured".
        background: median background in counts.
        background_known: "given", "measured" or "assumed".
        threshold: significance in standard deviations that a peak must have; NaN for windows.
        detector: what found the targets of a frame and why it was used; None for windows.
        psf_assumption: what was assumed of a guessed PSF; empty where nothing was.
        measured_gain: electrons per count, by the scatter of bright sources; NaN where it was not measured.
        gain_assumption: what was assumed of the gain or of an offset that was not given; empty where nothing was.
        empty_reason: why a frame has no targets; empty where it has some, and for windows.
    """

    psf_sigma_px: float
    psf_known: str
    noise_std: float
    noise_known: str
    background: float
    background_known: str
    threshold: float = NAN
    detector: str | None = None
    psf_assumption: str = ""
    measured_gain: float = NAN
    gain_assumption: str = ""
    empty_reason: str = ""


def measured_frame(result: FrameResult, options: FrameOptions, noise_map: bool) -> Measured:
    """What a frame was unmixed with.

    Args:
        result: of the frame.
        options: of the frame.
        noise_map: whether the noise of each pixel was given.
    """
    background = result.drawing.background()
    return _of_frame(
        background,
        result.frame_psf,
        options,
        noise_map,
        threshold=result.threshold,
        detector=f"{result.detector} ({result.detection.reason})",
        measured_gain=_measured_gain(result, options),
        gain_assumption=_gain_assumption(result, background, options, noise_map),
        empty_reason=result.empty_reason,
    )


def _measured_gain(result: FrameResult, options: FrameOptions) -> float:
    """Electrons per count, where they were measured: of photon numbers they are 1 without."""
    if options.gain is not None or result.gain is None or result.gain == 1.0:
        return NAN
    return result.gain


def _gain_assumption(result: FrameResult, background: Background, options: FrameOptions, noise_map: bool) -> str:
    """What is assumed of the photons in a frame, in a few words; empty where nothing is."""
    import numpy as np

    from csist.frames.measured import offset_of

    if noise_map:
        return ""
    if options.gain is not None:
        if options.stated_noise_std is not None:
            return ""
        offset = offset_of(background, options.gain, options.least_noise_std, options.stated_background)
        return f"{offset:.3g} counts of the background are an offset: it scatters less than photons" if offset else ""
    if result.gain is not None:
        return COUNTS_PHOTONS if result.gain == 1.0 else ""
    noise_std = float(np.nanmedian(background.noise))
    light = result.targets.intensity * float(result.psf.response(0.0, 0.0))
    return NO_PHOTONS if (light > max(BRIGHT_SIGMAS * noise_std, noise_std**2)).any() else ""


def measured_positions(model: FrameModel, psf: FramePSF, options: FrameOptions, noise_map: bool) -> Measured:
    """What the fluxes at given positions of a frame were measured with; arguments as `measured_frame`."""
    return _of_frame(model.background(), psf, options, noise_map)


def _of_frame(
    background: Background, psf: FramePSF, options: FrameOptions, noise_map: bool, **detection: Any
) -> Measured:
    import numpy as np

    from csist.physics.psf import equivalent_sigma

    stated = options.stated_noise_std is not None
    return Measured(
        psf_sigma_px=float(equivalent_sigma(psf.psf)),
        psf_known=psf.origin,
        psf_assumption=psf.assumption,
        noise_std=float(np.nanmedian(background.noise)),
        noise_known="given for each pixel" if noise_map else "given" if stated else "measured",
        background=float(np.nanmedian(background.level)),
        background_known="measured",
        **detection,
    )


def measured_windows(
    images: ImageStack | FrameSequence, settings: Settings, sensor: Sensor, noise_std: float | None
) -> Measured:
    """What the windows of a file were unmixed with.

    Args:
        images: the file.
        settings: of the command.
        sensor: that was used.
        noise_std: noise of a pixel in counts that was used; None where the method uses none.
    """
    from csist.physics.psf import equivalent_sigma

    instrument = settings.instrument
    carded = instrument.sensor is not None or images.sensor is not None
    measured = instrument.psf_measured is not None
    stated = instrument.window_noise(images, sensor) is not None or sensor.read_noise > 0.0
    return Measured(
        psf_sigma_px=float(equivalent_sigma(sensor.psf)),
        psf_known="measured" if measured else "given" if carded or instrument.psf is not None else "assumed",
        noise_std=NAN if noise_std is None else noise_std,
        noise_known="given for each pixel" if settings.reading.has_noise else "given" if stated else "measured",
        background=sensor.background,
        background_known=(
            "given"
            if instrument.background is not None
            else "measured"
            if measured
            else "given"
            if carded
            else "assumed"
        ),
    )


def spread(measured: Sequence[Measured], name: str) -> dict[str, Any] | None:
    """Median, smallest and largest value of a number over images, and how it is known; None where it is not known.

    Args:
        measured: of the images.
        name: one of `NUMBERS`.
    """
    import numpy as np

    values = np.array([getattr(each, name) for each in measured])
    known = np.isfinite(values)
    if not known.any():
        return None
    found = {key: float(rule(values[known])) for key, rule in (("median", np.median), ("min", np.min), ("max", np.max))}
    origin = {"psf_sigma_px": "psf_known", "noise_std": "noise_known", "background": "background_known"}.get(name)
    if origin is None:
        return found
    return found | {"known": sorted({getattr(each, origin) for each in measured})}
