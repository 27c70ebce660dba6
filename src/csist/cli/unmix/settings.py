"""What the options of `csist unmix` say, checked before the work begins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csist.checks import InputError
from csist.cli.options import check_mode, check_runtime, read_sensor

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

    @property
    def method_options(self) -> dict[str, Any]:
        """Arguments of `create_method` that were given."""
        from csist.unmixing import FRAME_METHODS

        options: dict[str, Any] = {} if self.mode is None else {"mode": self.mode}
        if self.method not in FRAME_METHODS:
            options |= {"ratio": self.ratio, "pretrained": self.weights, "runtime": self.runtime}
        elif self.workers is not None:
            options["workers"] = self.workers
        return options


def make_settings(
    method: str,
    ratio: int,
    mode: str | None,
    prior: str | None,
    sensor: Path | None,
    psf_sigma: float | None,
    psf: Path | None,
    psf_oversampling: int,
    noise_std: float | None,
    background: float | None,
    mask_nan: bool,
    weights: Path | None,
    runtime: str,
    temporal: int | None = None,
    workers: int | None = None,
) -> Settings:
    """The options of `csist unmix`, checked.

    Raises:
        InputError: if a value is out of range or a file cannot be used.
    """
    from csist.checks import check_not_negative, check_ratio
    from csist.frames.psf import MEASURED
    from csist.methods.table import canonical_name
    from csist.physics.psf import GaussianPSF
    from csist.scenes import ScenePrior

    check_mode(mode)
    key = canonical_name(method)
    check_runtime(runtime, [key])
    card, stated_noise = (None, None) if sensor is None else read_sensor(sensor)
    if psf is not None and psf_sigma is not None:
        raise InputError(f"give --psf {psf} or --psf-sigma {psf_sigma}, not both")
    # A file of such a name is ./auto.
    measured = str(psf) if str(psf) in MEASURED else None
    chosen: PSF | None = None
    if psf_sigma is not None:
        chosen = GaussianPSF(psf_sigma)
    elif psf is not None and measured is None:
        chosen = _read_psf(psf, psf_oversampling)
    if background is not None and abs(background) == float("inf"):
        raise InputError(f"background must be finite, got {background}")
    if temporal is not None and temporal < 3:
        raise InputError(f"temporal must be a whole number of frames >= 3, got {temporal}")
    if workers is not None and workers < 1:
        raise InputError(f"workers must be a whole number >= 1, got {workers}")
    return Settings(
        method=key,
        ratio=check_ratio(ratio),
        mode=mode,
        prior=None if prior is None else ScenePrior.named(prior),
        sensor=card,
        psf=chosen,
        background=background,
        noise_std=stated_noise if noise_std is None else check_not_negative("noise_std", noise_std),
        mask_nan=mask_nan,
        weights=weights,
        runtime=runtime,
        psf_measured=measured,
        temporal=temporal,
        workers=workers,
    )


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
