"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from csist.checks import InputError
from csist.frames.options import FrameOptions, option_help

if TYPE_CHECKING:
    from csist.physics.sensor import Sensor

DataArgument = Annotated[Path, typer.Argument(metavar="DATA", help="Store (.h5) or folder of a GrokCSO dataset.")]
SplitOption = Annotated[str, typer.Option("--split", help="train, val or test.")]
LimitOption = Annotated[int | None, typer.Option("--limit", help="Use the first images only.")]
RatioOption = Annotated[int, typer.Option("--ratio", help="Sub-pixel grid ratio of grid methods, 3, 5 or 7.")]
ModeOption = Annotated[
    str | None,
    typer.Option("--mode", help=option_help("mode"), show_default=FrameOptions.mode),
]
PriorOption = Annotated[
    str | None, typer.Option("--prior", help="What is known of a group: flat, csist-100k or a JSON file.")
]
SensorOption = Annotated[Path | None, typer.Option("--sensor", help="Sensor card (JSON file).")]
NoiseOption = Annotated[float | None, typer.Option("--noise-std", help=option_help("noise_std"))]
DetectorOption = Annotated[str, typer.Option("--detector", help=option_help("detector"))]
FalseAlarmOption = Annotated[float, typer.Option("--false-alarm-rate", help=option_help("false_alarm_rate"))]
WeightsOption = Annotated[
    Path | None,
    typer.Option("--weights", help="Weight file of a trained method, instead of the package's own."),
]
RuntimeOption = Annotated[
    str,
    typer.Option("--runtime", help="What computes the maps of a grid method: torch, or onnx (onnxruntime)."),
]
JsonOption = Annotated[
    str | None,
    typer.Option("--json", help="Write the figures as JSON to this file, or - for standard output."),
]
PlotOption = Annotated[Path | None, typer.Option("--plot", help="Draw a picture (.png, .svg or .pdf).")]


def check_mode(mode: str | None) -> None:
    """Check the effort of the continuous method.

    Raises:
        InputError: if there is no such effort.
    """
    from csist.methods.table import METHODS

    modes = METHODS["continuous"].modes
    if mode is not None and mode not in modes:
        raise InputError(f"mode must be {' or '.join(modes)}, got {mode!r}")


def check_runtime(runtime: str, methods: Sequence[str]) -> None:
    """Check what computes the maps of these methods, given by their registry names.

    Raises:
        InputError: if there is no such runtime, or a method has no map and another than the usual one is asked for.
    """
    from csist.methods.table import RUNTIMES, abilities

    if runtime not in RUNTIMES:
        raise InputError(f"runtime must be {' or '.join(RUNTIMES)}, got {runtime!r}")
    for name in methods:
        if runtime != RUNTIMES[0] and not abilities(name).grid:
            raise InputError(f"--runtime {runtime} is for methods on the grid, {name!r} has none: leave it out")


def read_sensor(path: Path) -> tuple[Sensor, float | None]:
    """The sensor of a card, and its noise in counts if the card states one.

    Raises:
        InputError: if the file cannot be read or is no sensor card.
    """
    from csist.files import reading
    from csist.physics.sensor import Sensor

    with reading(path):
        card = json.loads(path.read_text(encoding="utf-8"))
    try:
        sensor = Sensor.from_card(card)
    except (TypeError, ValueError) as error:
        raise InputError(f"cannot use the sensor card {path}: {error}") from error
    return sensor, sensor.read_noise if "read_noise" in card else None
