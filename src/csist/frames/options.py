"""The options of unmixing a frame, validated once; command line and app take names, defaults and help from here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from csist.checks import InputError, as_number, check_kind, check_names, check_not_negative, check_workers, shown

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from csist.frames.psf_estimate import PSFEstimate
    from csist.physics.psf import PSF
    from csist.physics.sensor import Sensor
    from csist.scenes import ScenePrior
    from csist.targets import Targets

CROWDED = "crowded"
"""The detector that fits a whole frame at once, see `csist.frames.crowded.solve`."""
AUTO, CONTRAST, MATCHED = "auto", "contrast", "matched"
DETECTORS = (AUTO, CONTRAST, MATCHED, CROWDED)

MEASURED_PSFS = ("auto", "empirical")
"""Words for a PSF to be measured on the frame: the best Gaussian, and an oversampled table."""

FALSE_ALARM_RATE = 1e-9
"""Stated false alarms per pixel; a real scene has some tens of times more, because clutter holds real small spots."""


def check_false_alarm_rate(rate: float) -> float:
    """The rate, if it is between 0 and 0.1 false alarms per pixel.

    Raises:
        InputError: if it is not.
    """
    if not 0.0 < as_number(rate) < 0.1:
        raise InputError(f"false_alarm_rate must be between 0 and 0.1 false alarms per pixel, got {shown(rate)}")
    return rate


def as_positions(places: Targets | ArrayLike) -> tuple[tuple[float, float], ...]:
    """Pairs (x, y) of positions in px given as targets or as an array (n, 2).

    Raises:
        InputError: if they are something else or not finite.

    >>> as_positions([[3.0, 4.5]])
    ((3.0, 4.5),)
    """
    import numpy as np

    from csist.targets import Targets

    pairs = np.stack([places.x, places.y], axis=1) if isinstance(places, Targets) else np.asarray(places, np.float64)
    pairs = pairs.reshape(-1, 2) if not pairs.size else pairs
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise InputError(f"start must be targets or positions (n, 2), got an array of shape {pairs.shape}")
    if not np.isfinite(pairs).all():
        raise InputError("start positions must be finite: leave out those that are NaN or infinite")
    return tuple((float(x), float(y)) for x, y in pairs)


@dataclass(frozen=True)
class FrameOptions:
    """How a frame is unmixed.

    Args:
        sensor: PSF, shot noise and saturation; its shape, background and rounding are ignored. None: the PSF and the
            level at which the frame clips are found from the frame.
        sensor_has_psf: whether the sensor's PSF is the frame's; False where only the rest is known, as from the header
            of a file.
        prior: scene prior of a window, not single-pixel; None for `ScenePrior.flat()`.
        mode: "accurate" or "fast".
        noise_std: noise of a pixel without targets in counts; None takes the sensor's read noise where it has no gain,
            and else measures it all over the frame; with a gain no less than read noise and photons of the background.
        psf: point spread function, or the sigma in px of a Gaussian one; takes precedence over the sensor's. "auto"
            measures the sigma on isolated bright sources, "empirical" the shape too, see
            `csist.frames.psf.measure.estimate_psf`; both refuse frames with too few sources. A `PSFEstimate` is used
            with its error. None takes the sensor's, and without a sensor a rough guess.
        psf_error: error of the PSF, as a share of the light in a window's brightest pixel (it counts as noise whose
            variance grows with the light); None: 0.2 where the PSF is guessed, what the sources show where it is
            measured, else 0.
        detector: "contrast" (scenes with clutter), "matched" (frames limited by noise, sparse star fields), "crowded"
            (star fields without dark sky between the targets, fitted all at once), or "auto", which chooses by the
            frame's noise, clutter and source density, see `csist.frames.detection.choose`.
        false_alarm_rate: stated false alarms per pixel in Gaussian noise, below 0.1.
        box_sides_px: sides of the boxes of the background in px, coarse to fine; None: (128, 32), wider for wide PSFs.
        start: positions (n, 2), x and y in px, or `Targets`, at which targets are tried, detected or not.
        keep_samples: whether the groups keep their posterior samples; the crowded detector has none.
        extended: whether a blob may be one extended source or a streak instead of point targets; the crowded detector
            knows points only.
        workers: threads, None for one per core; the result does not depend on it.

    Raises:
        InputError: if a value is out of range.
    """

    sensor: Sensor | None = None
    sensor_has_psf: bool = True
    prior: ScenePrior | None = None
    mode: str = field(default="accurate", metadata={"help": "Effort of the continuous method: accurate or fast."})
    noise_std: float | None = field(default=None, metadata={"help": "Noise of a pixel in counts."})
    psf: PSF | PSFEstimate | float | str | None = None
    psf_error: float | None = None
    detector: str = field(
        default=AUTO,
        metadata={"help": "How targets are found: contrast (clutter), matched (noise), crowded (stars), or auto."},
    )
    false_alarm_rate: float = field(
        default=FALSE_ALARM_RATE, metadata={"help": "Detection threshold in frames: false alarms per pixel."}
    )
    box_sides_px: tuple[int, ...] | None = None
    start: tuple[tuple[float, float], ...] | Targets | ArrayLike = ()
    keep_samples: bool = False
    extended: bool = field(
        default=True,
        metadata={"help": "Frames: whether blobs may be extended sources or streaks instead of point targets."},
    )
    workers: int | None = field(default=None, metadata={"help": "Threads."})

    def __post_init__(self) -> None:
        # Imported here: the names, defaults and help texts of the options are needed before any solver is.
        from csist.frames.psf_estimate import PSFEstimate
        from csist.methods.table import abilities
        from csist.physics.psf import as_psf
        from csist.physics.sensor import Sensor
        from csist.scenes import as_prior

        check_kind("sensor", self.sensor, Sensor, "Sensor(GaussianPSF(0.5)) is one")
        object.__setattr__(self, "prior", as_prior(self.prior))
        for name, allowed in (("mode", abilities("continuous").modes), ("detector", DETECTORS)):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if self.prior is not None and self.prior.single_pixel:
            raise InputError("a frame needs a prior with targets anywhere: use flat, or cut windows and unmix them")
        if isinstance(self.psf, str) and self.psf not in MEASURED_PSFS:
            raise InputError(f"psf must be a PSF, a sigma in px, {' or '.join(MEASURED_PSFS)}, got {self.psf!r}")
        if not (self.psf is None or isinstance(self.psf, str | PSFEstimate)):
            known = as_psf(self.psf)
            if known is None:
                raise InputError(f"psf must be a PSF, a sigma in px, {' or '.join(MEASURED_PSFS)}, got {self.psf!r}")
            object.__setattr__(self, "psf", known)
        for name in ("noise_std", "psf_error"):
            if getattr(self, name) is not None:
                check_not_negative(name, getattr(self, name))
        object.__setattr__(self, "start", as_positions(self.start))
        check_false_alarm_rate(self.false_alarm_rate)
        if self.box_sides_px is not None:
            sides = self.box_sides_px if isinstance(self.box_sides_px, Sequence) else ()
            if not sides or not min(as_number(side) for side in sides) >= 3:
                raise InputError(f"box_sides_px must hold sides of at least 3 px, got {self.box_sides_px}")
        check_workers(self.workers)

    @classmethod
    def of(cls, **options: Any) -> FrameOptions:
        """The options with these names.

        Raises:
            InputError: if a name is unknown or a value out of range.
        """
        check_names("a frame", options, [each.name for each in fields(cls)])
        return cls(**options)

    @property
    def gain(self) -> float | None:
        """Electrons per count; None for no shot noise of the targets."""
        return None if self.sensor is None else self.sensor.gain

    @property
    def ceiling(self) -> float | None:
        """Level in counts at which the sensor clips; None if it is not known."""
        return None if self.sensor is None or self.sensor.ceiling == float("inf") else self.sensor.ceiling

    @property
    def least_noise_std(self) -> float:
        """Noise in counts that a pixel has at least, without the photons of the background and the targets."""
        return 0.0 if self.sensor is None else self.sensor.read_noise

    @property
    def stated_background(self) -> float:
        """Counts of the background that are light, as the sensor says; 0 where it says nothing."""
        return 0.0 if self.sensor is None else max(self.sensor.background, 0.0)

    @property
    def stated_noise_std(self) -> float | None:
        """Noise of a pixel in counts if it is known; None if it is to be measured."""
        if self.noise_std is None and self.sensor is not None and self.sensor.gain is None:
            return self.sensor.read_noise or None
        return self.noise_std


def option_help(name: str) -> str:
    """Help text of an option, for the command line and the app; its default is `FrameOptions.NAME`."""
    return str(FrameOptions.__dataclass_fields__[name].metadata["help"])
