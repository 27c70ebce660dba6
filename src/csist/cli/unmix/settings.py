"""What the options of `csist unmix` say, checked before the work begins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csist.checks import InputError
from csist.cli.options import check_mode, check_runtime, read_sensor
from csist.frames.options import FrameOptions

if TYPE_CHECKING:
    from csist._types import FloatArray
    from csist.io import ImageStack
    from csist.physics.psf import PSF
    from csist.physics.sensor import Sensor
    from csist.scenes import ScenePrior


@dataclass(frozen=True)
class Settings:
    """What the options of `csist unmix` say, checked once; None where they say nothing."""

    method: str
    ratio: int
    mode: str | None
    prior: ScenePrior | None
    sensor: Sensor | None
    psf: PSF | None
    background: float | None
    noise_std: float | None
    mask_nan: bool
    weights: Path | None
    runtime: str
    detector: str
    false_alarm_rate: float
    psf_measured: str | None = None
    temporal: int | None = None
    workers: int | None = None

    def sensor_for(self, stack: ImageStack, images: FloatArray) -> Sensor:
        """The sensor of these images: a card, what the file states, or the default, with the options on top."""
        from csist.windows import default_sensor

        sensor = self.sensor or stack.sensor or default_sensor(images, stack.data.dtype)
        if self.psf is not None:
            sensor = replace(sensor, psf=self.psf)
        if self.background is not None:
            sensor = replace(sensor, background=self.background)
        return sensor

    def noise_for(self, stack: ImageStack) -> float | None:
        """The noise in counts if an option or the file states it; None if it is to be estimated."""
        if self.noise_std is None and self.sensor is None and stack.sensor is not None:
            return stack.sensor.read_noise
        return self.noise_std

    def frame_options(self, stated: Sensor | None) -> FrameOptions:
        """The options of frames whose file states this sensor."""
        given: dict[str, Any] = {} if self.mode is None else {"mode": self.mode}
        return FrameOptions(
            sensor=self.sensor or stated,
            prior=self.prior,
            noise_std=self.noise_std,
            psf=self.psf_measured or self.psf,
            detector=self.detector,
            false_alarm_rate=self.false_alarm_rate,
            workers=self.workers,
            **given,
        )

    @property
    def method_options(self) -> dict[str, Any]:
        """Arguments of `create_method` that were given."""
        from csist.methods.table import abilities

        options: dict[str, Any] = {} if self.mode is None else {"mode": self.mode}
        if abilities(self.method).grid:
            options |= {"ratio": self.ratio, "pretrained": self.weights, "runtime": self.runtime}
        elif self.workers is not None:
            options["workers"] = self.workers
        return options


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `csist unmix` that say how to unmix, as they are given."""

    method: str
    ratio: int
    mode: str | None
    prior: str | None
    sensor: Path | None
    psf_sigma: float | None
    psf: Path | None
    psf_oversampling: int
    noise_std: float | None
    detector: str
    false_alarm_rate: float
    background: float | None
    mask_nan: bool
    weights: Path | None
    runtime: str
    temporal: int | None
    workers: int | None


def make_settings(given: Options) -> Settings:
    """The options of `csist unmix`, checked.

    Raises:
        InputError: if a value is out of range or a file cannot be used.
    """
    from csist.checks import check_not_negative, check_ratio
    from csist.methods.table import canonical_name
    from csist.scenes import ScenePrior

    check_mode(given.mode)
    FrameOptions(detector=given.detector, false_alarm_rate=given.false_alarm_rate)
    key = canonical_name(given.method)
    check_runtime(given.runtime, [key])
    sensor, stated_noise = (None, None) if given.sensor is None else read_sensor(given.sensor)
    psf, measured = _chosen_psf(given)
    if given.background is not None and abs(given.background) == float("inf"):
        raise InputError(f"background must be finite, got {given.background}")
    if given.temporal is not None and given.temporal < 3:
        raise InputError(f"temporal must be a whole number of frames >= 3, got {given.temporal}")
    if given.workers is not None and given.workers < 1:
        raise InputError(f"workers must be a whole number >= 1, got {given.workers}")
    return Settings(
        method=key,
        ratio=check_ratio(given.ratio),
        mode=given.mode,
        prior=None if given.prior is None else ScenePrior.named(given.prior),
        sensor=sensor,
        psf=psf,
        background=given.background,
        noise_std=stated_noise if given.noise_std is None else check_not_negative("noise_std", given.noise_std),
        mask_nan=given.mask_nan,
        weights=given.weights,
        runtime=given.runtime,
        detector=given.detector,
        false_alarm_rate=given.false_alarm_rate,
        psf_measured=measured,
        temporal=given.temporal,
        workers=given.workers,
    )


def _chosen_psf(given: Options) -> tuple[PSF | None, str | None]:
    """The PSF that the options give, or the word for one that is to be measured."""
    from csist.frames.options import MEASURED_PSFS
    from csist.physics.psf import GaussianPSF

    if given.psf is not None and given.psf_sigma is not None:
        raise InputError(f"give --psf {given.psf} or --psf-sigma {given.psf_sigma}, not both")
    if given.psf_sigma is not None:
        return GaussianPSF(given.psf_sigma), None
    if str(given.psf) in MEASURED_PSFS:  # a file of such a name is ./auto
        return None, str(given.psf)
    return None if given.psf is None else _read_psf(given.psf, given.psf_oversampling), None


def _read_psf(path: Path, oversampling: int) -> PSF:
    from csist.io import read_image
    from csist.physics.psf import SampledPSF

    stack = read_image(path)
    if len(stack) != 1:
        raise InputError(f"cannot use the PSF {path}: it holds {len(stack)} images, give one")
    try:
        return SampledPSF(stack[0], oversampling)
    except InputError as error:
        raise InputError(f"cannot use the PSF {path}: {error}") from error
