"""Settings chosen by a user of the app, and their encoding in a link."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from importlib import resources
from typing import Any
from urllib.parse import urlencode

import numpy as np

from csist.checks import InputError
from csist.frames.options import FrameOptions

SOURCES = {
    "example": "Example frame",
    "benchmark": "Benchmark windows",
    "build": "Build a group",
    "upload": "Your own file",
}
"""Sources of images, and their labels on the page."""

PRIORS = ("flat", "csist-100k")
MODES = ("accurate", "fast")
RATIOS = (3, 5, 7)
MOST_METHODS = 4
"""Largest number of methods side by side."""

LIMITS: dict[str, tuple[float, float]] = {
    "frame": (0, 1e6),
    "windows": (1, 6),
    "count": (1, 6),
    "separation_px": (0.1, 3.0),
    "intensity": (10.0, 1000.0),
    "scene_noise": (0.0, 20.0),
    "seed": (0, 9999),
    "psf_sigma": (0.2, 5.0),
    "noise_std": (0.0, 1e6),
    "background": (-1e6, 1e6),
}
"""Smallest and largest value of each number."""

SEPARATOR = " "
"""Separator of the methods in a link, which occurs in no method name."""


def example_names() -> list[str]:
    """Return the names of the package's sample frames, without file suffix."""
    return sorted(item.name.removesuffix(".png") for item in _samples().iterdir() if item.name.endswith(".png"))


def _samples() -> Any:
    return resources.files("csist") / "data"


def working_methods() -> list[str]:
    """Return the names of the methods without training or with trained weights, each followed by its variants.

    >>> working_methods()[:4]
    ['continuous', 'ista', 'ista+centroid', 'ista+refine']
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
        frame: index of the image in an uploaded stack, from 0.
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
        psf_sigma: sigma of a Gaussian PSF in px; None for 0.5 in windows and a measured PSF in frames.
        noise_std: noise per pixel in counts; None for the true noise of simulated images, else an estimate.
        background: background of windows in counts; None for 0. The background of a frame is measured.

    Raises:
        InputError: if a value is not one of the choices or out of range.
    """

    source: str = "example"
    example: str = "airplane_clear_sky"
    frame: int = 0
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
    psf_sigma: float | None = None
    noise_std: float | None = None
    background: float | None = None

    def __post_init__(self) -> None:
        choices: dict[str, tuple[Any, ...]] = {
            "source": tuple(SOURCES),
            "example": tuple(example_names()),
            "prior": PRIORS,
            "mode": MODES,
            "ratio": RATIOS,
        }
        for name, allowed in choices.items():
            value = getattr(self, name)
            if value not in allowed:
                raise InputError(f"{name} must be one of {', '.join(map(str, allowed))}, got {value!r}")
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            optional = Settings.__dataclass_fields__[name].default is None
            if value is None and optional:
                continue
            if value is None or not (np.isfinite(value) and low <= value <= high):
                raise InputError(f"{name} must be a number from {low:g} to {high:g}, got {value}")
        for name in ("frame", "windows", "count", "seed"):
            value = getattr(self, name)
            if int(value) != value:
                raise InputError(f"{name} must be a whole number, got {value}")
            object.__setattr__(self, name, int(value))
        self._check_methods()

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


_READERS: dict[str, Callable[[str], Any]] = {
    "frame": int,
    "windows": int,
    "count": int,
    "seed": int,
    "ratio": int,
    "separation_px": float,
    "intensity": float,
    "scene_noise": float,
    "psf_sigma": float,
    "noise_std": float,
    "background": float,
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
                raise InputError(f"{field.name} must be a number, got {text!r}") from error
    return Settings(**values)
