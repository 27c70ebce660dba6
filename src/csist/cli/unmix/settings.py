"""Settings of `csist unmix`, checked before any image is processed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csist.checks import InputError
from csist.cli.options import check_mode, check_runtime, read_sensor
from csist.frames.options import FrameOptions

if TYPE_CHECKING:
    from csist._types import FloatArray
    from csist.io import ImageStack, ReadOptions
    from csist.io.positions import Positions
    from csist.io.sequences import FrameSequence
    from csist.physics.psf import PSF
    from csist.physics.sensor import Sensor
    from csist.scenes import ScenePrior


def _all_of_it() -> ReadOptions:
    from csist.io import ReadOptions

    return ReadOptions()


@dataclass(frozen=True)
class Settings:
    """Checked options of `csist unmix`; None for options that were not given."""

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
    reading: ReadOptions = field(default_factory=_all_of_it)
    at: Positions | None = None
    start: Positions | None = None

    def sensor_for(self, stack: ImageStack, images: FloatArray) -> Sensor:
        """Return the sensor from the card, the file or the default, in this order, overridden by the options."""
        from csist.windows import default_sensor

        sensor = self.sensor or stack.sensor
        if sensor is None:
            # The noise is estimated: the read noise alone would leave out that of a sky.
            sensor = replace(stack.header.applied(default_sensor(images, stack.data.dtype)), read_noise=0.0)
        if self.psf is not None:
            sensor = replace(sensor, psf=self.psf)
        if self.background is not None:
            sensor = replace(sensor, background=self.background)
        return sensor

    def noise_for(self, stack: ImageStack) -> float | None:
        """Return the noise in counts stated by an option or the file; None if it is to be estimated."""
        if self.noise_std is None and self.sensor is None and stack.sensor is not None:
            return stack.sensor.read_noise
        return self.noise_std

    def frame_options(self, sequence: FrameSequence) -> FrameOptions:
        """The options of frames, with the sensor of a card, of the file, or what its header knows of one."""
        from csist.physics.sensor import Sensor

        sensor = self.sensor or sequence.sensor
        of_header = sensor is None and sequence.header.states_sensor
        given: dict[str, Any] = {} if self.mode is None else {"mode": self.mode}
        return FrameOptions(
            sensor=sequence.header.applied(Sensor()) if of_header else sensor,
            sensor_has_psf=not of_header,
            prior=self.prior,
            noise_std=self.noise_std,
            psf=self.psf_measured or self.psf,
            detector=self.detector,
            false_alarm_rate=self.false_alarm_rate,
            workers=self.workers,
            **given,
        )

    def header_notes(self, images: ImageStack | FrameSequence) -> list[str]:
        """What the summary says of a sensor taken from a file's header."""
        if self.sensor or images.sensor or not images.header.said:
            return []
        return [f"from the header: {', '.join(images.header.said)}; --sensor goes before it"]

    @property
    def sigma_px(self) -> float:
        """Equivalent sigma of the PSF that the options state; NaN if they do not."""
        from csist.physics.psf import equivalent_sigma

        psf = self.psf or (None if self.sensor is None else self.sensor.psf)
        return float("nan") if psf is None else float(equivalent_sigma(psf))

    def metadata(self) -> dict[str, Any]:
        """What a table says of the run that wrote it: options, and the sensor where one was given."""
        cards = {
            "sensor": None if self.sensor is None else self.sensor.to_card(),
            "psf": None if self.psf is None else self.psf.to_card(),
            "prior": None if self.prior is None else self.prior.to_card(),
        }
        plain = {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if each.name not in (*cards, "reading") and getattr(self, each.name) is not None
        }
        options = plain | {name: card for name, card in cards.items() if card is not None and name != "sensor"}
        options |= {"reading": {each.name: getattr(self.reading, each.name) for each in fields(self.reading)}}
        found = {"options": json.loads(json.dumps(options, default=str))}
        return found if cards["sensor"] is None else found | {"sensor": cards["sensor"]}

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


def make_reading(
    *,
    hdu: str | None,
    channel: int | None,
    plane: int | None,
    page: int | None,
    frames: str | None,
    roi: str | None,
    max_pixels: int | None,
) -> ReadOptions:
    """What of the files is read, from the options' values.

    Raises:
        InputError: if one is out of range.
    """
    from csist.io import ReadOptions, parse_range, parse_roi

    options = ReadOptions(
        hdu=hdu,
        channel=channel,
        plane=plane,
        page=page,
        frames=(0, None) if frames is None else parse_range("frames", frames),
        roi=None if roi is None else parse_roi(roi),
    )
    return options if max_pixels is None else replace(options, max_pixels=max_pixels)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `csist unmix` that control the processing, as given on the command line."""

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
    reading: ReadOptions
    places: dict[str, Positions] = field(default_factory=dict)


def make_settings(given: Options) -> Settings:
    """Check the options of `csist unmix`.

    Raises:
        InputError: if a value is out of range or a file cannot be used.
    """
    from csist.checks import check_not_negative, check_ratio
    from csist.io.cards import read_prior
    from csist.methods.table import canonical_name

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
        prior=None if given.prior is None else read_prior(given.prior),
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
        reading=given.reading,
        **given.places,
    )


def _chosen_psf(given: Options) -> tuple[PSF | None, str | None]:
    """Return the PSF given by the options, or the keyword for measuring it."""
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
