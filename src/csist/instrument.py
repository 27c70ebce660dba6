"""What is known of the instrument behind an image: from options, a sensor card, the file and its header.

Options go before a card, a card before the sensor of a file, and that before what the file's header says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from csist._types import FloatArray
from csist.checks import check_not_negative, check_positive
from csist.frames.options import FrameOptions
from csist.io.headers import Header
from csist.physics.psf import PSF
from csist.physics.sensor import Sensor
from csist.windows import default_sensor

DETECTOR_CHECKS = {"gain": check_positive, "read_noise": check_not_negative, "saturation": check_positive}
"""Fields of a sensor that options state one by one, and what checks their values."""


class Source(Protocol):
    """A file of images, or a sequence, with what it says of the instrument."""

    @property
    def sensor(self) -> Sensor | None:
        """The sensor that the file states."""

    @property
    def header(self) -> Header:
        """What its header says."""


@dataclass(frozen=True)
class Instrument:
    """What a user states of an instrument; None where nothing is stated.

    Args:
        sensor: of a card.
        psf: point spread function, which overrides that of the sensor.
        psf_measured: "auto" or "empirical" where the PSF is to be measured.
        background: of windows, in counts.
        noise_std: noise of a pixel without targets in counts.
        detector: gain, read_noise and saturation, as far as they are stated one by one.
        card_states_noise: whether the card has a read noise, not only the default.
        corrected: whether a dark frame or a flat field is applied, after which no level of clipping is left.
        origin_px: (x, y) in the whole image of the first pixel that is read; a PSF that varies over the field is stated
            for the whole image.

    Raises:
        InputError: if a value is out of range.

    >>> camera = Instrument(sensor=Sensor(read_noise=2.0), detector={"gain": 1.5})
    >>> camera.detected(camera.sensor).gain
    1.5
    """

    sensor: Sensor | None = None
    psf: PSF | None = None
    psf_measured: str | None = None
    background: float | None = None
    noise_std: float | None = None
    detector: Mapping[str, Any] = field(default_factory=dict)
    card_states_noise: bool = False
    corrected: bool = False
    origin_px: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        for name, value in self.detector.items():
            DETECTOR_CHECKS[name](name, value)
        if self.noise_std is not None:
            check_not_negative("noise_std", self.noise_std)

    @property
    def states_noise(self) -> bool:
        """Whether the card or an option states the read noise."""
        return self.card_states_noise or "read_noise" in self.detector

    def detected(self, sensor: Sensor) -> Sensor:
        """The sensor with what options say of the detector."""
        sensor = replace(sensor, **self.detector)
        return replace(sensor, saturation=None, bits=None, quantised=False) if self.corrected else sensor

    def window_sensor(self, source: Source, images: FloatArray, dtype: np.dtype[Any]) -> Sensor:
        """The sensor of windows; of one that nothing states, read noise 0 says that the noise is to be estimated.

        Args:
            source: of the windows.
            images: (N, H, W) in counts.
            dtype: of the values as stored.
        """
        sensor = self.sensor or source.sensor
        if sensor is None:
            # A header's read noise alone would leave out the noise of a sky.
            sensor = replace(self._header(source).applied(default_sensor(images, dtype)), read_noise=0.0)
        if self.psf is not None:
            sensor = replace(sensor, psf=self.psf)
        if self.background is not None:
            sensor = replace(sensor, background=self.background)
        return self.detected(replace(sensor, psf=sensor.psf.moved(*self.origin_px)))

    def window_noise(self, source: Source, sensor: Sensor) -> float | None:
        """Noise in counts of a pixel of windows without targets, if an option, card or file states it.

        Args:
            source: of the windows.
            sensor: of `window_sensor`.
        """
        if self.noise_std is None and (self.states_noise or (self.sensor is None and source.sensor is not None)):
            return sensor.pixel_noise
        return self.noise_std

    def frame_options(self, source: Source, **options: Any) -> FrameOptions:
        """The options of the frames of a source.

        Args:
            source: of the frames.
            **options: further fields of `FrameOptions`.

        Raises:
            InputError: if an option is out of range.
        """
        sensor = self.sensor or source.sensor
        header = self._header(source)
        partly = sensor is None and (header.states_sensor or bool(self.detector))
        if partly:
            sensor = header.applied(Sensor())
        noise = self.noise_std
        if sensor is not None:
            sensor = self.detected(replace(sensor, psf=sensor.psf.moved(*self.origin_px)))
            if noise is None and self.states_noise and sensor.gain is None:
                # With a gain, the read noise is only a part of the noise; no real frame has none at all.
                noise = sensor.read_noise or None
        psf = None if self.psf is None else self.psf.moved(*self.origin_px)
        return FrameOptions(
            sensor=sensor, sensor_has_psf=not partly, noise_std=noise, psf=self.psf_measured or psf, **options
        )

    def _header(self, source: Source) -> Header:
        """What the header of a source says where options say nothing else."""
        return source.header.overridden(self.detector)

    def gain_of(self, source: Source) -> float | None:
        """Electrons per count; None where nothing states them."""
        sensor = self.sensor or source.sensor
        if "gain" in self.detector:
            return float(self.detector["gain"])
        return source.header.gain if sensor is None else sensor.gain

    def notes(self, source: Source, instead: str = "--sensor overrides it") -> list[str]:
        """What a summary says of a sensor taken from a file's header.

        Args:
            source: of the images.
            instead: says what to do where the header is wrong.
        """
        if self.sensor or source.sensor:
            return []
        said = self._header(source).said
        return [f"from the header: {', '.join(said)}; {instead}"] if said else []
