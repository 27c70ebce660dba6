"""`csist inject`: completeness and accuracy on the user's own frame, from simulated groups put into it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csist._version import package_version
from csist.checks import InputError
from csist.cli.config import ConfigOption
from csist.cli.options import (
    ChannelOption,
    DarkOption,
    DetectorOption,
    ErrorOption,
    FalseAlarmOption,
    FlatOption,
    FramesOption,
    GainOption,
    HduOption,
    JsonOption,
    MaskOption,
    MaxPixelsOption,
    ModeOption,
    NoiseOption,
    OversamplingOption,
    PageOption,
    PlaneOption,
    PlotOption,
    PriorOption,
    PsfSigmaOption,
    ReadNoiseOption,
    RoiOption,
    SaturationOption,
    SensorOption,
    WeightOption,
)
from csist.cli.output import (
    check_outputs,
    files_among,
    interval_cell,
    make_console,
    number,
    print_figures,
    progress,
    write_json,
)
from csist.cli.unmix.settings import Options, Settings, make_reading, make_settings
from csist.frames.options import FrameOptions

if TYPE_CHECKING:
    from csist.injection import InjectionResult, Spread
    from csist.io.sequences import FrameSequence


def inject(
    image: Annotated[
        Path, typer.Argument(metavar="FRAME", help="One frame, larger than 16 px (PNG, TIFF, FITS, NPY).")
    ],
    groups: Annotated[int, typer.Option("--groups", help="Number of groups to inject.")] = 200,
    count: Annotated[str, typer.Option("--count", help="Targets per group: 2, or several values such as 1,2,3.")] = "2",
    flux: Annotated[
        str | None,
        typer.Option(
            "--flux",
            help="Flux of each target in counts: values such as 200,500, or a range such as 100:5000.",
            show_default="4 to 200 standard errors",
        ),
    ] = None,
    separation: Annotated[
        str | None,
        typer.Option(
            "--separation",
            help="Distance of nearest neighbours in px: values such as 1,2,3, or a range such as 1:4.",
            show_default="0.5 to 3 Rayleigh units",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the random numbers.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Table of the figures (.csv, .parquet, .fits or .ecsv).")
    ] = None,
    mode: ModeOption = None,
    prior: PriorOption = None,
    sensor: SensorOption = None,
    psf_sigma: PsfSigmaOption = None,
    psf: Annotated[
        Path | None, typer.Option("--psf", help="PSF as in `csist unmix`: a file, auto or empirical.")
    ] = None,
    psf_oversampling: OversamplingOption = 1,
    noise_std: NoiseOption = None,
    detector: DetectorOption = FrameOptions.detector,
    false_alarm_rate: FalseAlarmOption = FrameOptions.false_alarm_rate,
    workers: Annotated[int | None, typer.Option("--workers", help="Number of threads.")] = None,
    hdu: HduOption = None,
    channel: ChannelOption = None,
    plane: PlaneOption = None,
    page: PageOption = None,
    frames: FramesOption = None,
    roi: RoiOption = None,
    max_pixels: MaxPixelsOption = None,
    error: ErrorOption = None,
    weight: WeightOption = None,
    mask: MaskOption = None,
    dark: DarkOption = None,
    flat: FlatOption = None,
    gain: GainOption = None,
    read_noise: ReadNoiseOption = None,
    saturation: SaturationOption = None,
    plot: PlotOption = None,
    json_target: JsonOption = None,
    config: ConfigOption = None,
) -> None:
    """Put simulated groups of targets into a frame, unmix it with the same options, and report how well they are found.

    Completeness, purity, bias of positions and fluxes, and calibration are given by flux and separation. The groups are
    injected in several passes, far from one another. The frame itself is not changed. A configuration file of
    `csist unmix` can be used, too.
    """
    from csist.injection import InjectionPlan, inject_into
    from csist.io import check_form, split_selector, write_table

    beside = files_among(prior, sensor, psf, error, weight, mask, dark, flat, config)
    check_outputs([split_selector(image)[0], *beside], json_target, output, plot)
    if output is not None:
        check_form(output)
    if plot is not None:
        from csist.plots import check_picture

        check_picture(plot)
    plan = InjectionPlan(
        groups=groups,
        flux=None if flux is None else read_spread("--flux", flux),
        separation_px=None if separation is None else read_spread("--separation", separation),
        counts=read_counts(count),
        seed=seed,
    )
    settings = make_settings(
        Options(
            method="continuous",
            ratio=3,
            mode=mode,
            prior=prior,
            sensor=sensor,
            psf_sigma=psf_sigma,
            psf=psf,
            psf_oversampling=psf_oversampling,
            noise_std=noise_std,
            detector=detector,
            false_alarm_rate=false_alarm_rate,
            background=None,
            mask_nan=False,
            weights=None,
            runtime="torch",
            temporal=None,
            joint=None,
            workers=workers,
            gain=gain,
            read_noise=read_noise,
            saturation=saturation,
            reading=make_reading(
                hdu=hdu,
                channel=channel,
                plane=plane,
                page=page,
                frames=frames,
                roi=roi,
                max_pixels=max_pixels,
                error=error,
                weight=weight,
                mask=mask,
                dark=dark,
                flat=flat,
                saturation=saturation,
            ),
        )
    )
    started = time.perf_counter()
    sequence = read_frame(image, settings)
    (_, frame), *_ = sequence
    with progress() as report:
        result = inject_into(
            frame,
            plan,
            settings.frame_options(sequence),
            lambda done, total: report("injected groups", done, total),
            sequence.error(0),
        )
    rows = result.rows()
    seconds = time.perf_counter() - started
    if output is not None:
        write_table(rows, output, settings.metadata())
    if plot is not None:
        from csist.plots import completeness_curve, save_figure

        save_figure(completeness_curve(rows), plot)
    if json_target is not None:
        figures = _figures(result, rows, image, seconds)
        write_json({**figures, "csist_version": package_version(), **settings.metadata()}, json_target)
    if json_target != "-":
        _report(result, rows, [*sequence.notes, *settings.instrument.notes(sequence)], seconds)


def read_spread(option: str, text: str) -> Spread:
    """Values of an option: one, several as 1,2,3, or a range 1:4.

    Raises:
        InputError: if it is something else.
    """
    from csist.injection import Spread

    ranged = ":" in text
    try:
        values = tuple(float(part) for part in text.split(":" if ranged else ","))
        return Spread(values, ranged)
    except ValueError as error:
        said = f": {error}" if isinstance(error, InputError) else ""
        raise InputError(f"{option} must be values such as 1,2,3 or a range such as 1:4, got {text!r}{said}") from error


def read_counts(text: str) -> tuple[int, ...]:
    """Numbers of targets, as 2 or 1,2,3.

    Raises:
        InputError: if it is something else.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--count must be whole numbers such as 2 or 1,2,3, got {text!r}") from error


def read_frame(path: Path, settings: Settings) -> FrameSequence:
    """The one frame of a file.

    Raises:
        InputError: if it cannot be read, or is not one frame.
    """
    from csist.io import read_image
    from csist.io.sequences import sequence_of_stack
    from csist.windows import WINDOW_SIDE_PX, is_window

    stack = read_image(path, None, settings.reading)
    if len(stack) != 1:
        raise InputError(f"{path} holds {len(stack)} images: choose one, as with --frames 0:1")
    if is_window(stack.shape):
        raise InputError(f"{path} is a window of at most {WINDOW_SIDE_PX} px per side: groups are injected into frames")
    return sequence_of_stack(stack)


def _figures(result: InjectionResult, rows: list[dict[str, Any]], path: Path, seconds: float) -> dict[str, Any]:
    return {
        "image": str(path),
        "groups": len(result.groups),
        "passes": result.passes,
        "match_px": result.match_px,
        "psf": result.psf.psf.to_card(),
        "psf_origin": result.psf.origin,
        "seed": result.plan.seed,
        "rows": rows,
        "seconds": round(seconds, 3),
    }


def _report(result: InjectionResult, rows: list[dict[str, Any]], notes: list[str], seconds: float) -> None:
    console = make_console()
    shown = [row for row in rows if row["by"] != "both"]
    columns: list[tuple[str, list[str]]] = [
        ("groups", [f"{row['groups']}" for row in shown]),
        ("complete %", [number(100.0 * row["completeness"], ".1f") for row in shown]),
        ("95 %", [_percent(row, "completeness") for row in shown]),
        ("pure %", [number(100.0 * row["purity"], ".1f") for row in shown]),
        ("95 %", [_percent(row, "purity") for row in shown]),
        ("position rms px", [number(row["position_rms_px"], ".3f") for row in shown]),
        ("flux bias %", [number(100.0 * row["flux_bias"], "+.1f") for row in shown]),
    ]
    for name in ("x", "y", "flux"):
        cells = [number(100.0 * row[f"{name}_within_68"], ".0f") for row in shown]
        columns.append((f"{name} within 1 sigma %", cells))
    print_figures(console, ("targets", [_limits(row) for row in shown]), columns)
    console.print(f"{len(result.groups)} groups in {result.passes} passes, {seconds:.1f} s", soft_wrap=True)
    for line in notes:
        console.print(f"note: {line}", soft_wrap=True)


def _percent(row: dict[str, Any], name: str) -> str:
    return interval_cell((100.0 * row[f"{name}_low"], 100.0 * row[f"{name}_high"]), ".0f")


def _limits(row: dict[str, Any]) -> str:
    """Which targets a row is about."""
    if row["by"] == "flux":
        return f"flux {row['flux_low']:.4g} - {row['flux_high']:.4g}"
    if row["by"] == "separation":
        return f"separation {row['separation_px_low']:.3g} - {row['separation_px_high']:.3g} px"
    return "all"
