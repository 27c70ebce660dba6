"""`csist unmix`: write the targets of images to a table; an unreadable file does not stop the other files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from csist._version import package_version
from csist.checks import InputError
from csist.cli.config import ConfigOption
from csist.cli.engine import EngineOption, SchedulerOption, cluster_client
from csist.cli.options import (
    BestPlotOption,
    ChannelOption,
    DarkOption,
    DetectorOption,
    ElectronsOption,
    ErrorOption,
    ExtendedOption,
    FalseAlarmOption,
    FlatOption,
    FramesOption,
    GainOption,
    HduOption,
    JsonOption,
    MaskOption,
    MaxPixelsOption,
    MinScoreOption,
    MjdOption,
    ModeOption,
    NoiseOption,
    OversamplingOption,
    PageOption,
    PixelScaleOption,
    PlaneOption,
    PlotsOption,
    PriorOption,
    PsfSigmaOption,
    RatioOption,
    ReadNoiseOption,
    RoiOption,
    RuntimeOption,
    SaturationOption,
    SensorOption,
    SkyOption,
    TimesOption,
    VideoOption,
    WeightOption,
    WeightsOption,
    ZeroPointOption,
)
from csist.cli.output import (
    FAILURE,
    check_outputs,
    complain,
    files_among,
    progress,
    write_json,
)
from csist.cli.unmix.pictures import pictures
from csist.cli.unmix.places import AtOption, StartOption, check_images, read_places, writer_for
from csist.cli.unmix.report import Tally, figures_of, groups_table, print_summary
from csist.cli.unmix.run import input_files, openers, save_partial, unmix_files
from csist.cli.unmix.settings import Options, make_reading, make_settings
from csist.cli.unmix.tracks import JointRows, TrackRows, check_tracker, with_columns
from csist.files import STANDARD_OUTPUT
from csist.frames.options import FrameOptions


def unmix(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT", help="Images (PNG, JPEG, TIFF, FITS, NPY, NPZ, store), videos or folders."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Table of targets (.csv, .parquet, .fits, .ecsv; - prints CSV).")
    ] = Path("targets.csv"),
    form: Annotated[
        str | None,
        typer.Option("--format", help="Write the table for: thunderstorm, picasso (.hdf5), trackmate or napari."),
    ] = None,
    regions: Annotated[Path | None, typer.Option("--regions", help="Targets as DS9 regions (.reg).")] = None,
    residual: Annotated[
        Path | None,
        typer.Option("--residual", help="Each image minus targets and background (.fits or .tif)."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", help="Light of the targets and background of each image (.fits or .tif).")
    ] = None,
    method: Annotated[str, typer.Option("--method", help="See `csist methods`.")] = "continuous",
    mode: ModeOption = None,
    prior: PriorOption = None,
    sensor: SensorOption = None,
    psf_sigma: PsfSigmaOption = None,
    psf: Annotated[
        Path | None,
        typer.Option(
            "--psf",
            help="PSF: array with odd sides, grid of photutils or PSFEx (.npy, .fits, .psf); auto; or empirical.",
        ),
    ] = None,
    psf_oversampling: OversamplingOption = 1,
    noise_std: NoiseOption = None,
    detector: DetectorOption = FrameOptions.detector,
    false_alarm_rate: FalseAlarmOption = FrameOptions.false_alarm_rate,
    extended: ExtendedOption = FrameOptions.extended,
    background: Annotated[float | None, typer.Option("--background", help="Background of windows in counts.")] = None,
    mask_nan: Annotated[
        bool, typer.Option("--mask-nan", help="Leave out NaN pixels of windows instead of refusing them.")
    ] = False,
    ratio: RatioOption = 3,
    weights: WeightsOption = None,
    runtime: RuntimeOption = "torch",
    groups: Annotated[
        Path | None,
        typer.Option("--groups", help="Table of groups (suffixes as -o): count, its probabilities, chi-squared."),
    ] = None,
    sequence: Annotated[bool, typer.Option("--sequence", help="Treat every folder as one sequence of frames.")] = False,
    temporal: Annotated[
        int | None,
        typer.Option(
            "--temporal",
            metavar="N",
            help="Subtract the static background of the last N frames (fixed camera; 16 sigma of motion or more).",
        ),
    ] = None,
    joint: Annotated[
        int | None,
        typer.Option(
            "--joint", metavar="N", help="Unmix N frames of a sequence at a time, as one posterior for each group."
        ),
    ] = None,
    joint_step: Annotated[
        int | None,
        typer.Option(
            "--joint-step", metavar="M", help="Whole frames: after every M frames, solve the last N of --joint N."
        ),
    ] = None,
    motion: Annotated[
        str,
        typer.Option("--motion", help="Paths of --joint: linear, acceleration (one for the group) or free (walks)."),
    ] = "linear",
    tracks: Annotated[
        Path | None,
        typer.Option("--tracks", help="Table of tracks: states with their covariance, and existence probabilities."),
    ] = None,
    tracker: Annotated[
        str,
        typer.Option(
            "--tracker", help="Of --tracks: nearest, groups (one track per blob), or jpda (clutter, crossings)."
        ),
    ] = "nearest",
    gate: Annotated[
        float | None,
        typer.Option(
            "--gate",
            help="Of --tracks: largest distance in px of a detection from where its track is expected, and so the "
            "largest speed of a new track.",
            show_default="6; 4 for jpda",
        ),
    ] = None,
    engine: EngineOption = "local",
    scheduler: SchedulerOption = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", help="Number of threads, or of processes with --engine dask."),
    ] = None,
    hdu: HduOption = None,
    channel: ChannelOption = None,
    plane: PlaneOption = None,
    page: PageOption = None,
    frames: FramesOption = None,
    roi: RoiOption = None,
    max_pixels: MaxPixelsOption = None,
    at: AtOption = None,
    start: StartOption = None,
    error: ErrorOption = None,
    weight: WeightOption = None,
    mask: MaskOption = None,
    dark: DarkOption = None,
    flat: FlatOption = None,
    gain: GainOption = None,
    read_noise: ReadNoiseOption = None,
    saturation: SaturationOption = None,
    min_score: MinScoreOption = None,
    times: TimesOption = False,
    mjd: MjdOption = False,
    pixel_scale: PixelScaleOption = None,
    sky: SkyOption = False,
    electrons: ElectronsOption = False,
    zero_point: ZeroPointOption = None,
    plot: BestPlotOption = None,
    plots: PlotsOption = None,
    video: VideoOption = None,
    json_target: JsonOption = None,
    config: ConfigOption = None,
) -> None:
    """Find the point targets of images and write them to a table.

    An image of at most 16 px per side, or a stack of such images, is a window and holds one group. A larger image is a
    frame, in which groups are detected first. Without sensor options, windows are assumed to have a Gaussian PSF of
    0.5 px and no background, and their noise is estimated.
    """
    from csist.io import Quantities, holds_photons, parse_pixel_scales, split_selector

    if str(output) == "-":
        output = STANDARD_OUTPUT
    if engine == "dask":
        _check_independent(sequence, temporal, tracks, joint)
    settings = make_settings(
        Options(
            method=method,
            ratio=ratio,
            mode=mode,
            prior=prior,
            sensor=sensor,
            psf_sigma=psf_sigma,
            psf=psf,
            psf_oversampling=psf_oversampling,
            noise_std=noise_std,
            detector=detector,
            false_alarm_rate=false_alarm_rate,
            extended=extended,
            background=background,
            mask_nan=mask_nan,
            weights=weights,
            runtime=runtime,
            temporal=temporal,
            workers=workers,
            gain=gain,
            read_noise=read_noise,
            saturation=saturation,
            min_score=min_score,
            joint=joint,
            joint_step=joint_step,
            motion=motion,
            quantities=Quantities(
                parse_pixel_scales(pixel_scale or []), sky, electrons, zero_point, times, holds_photons(form), mjd
            ),
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
            places=read_places(
                at,
                start,
                {
                    option: reason
                    for option, is_given, reason in (
                        ("--joint", joint is not None, "whose targets move from frame to frame"),
                        (f"--method {method}", method != "continuous", "which takes no positions"),
                        ("--groups", at is not None and groups is not None, "as fluxes at positions have no groups"),
                        ("--tracks", at is not None and tracks is not None, "as positions of a table have no tracks"),
                    )
                    if is_given
                },
            ),
        )
    )
    check_tracker(tracker)
    for option, is_given in ((f"--tracker {tracker}", tracker != "nearest"), (f"--gate {gate}", gate is not None)):
        if is_given and (tracks is None or joint is not None):
            raise InputError(f"{option} is for --tracks without --joint: leave it out, or give --tracks FILE")
    tally = Tally(tracks=None if tracks is None else TrackRows(tracker, gate) if joint is None else JointRows())
    if background is not None:
        tally.frame_notes.append("--background applies to windows only, the background of a frame is measured")
    files = input_files(inputs, tally, sequence)
    check_images(settings, *zip(*files, strict=True))
    outputs = (output, groups, tracks, plot, regions, video, residual, model)
    beside = files_among(prior, sensor, psf, weights, at, start, error, weight, mask, dark, flat, config)
    check_outputs([*(split_selector(path)[0] for _, path in files), *beside], json_target, *outputs)
    _check_tables(len(files), {"--format": form, "--residual": residual, "--model": model}, video, groups, tracks)
    for line in tally.folders:
        complain(line)
    started = time.perf_counter()
    metadata = settings.metadata()
    writer = writer_for(
        settings,
        output,
        form=form,
        regions=regions,
        metadata=metadata,
        sigma_px=settings.sigma_px,
        tracked=joint is not None,
        columns=settings.quantities.columns,
    )
    with pictures(plot, plots, video, images={"model": model, "residual": residual}, metadata=metadata) as drawn:
        with cluster_client(engine, scheduler, workers) as client:
            try:
                with writer as table, progress() as report:
                    unmix_files(files, openers(files, settings, client), table, tally, report, drawn)
                    columns = replace(settings.quantities, photons=False).columns
                    _write_tables(tally, groups, tracks, columns, metadata)
            except BaseException as error:
                save_partial(error, writer, output, tally, groups)
                raise
        for each in drawn:
            each.finish(tally)
    figures = figures_of(tally, time.perf_counter() - started, str(output))
    if json_target is not None:
        write_json({**figures, "csist_version": package_version(), **metadata}, json_target)
    if json_target != "-":
        print_summary(tally, figures, stderr=output == STANDARD_OUTPUT)
    if tally.failed:
        raise typer.Exit(FAILURE)


def _check_tables(files: int, alone: dict[str, Any], video: Path | None, *tables: Path | None) -> None:
    """Check the outputs that hold one file, and the suffixes of the tables.

    Raises:
        InputError: if there are several files, or a table has another suffix.
    """
    from csist.io import check_form

    for table in tables:
        if table is not None:
            check_form(table)
    for option in [f"{name} {value}" for name, value in alone.items() if value is not None and files > 1]:
        raise InputError(f"{option} holds one image, stack or sequence, got {files} files: give one")
    if video is not None and files > 1:
        raise InputError(f"--video shows one sequence, got {files} files: give one, or add --sequence for a folder")


def _write_tables(
    tally: Tally, groups: Path | None, tracks: Path | None, columns: Sequence[str], metadata: dict[str, Any]
) -> None:
    """Write the tables of groups and of tracks that are asked for, tracks with these further columns."""
    from csist.io import write_table

    if groups is not None:
        write_table(groups_table(tally.groups), groups, metadata)
    if tracks is not None and tally.tracks is not None:
        table = tally.tracks.table()
        tally.note_all(tally.tracks.notes(table), str(tracks))
        write_table(with_columns(table, columns, tally.frames), tracks, metadata)


def _check_independent(sequence: bool, temporal: int | None, tracks: Path | None, joint: int | None) -> None:
    """Check that every image can be unmixed independently.

    Raises:
        InputError: if an option needs the previous images.
    """
    given = {
        "--sequence": sequence,
        "--temporal": temporal is not None,
        "--tracks": tracks is not None,
        "--joint": joint is not None,
    }
    for option in [name for name, is_given in given.items() if is_given]:
        raise InputError(f"{option} processes frames sequentially, on one machine: leave out --engine dask")
