"""Settings chosen by a user of the app, and their encoding in a link."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from math import log10
from typing import Any
from urllib.parse import urlencode

import numpy as np

from csist.checks import InputError
from csist.frames.options import FALSE_ALARM_RATE, MEASURED_PSFS, FrameOptions
from csist.io import sample_frames
from csist.physics.psf import PSF, EllipticalGaussianPSF, GaussianPSF

SOURCES = {
    "example": "Example frame",
    "benchmark": "Benchmark windows",
    "build": "Build a group",
    "upload": "Your own file",
}
"""Sources of images, and their labels on the page."""

PSFS = {
    "gaussian": "Gaussian",
    "elliptical": "Elliptical Gaussian",
    "auto": "Measured Gaussian",
    "empirical": "Measured shape",
}
"""Ways to state the PSF, and their labels on the page."""

PRIORS = ("flat", "csist-100k")
MODES = ("accurate", "fast")
RATIOS = (3, 5, 7)
MOST_METHODS = 4
"""Largest number of methods side by side."""

LIMITS: dict[str, tuple[float, float]] = {
    "frame": (0, 1e6),
    "frames": (1, 24),
    "windows": (1, 6),
    "count": (1, 6),
    "separation_px": (0.1, 3.0),
    "intensity": (10.0, 1000.0),
    "scene_noise": (0.0, 20.0),
    "seed": (0, 9999),
    "psf_sigma": (0.2, 5.0),
    "psf_sigma_y": (0.2, 5.0),
    "psf_angle": (-180.0, 180.0),
    "noise_std": (0.0, 1e6),
    "background": (-1e6, 1e6),
    "gain": (1e-6, 1e6),
    "read_noise": (0.0, 1e6),
    "saturation": (1e-6, 1e9),
    "alarm_exponent": (-12.0, -2.0),
    "min_score": (0.0, 1.0),
}
"""Smallest and largest value of each number."""

WHOLE = ("frame", "frames", "windows", "count", "seed")
"""Settings that are whole numbers."""

LABELS = {
    "source": "Image",
    "example": "Frame",
    "frame": "Image of the file",
    "frames": "Images to unmix",
    "windows": "Windows",
    "count": "Targets",
    "separation_px": "Separation of neighbours in px",
    "intensity": "Intensity of each in counts",
    "scene_noise": "Noise in counts",
    "seed": "Seed",
    "methods": "Methods",
    "prior": "Prior",
    "mode": "Mode",
    "ratio": "Grid ratio of grid methods",
    "psf": "PSF",
    "psf_sigma": "PSF sigma in px",
    "psf_sigma_y": "Second sigma in px",
    "psf_angle": "Angle in degrees",
    "noise_std": "Noise of a pixel in counts",
    "background": "Background in counts",
    "gain": "Gain in electrons per count",
    "read_noise": "Read noise in counts",
    "saturation": "Saturation in counts",
    "alarm_exponent": "Detection threshold",
    "min_score": "Minimum score",
}
"""Labels of the settings on the page, which error messages use, too."""

SECTIONS = {
    "psf": ("psf", "psf_sigma", "psf_sigma_y", "psf_angle"),
    "detector": ("noise_std", "background", "gain", "read_noise", "saturation"),
    "detection": ("alarm_exponent", "min_score", "ratio"),
}
"""Settings of each section of the form that can be closed."""

CHOICE_SETTINGS = ("source", "example", "frame")
SCENE_SETTINGS = ("windows", "count", "separation_px", "intensity", "scene_noise", "seed")
"""Settings that select an image, and those that change a simulated one."""

SEPARATOR = " "
"""Separator of the methods in a link, which occurs in no method name."""


def example_names() -> list[str]:
    """Return the names of the package's sample frames, without file suffix."""
    return list(sample_frames())


def working_methods() -> list[str]:
    """Return the names of the methods without training or with trained weights, each followed by its variants.

    >>> working_methods()[:4]
    ['continuous', 'ista', 'ista+centroid', 'ista+ensemble']
    """
    # Imported here, because the settings themselves do not need them.
    from csist.methods.table import METHODS, SUFFIXES
    from csist.weights.pretrained import list_pretrained

    trained = {card["method"] for _, card in list_pretrained()}
    names: list[str] = []
    for name, entry in METHODS.items():
        if not entry.trained or name in trained:
            follows = [suffix for suffix, what in SUFFIXES.items() if entry.grid and not what.trained]
            names += [name, *(f"{name}+{suffix}" for suffix in follows)]
    return names


@dataclass(frozen=True)
class Settings:
    """Checked settings of the app.

    Args:
        source: a key of `SOURCES`.
        example: one of `example_names`.
        frame: index of the first image in an uploaded stack or video, from 0.
        frames: number of images of the file that are unmixed.
        windows: number of benchmark windows.
        count: number of targets in a simulated group.
        separation_px: distance between neighbours in the simulated group in px.
        intensity: flux of each target in counts.
        scene_noise: noise per pixel of simulated images in counts.
        seed: seed of simulated images.
        methods: names of methods, shown side by side.
        prior: "flat" or "csist-100k".
        mode: "accurate" or "fast".
        ratio: sub-pixel grid ratio of grid methods.
        psf: a key of `PSFS`.
        psf_sigma: sigma of a Gaussian PSF in px; None for 0.5 in windows and a guess in frames.
        psf_sigma_y: sigma of an elliptical PSF along its second axis in px.
        psf_angle: angle of its first axis in degrees from x towards y.
        noise_std: noise per pixel in counts; None for the true noise of simulated images, else an estimate.
        background: background of windows in counts; None for 0. The background of a frame is measured.
        gain: electrons per count; None if photon noise of the targets is not taken into account.
        read_noise: read noise in counts; None if it is not known.
        saturation: level in counts at which the sensor clips; None if it is to be found.
        alarm_exponent: logarithm to base 10 of the false alarms per pixel of the detection in frames.
        min_score: smallest score of a target that is reported.

    Raises:
        InputError: if a value is not one of the choices or out of range.
    """

    source: str = "example"
    example: str = "airplane_clear_sky"
    frame: int = 0
    frames: int = 1
    windows: int = 2
    count: int = 2
    separation_px: float = 0.6
    intensity: float = 240.0
    scene_noise: float = 1.0
    seed: int = 0
    methods: tuple[str, ...] = ("continuous",)
    prior: str = "flat"
    mode: str = FrameOptions.mode
    ratio: int = 3
    psf: str = "gaussian"
    psf_sigma: float | None = None
    psf_sigma_y: float | None = None
    psf_angle: float = 0.0
    noise_std: float | None = None
    background: float | None = None
    gain: float | None = None
    read_noise: float | None = None
    saturation: float | None = None
    alarm_exponent: float = round(log10(FALSE_ALARM_RATE), 6)
    min_score: float = 0.0

    def __post_init__(self) -> None:
        choices: dict[str, tuple[Any, ...]] = {
            "source": tuple(SOURCES),
            "example": tuple(example_names()),
            "prior": PRIORS,
            "mode": MODES,
            "ratio": RATIOS,
            "psf": tuple(PSFS),
        }
        for name, allowed in choices.items():
            value = getattr(self, name)
            if value not in allowed:
                raise InputError(f"{LABELS[name]} must be one of {', '.join(map(str, allowed))}, got {value!r}")
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            optional = Settings.__dataclass_fields__[name].default is None
            if value is None and optional:
                continue
            if value is None or not (np.isfinite(value) and low <= value <= high):
                raise InputError(f"{LABELS[name]} must be a number from {low:g} to {high:g}, got {_shown(value)}")
        for name in WHOLE:
            value = getattr(self, name)
            if int(value) != value:
                raise InputError(f"{LABELS[name]} must be a whole number, got {value}")
            object.__setattr__(self, name, int(value))
        if self.psf == "elliptical" and None in (self.psf_sigma, self.psf_sigma_y):
            raise InputError("an elliptical PSF needs both sigmas in px: state them, or choose another PSF")
        self._check_methods()

    @property
    def false_alarm_rate(self) -> float:
        """False alarms per pixel in frames; the default is exactly that of the command line."""
        same = self.alarm_exponent == Settings.alarm_exponent
        return FALSE_ALARM_RATE if same else float(10.0**self.alarm_exponent)

    @property
    def stated_psf(self) -> PSF | None:
        """PSF that is stated; None if it is left open or measured."""
        if self.psf in MEASURED_PSFS or self.psf_sigma is None:
            return None
        if self.psf == "elliptical" and self.psf_sigma_y is not None:
            return EllipticalGaussianPSF(self.psf_sigma, self.psf_sigma_y, self.psf_angle)
        return GaussianPSF(self.psf_sigma)

    def same_image(self, other: Settings) -> bool:
        """Return whether both settings select the same image."""
        names: tuple[str, ...] = CHOICE_SETTINGS
        if self.source in ("benchmark", "build"):
            names += (*SCENE_SETTINGS, *SECTIONS["psf"], *SECTIONS["detector"])
        return all(getattr(self, name) == getattr(other, name) for name in names)

    def changed(self, names: Iterable[str]) -> bool:
        """Return whether any of these settings differs from its default."""
        return any(getattr(self, name) != getattr(Settings, name) for name in names)

    def _check_methods(self) -> None:
        object.__setattr__(self, "methods", tuple(self.methods))
        if not 1 <= len(self.methods) <= MOST_METHODS:
            raise InputError(f"choose 1 to {MOST_METHODS} methods, got {len(self.methods)}")
        if self.methods == Settings.methods:
            return
        working = working_methods()
        for name in self.methods:
            if name not in working:
                raise InputError(
                    f"method {name!r} does not exist or has no trained weights: use one of {', '.join(working)}"
                )

    def query(self) -> str:
        """Encode the settings as the query of a link, without default values.

        >>> Settings(source="build", count=3, methods=("continuous", "ista+refine")).query()
        'source=build&count=3&methods=continuous+ista%2Brefine'
        """
        changed = {
            field.name: SEPARATOR.join(value) if isinstance(value, tuple) else value
            for field in fields(self)
            for value in [getattr(self, field.name)]
            if value != field.default
        }
        return urlencode(changed)


def _shown(value: float | None) -> str:
    return "nothing" if value is None else f"{value:g}"


_READERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(LIMITS, float),
    **dict.fromkeys((*WHOLE, "ratio"), int),
    "methods": lambda text: tuple(text.split(SEPARATOR)),
}
"""Converters of the values in a link; other values are text."""


def from_query(parameters: Mapping[str, str]) -> Settings:
    """Read the settings from a link; missing settings take their defaults, unknown ones are ignored.

    Raises:
        InputError: if a value cannot be used.

    >>> from_query({"source": "build", "count": "3", "__theme": "dark"}).count
    3
    """
    values: dict[str, Any] = {}
    for field in fields(Settings):
        if field.name in parameters:
            text = parameters[field.name]
            try:
                values[field.name] = _READERS.get(field.name, str)(text)
            except ValueError as error:
                raise InputError(f"{LABELS[field.name]} must be a number, got {text!r}") from error
    return Settings(**values)


def in_words(text: str) -> str:
    """Replace names of settings in a message by their labels.

    >>> in_words("noise_std must be >= 0, got -1")
    'noise of a pixel in counts must be >= 0, got -1'
    """
    names = sorted((name for name in LABELS if "_" in name), key=len, reverse=True)
    return re.sub(
        rf"\b({'|'.join(names)})\b", lambda found: LABELS[found[0]][0].lower() + LABELS[found[0]][1:], text
    ).replace("pSF", "PSF")
