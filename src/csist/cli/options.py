"""Options shared by several commands, and functions that read their values."""

from __future__ import annotations

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
LimitOption = Annotated[int | None, typer.Option("--limit", help="Number of images to use, from the first.")]
RatioOption = Annotated[int, typer.Option("--ratio", help="Sub-pixel grid ratio of grid methods, 3, 5 or 7.")]
ModeOption = Annotated[
    str | None,
    typer.Option("--mode", help=option_help("mode"), show_default=FrameOptions.mode),
]
PriorOption = Annotated[
    str | None, typer.Option("--prior", help="Prior of a group of targets: flat, csist-100k or a JSON file.")
]
SensorOption = Annotated[Path | None, typer.Option("--sensor", help="Sensor card (JSON file).")]
NoiseOption = Annotated[float | None, typer.Option("--noise-std", help=option_help("noise_std"))]
DetectorOption = Annotated[str, typer.Option("--detector", help=option_help("detector"))]
FalseAlarmOption = Annotated[float, typer.Option("--false-alarm-rate", help=option_help("false_alarm_rate"))]
ExtendedOption = Annotated[bool, typer.Option("--extended/--no-extended", help=option_help("extended"))]
WeightsOption = Annotated[
    Path | None,
    typer.Option("--weights", help="Weight file of a trained method instead of the one in the package."),
]
PsfSigmaOption = Annotated[float | None, typer.Option("--psf-sigma", help="Gaussian PSF: standard deviation in px.")]
OversamplingOption = Annotated[int, typer.Option("--psf-oversampling", help="Samples per pixel of the measured PSF.")]
RuntimeOption = Annotated[
    str,
    typer.Option("--runtime", help="Library that computes the maps of a grid method: torch, or onnx (onnxruntime)."),
]
JsonOption = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Write the figures as JSON to this file, or - for standard output."),
]
HduOption = Annotated[
    str | None, typer.Option("--hdu", help="FITS: name or number of the unit, as in file.fits[SCI] and file.fits[2].")
]
ChannelOption = Annotated[int | None, typer.Option("--channel", help="TIFF: channel, from 0.")]
PlaneOption = Annotated[int | None, typer.Option("--plane", help="TIFF: z plane, from 0.")]
PageOption = Annotated[int | None, typer.Option("--page", help="TIFF: one page, from 0, instead of all.")]
FramesOption = Annotated[
    str | None, typer.Option("--frames", help="Images a:b of a stack, video or sequence, from 0, b excluded.")
]
RoiOption = Annotated[
    str | None,
    typer.Option("--roi", help="Region x0:x1,y0:y1 in px, ends excluded; positions refer to the whole image."),
]
MaxPixelsOption = Annotated[
    int | None,
    typer.Option(
        "--max-pixels", help="Largest number of pixels that a file may load into memory.", show_default="2^28"
    ),
]
PANEL = "Instrument"
ErrorOption = Annotated[
    str | None,
    typer.Option(
        "--error", help="Noise of each pixel as standard deviation: file or FITS unit.", rich_help_panel=PANEL
    ),
]
WeightOption = Annotated[
    str | None,
    typer.Option("--weight", help="Noise of each pixel as inverse variance: file or FITS unit.", rich_help_panel=PANEL),
]
MaskOption = Annotated[
    str | None,
    typer.Option("--mask", help="Pixels to leave out (nonzero values): file or FITS unit.", rich_help_panel=PANEL),
]
DarkOption = Annotated[
    str | None, typer.Option("--dark", help="Dark frame that is subtracted: file or FITS unit.", rich_help_panel=PANEL)
]
FlatOption = Annotated[
    str | None,
    typer.Option("--flat", help="Flat field that the image is divided by: file or FITS unit.", rich_help_panel=PANEL),
]
GainOption = Annotated[float | None, typer.Option("--gain", help="Electrons per count.", rich_help_panel=PANEL)]
ReadNoiseOption = Annotated[
    float | None, typer.Option("--read-noise", help="Read noise in counts.", rich_help_panel=PANEL)
]
SaturationOption = Annotated[
    float | None,
    typer.Option("--saturation", help="Level in counts at which a pixel saturates.", rich_help_panel=PANEL),
]
MinScoreOption = Annotated[
    float | None, typer.Option("--min-score", help="Smallest score of a reported target.", rich_help_panel=PANEL)
]
UNITS_PANEL = "Units and sky: further columns"
TimesOption = Annotated[
    bool,
    typer.Option(
        "--times",
        help="Seconds since the first frame of a sequence, by the times that its file states.",
        rich_help_panel=UNITS_PANEL,
    ),
]
MjdOption = Annotated[
    bool,
    typer.Option(
        "--mjd",
        help="Modified Julian date (UTC) of the middle of the exposure, of FITS files that state it.",
        rich_help_panel=UNITS_PANEL,
    ),
]
PixelScaleOption = Annotated[
    list[str] | None,
    typer.Option(
        "--pixel-scale", help="Size of a pixel, such as 1.2arcsec, 110nm or 0.1mrad.", rich_help_panel=UNITS_PANEL
    ),
]
SkyOption = Annotated[
    bool,
    typer.Option(
        "--sky", help="Right ascension and declination, from the WCS of the file.", rich_help_panel=UNITS_PANEL
    ),
]
ElectronsOption = Annotated[
    bool, typer.Option("--electrons", help="Fluxes in electrons, from the gain.", rich_help_panel=UNITS_PANEL)
]
ZeroPointOption = Annotated[
    float | None,
    typer.Option(
        "--zero-point", help="Magnitudes; the value is the magnitude of one count.", rich_help_panel=UNITS_PANEL
    ),
]
PlotOption = Annotated[Path | None, typer.Option("--plot", help="Write a figure (.png, .svg or .pdf).")]
BestPlotOption = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        help="Write a figure (.png, .svg or .pdf) of the frame with the most certain pair, or of four windows.",
    ),
]
PlotsOption = Annotated[
    Path | None,
    typer.Option(
        "--plots", metavar="FOLDER", help="Write a figure (.png) of each image or frame into this new folder."
    ),
]
VideoOption = Annotated[
    Path | None, typer.Option("--video", help="Write a sequence with its targets and tracks as a video (.mp4, .mkv).")
]


def check_mode(mode: str | None) -> None:
    """Check the mode of the continuous method.

    Raises:
        InputError: if there is no such mode.
    """
    from csist.methods.table import METHODS

    modes = METHODS["continuous"].modes
    if mode is not None and mode not in modes:
        raise InputError(f"mode must be {' or '.join(modes)}, got {mode!r}")


def check_runtime(runtime: str, methods: Sequence[str]) -> None:
    """Check the runtime of methods given by their registry names.

    Raises:
        InputError: if there is no such runtime, or a method has no map and the runtime is not the default.
    """
    from csist.methods.table import RUNTIMES, abilities

    if runtime not in RUNTIMES:
        raise InputError(f"runtime must be {' or '.join(RUNTIMES)}, got {runtime!r}")
    for name in methods:
        if runtime != RUNTIMES[0] and not abilities(name).grid:
            raise InputError(f"--runtime {runtime} is for grid methods, and {name!r} is not one: leave it out")


def read_sensor(path: Path) -> tuple[Sensor, float | None]:
    """Read a sensor card; return the sensor, and its noise in counts if the card states it.

    Raises:
        InputError: if the file cannot be read or is not a sensor card.
    """
    from csist.io import cards

    sensor, stated = cards.read_sensor(path)
    return sensor, sensor.read_noise if stated else None
