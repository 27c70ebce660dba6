"""Options of `POST /api/unmix`, named as those of `csist unmix`, and the rows that answer a request."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from csist.app.settings import working_methods
from csist.app.uploads import open_upload
from csist.checks import InputError, check_not_negative, check_positive, check_ratio
from csist.frames.options import DETECTORS, MEASURED_PSFS, check_false_alarm_rate
from csist.instrument import DETECTOR_CHECKS, Instrument
from csist.io import ImageStack, targets_table
from csist.physics.psf import GaussianPSF
from csist.scenes import ScenePrior
from csist.unmixing import check_frame_method, unmix
from csist.windows import is_window


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{name} must be a finite number, got {text!r}")
    return value


def _checked(check: Callable[[str, float], Any]) -> Callable[[str, str], float]:
    return lambda name, text: float(check(name, _number(name, text)))


def _share(name: str, value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise InputError(f"{name} must be between 0 and 1, got {value:g}")
    return value


def _false_alarm_rate(name: str, text: str) -> float:
    value = _number(name, text)
    check_false_alarm_rate(value)
    return value


def _one_of(*choices: str) -> Callable[[str, str], str]:
    def read(name: str, text: str) -> str:
        if text not in choices:
            raise InputError(f"{name} must be one of {', '.join(choices)}, got {text!r}")
        return text

    return read


def _method(_: str, text: str) -> str:
    return _one_of(*working_methods())("method", text)


def _switch(name: str, text: str) -> bool:
    return _one_of("true", "false")(name, text) == "true"


def _ratio(name: str, text: str) -> int:
    value = _number(name, text)
    if value != int(value):
        raise InputError(f"{name} must be a whole number, got {text!r}")
    return check_ratio(int(value))


READERS: dict[str, Callable[[str, str], Any]] = {
    "method": _method,
    "mode": _one_of("accurate", "fast"),
    "prior": _one_of("flat", "csist-100k"),
    "psf": _one_of(*MEASURED_PSFS),
    "psf-sigma": _checked(check_positive),
    "noise-std": _checked(check_not_negative),
    "background": _number,
    "detector": _one_of(*DETECTORS),
    "false-alarm-rate": _false_alarm_rate,
    "mask-nan": _switch,
    "ratio": _ratio,
    "gain": _checked(check_positive),
    "read-noise": _checked(check_not_negative),
    "saturation": _checked(check_positive),
    "min-score": _checked(_share),
}
"""Options of a request, and the functions that check their text. None of them names a file of the server."""


@dataclass(frozen=True)
class Options:
    """Checked options of a request.

    Args:
        given: value of each option that was given, by its name.
    """

    given: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, fields: Mapping[str, str]) -> Options:
        """Read the options from the fields of a form.

        Raises:
            InputError: if an option is unknown or its value cannot be used.
        """
        for name in fields:
            if name not in READERS:
                raise InputError(f"unknown option {name!r}: use {', '.join(READERS)}")
        if "psf" in fields and "psf-sigma" in fields:
            raise InputError("give psf or psf-sigma, not both")
        return cls({name: READERS[name](name, text) for name, text in fields.items()})

    @property
    def method(self) -> str:
        """Name of the method."""
        return str(self.given.get("method", "continuous"))

    @property
    def prior(self) -> ScenePrior | None:
        """Prior, if one is given."""
        return ScenePrior.named(self.given["prior"]) if "prior" in self.given else None

    @property
    def instrument(self) -> Instrument:
        """What the options state of the instrument."""
        given = self.given
        psf, sigma = given.get("psf"), given.get("psf-sigma")
        names = {name: name.replace("_", "-") for name in DETECTOR_CHECKS}
        return Instrument(
            psf=None if sigma is None else GaussianPSF(sigma),
            psf_measured=psf,
            background=given.get("background"),
            noise_std=given.get("noise-std"),
            detector={field: given[name] for field, name in names.items() if name in given},
        )


def rows_of(path: Path, options: Options) -> list[dict[str, Any]]:
    """Unmix all images of a file and return its targets, one row each with the columns of the CSV table.

    Missing values are None.

    Raises:
        InputError: if the file cannot be read or unmixed with these options.
    """
    stack = open_upload(path)
    given = options.given
    solve = _unmix_windows if is_window(stack.shape) else _unmix_frames
    found = solve(stack, options)
    least = given.get("min-score")
    kept = found if least is None else [targets[~(targets.score < least)] for targets in found]
    table = targets_table([(path.name, number, targets) for number, targets in enumerate(kept)])
    columns = {name: table[name].astype(object).where(table[name].notna(), None).tolist() for name in table.columns}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _unmix_windows(stack: ImageStack, options: Options) -> list[Any]:
    from csist.methods.table import abilities

    given, images, instrument = options.given, stack[:], options.instrument
    sensor = instrument.window_sensor(stack, images, stack.data.dtype)
    noise_std = instrument.window_noise(stack, sensor)
    more: dict[str, Any] = {"mode": given["mode"]} if "mode" in given else {}
    if abilities(options.method).grid and "ratio" in given:
        more["ratio"] = given["ratio"]
    found = unmix(
        images, sensor, options.prior, options.method,
        noise_std=noise_std, mask_nan=given.get("mask-nan", False), **more,
    )  # fmt: skip
    return list(found)


def _unmix_frames(stack: ImageStack, options: Options) -> list[Any]:
    from csist.frames import solve_frame

    check_frame_method(options.method)
    given = options.given
    names = {"mode": "mode", "detector": "detector", "false-alarm-rate": "false_alarm_rate"}
    frame_options = options.instrument.frame_options(
        stack, prior=options.prior, **{field: given[name] for name, field in names.items() if name in given}
    )
    return [solve_frame(stack[number], frame_options).targets for number in range(len(stack))]
