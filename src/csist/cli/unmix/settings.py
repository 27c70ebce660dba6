"""Settings of `csist unmix`, checked before any image is processed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csist.checks import InputError, check_workers
from csist.cli.options import check_mode, check_runtime, read_sensor
from csist.frames.options import FrameOptions

if TYPE_CHECKING:
    from csist.instrument import Instrument
    from csist.io import Quantities, ReadOptions
    from csist.io.positions import Positions
    from csist.io.sequences import FrameSequence
    from csist.physics.psf import PSF
    from csist.scenes import ScenePrior


def _all_of_it() -> ReadOptions:
    from csist.io import ReadOptions

    return ReadOptions()


def _no_more() -> Quantities:
    from csist.io import Quantities

    return Quantities()


@dataclass(frozen=True)
class Settings:
    """Checked options of `csist unmix`; None for options that were not given."""

    method: str
    ratio: int
    mode: str | None
    prior: ScenePrior | None
    instrument: Instrument
    mask_nan: bool
    weights: Path | None
    runtime: str
    detector: str
    false_alarm_rate: float
    extended: bool = True
    temporal: int | None = None
    workers: int | None = None
    joint: int | None = None
    joint_step: int | None = None
    motion: str = "linear"
    reading: ReadOptions = field(default_factory=_all_of_it)
    at: Positions | None = None
    start: Positions | None = None
    min_score: float | None = None
    quantities: Quantities = field(default_factory=_no_more)

    @property
    def masks(self) -> bool:
        """Whether pixels can be left out."""
        return self.mask_nan or self.reading.masks

    def frame_options(self, sequence: FrameSequence) -> FrameOptions:
        """The options of frames, with the sensor of a card, of the file, or what its header knows of one."""
        given: dict[str, Any] = {} if self.mode is None else {"mode": self.mode}
        return self.instrument.frame_options(
            sequence,
            prior=self.prior,
            detector=self.detector,
            false_alarm_rate=self.false_alarm_rate,
            extended=self.extended,
            workers=self.workers,
            **given,
        )

    @property
    def sigma_px(self) -> float:
        """Equivalent sigma of the PSF that the options state; NaN if they do not."""
        from csist.physics.psf import equivalent_sigma

        psf, sensor = self.instrument.psf, self.instrument.sensor
        psf = psf or (None if sensor is None else sensor.psf)
        return float("nan") if psf is None else float(equivalent_sigma(psf))

    def metadata(self) -> dict[str, Any]:
        """What the outputs say of the run that wrote them: options, and the sensor where one was given."""
        stated = {each.name: getattr(self, each.name) for each in fields(self)}
        instrument: Instrument = stated.pop("instrument")
        stated |= {each.name: getattr(instrument, each.name) for each in fields(instrument) if each.name != "detector"}
        stated["detector_values"] = dict(instrument.detector)
        for name in ("reading", "quantities", "card_states_noise", "corrected", "origin_px"):
            del stated[name]
        cards = {name: stated.pop(name) for name in ("sensor", "psf", "prior")}
        options = {name: value for name, value in stated.items() if value is not None}
        options |= {name: card.to_card() for name, card in cards.items() if card is not None and name != "sensor"}
        options |= {"reading": asdict(self.reading), "quantities": asdict(self.quantities)}
        found = {"options": json.loads(json.dumps(options, default=str))}
        return found if instrument.sensor is None else found | {"sensor": instrument.sensor.to_card()}

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
    **maps: Any,
) -> ReadOptions:
    """What of the files is read, from the options' values; `maps` are the other fields of `ReadOptions`.

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
        **maps,
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
    joint: int | None
    reading: ReadOptions
    joint_step: int | None = None
    motion: str = "linear"
    places: dict[str, Positions] = field(default_factory=dict)
    extended: bool = True
    gain: float | None = None
    read_noise: float | None = None
    saturation: float | None = None
    min_score: float | None = None
    quantities: Quantities = field(default_factory=_no_more)


def make_settings(given: Options) -> Settings:
    """Check the options of `csist unmix`.

    Raises:
        InputError: if a value is out of range or a file cannot be used.
    """
    from csist.checks import check_ratio
    from csist.instrument import DETECTOR_CHECKS, Instrument
    from csist.io.cards import read_prior
    from csist.methods.table import abilities, canonical_name
    from csist.sequences.motion import check_motion
    from csist.unmixing import check_noise_map

    check_mode(given.mode)
    if given.min_score is not None and not 0.0 <= given.min_score <= 1.0:
        raise InputError(f"min_score must be between 0 and 1, got {given.min_score}")
    FrameOptions(detector=given.detector, false_alarm_rate=given.false_alarm_rate)
    key = canonical_name(given.method)
    check_runtime(given.runtime, [key])
    if given.weights is not None and not abilities(key).grid:
        raise InputError(f"--weights {given.weights} is for networks, the method {key!r} has none: leave it out")
    sensor, stated_noise = (None, None) if given.sensor is None else read_sensor(given.sensor)
    check_noise_map(key, given.reading.has_noise)
    if given.joint is not None and given.reading.has_noise:
        raise InputError("--joint has one noise for all pixels: leave the error map out")
    if given.reading.masks and not abilities(key).masks:
        raise InputError(f"method {key!r} cannot leave pixels out: leave the maps out, or use the method 'continuous'")
    psf, measured = _chosen_psf(given)
    if given.background is not None and abs(given.background) == float("inf"):
        raise InputError(f"background must be finite, got {given.background}")
    if given.temporal is not None and given.temporal < 3:
        raise InputError(f"temporal must be a whole number of frames >= 3, got {given.temporal}")
    if given.joint is not None and given.joint < 2:
        raise InputError(f"--joint must be a whole number of frames >= 2, got {given.joint}")
    if given.joint_step is not None and not 1 <= given.joint_step <= (given.joint or 0):
        raise InputError(
            f"--joint-step must be a whole number from 1 to the frames of --joint, got {given.joint_step} for "
            f"{'no --joint' if given.joint is None else given.joint}"
        )
    check_motion(given.motion)
    if given.motion != "linear" and given.joint is None:
        raise InputError(f"--motion {given.motion} is for --joint: give the number of frames")
    if given.joint is not None and key != "continuous":
        raise InputError(f"--joint is for the method 'continuous', got {key!r}: leave one out")
    check_workers(given.workers)
    return Settings(
        method=key,
        ratio=check_ratio(given.ratio),
        mode=given.mode,
        prior=None if given.prior is None else read_prior(given.prior),
        instrument=Instrument(
            sensor=sensor,
            psf=psf,
            psf_measured=measured,
            background=given.background,
            noise_std=given.noise_std,
            detector={name: getattr(given, name) for name in DETECTOR_CHECKS if getattr(given, name) is not None},
            card_states_noise=stated_noise is not None,
            corrected=given.reading.corrects,
            origin_px=given.reading.origin[1:],
        ),
        mask_nan=given.mask_nan,
        weights=given.weights,
        runtime=given.runtime,
        detector=given.detector,
        false_alarm_rate=given.false_alarm_rate,
        extended=given.extended,
        temporal=given.temporal,
        workers=given.workers,
        joint=given.joint,
        joint_step=given.joint_step,
        motion=given.motion,
        reading=given.reading,
        **given.places,
        min_score=given.min_score,
        quantities=given.quantities,
    )


def _chosen_psf(given: Options) -> tuple[PSF | None, str | None]:
    """Return the PSF given by the options, or the keyword for measuring it."""
    from csist.frames.options import MEASURED_PSFS
    from csist.io.psf import read_psf
    from csist.physics.psf import GaussianPSF

    if given.psf is not None and given.psf_sigma is not None:
        raise InputError(f"give --psf {given.psf} or --psf-sigma {given.psf_sigma}, not both")
    if given.psf_sigma is not None:
        return GaussianPSF(given.psf_sigma), None
    if str(given.psf) in MEASURED_PSFS:  # a file of such a name is ./auto
        return None, str(given.psf)
    return None if given.psf is None else read_psf(given.psf, given.psf_oversampling), None
