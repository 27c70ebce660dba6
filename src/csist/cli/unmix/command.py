"""`csist unmix`: write the targets of images to a table; an unreadable file does not stop the other files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.table import Table

from csist.checks import InputError
from csist.cli.config import ConfigOption
from csist.cli.engine import EngineOption, SchedulerOption, cluster_client
from csist.cli.options import (
    ChannelOption,
    DarkOption,
    DetectorOption,
    ElectronsOption,
    ErrorOption,
    FalseAlarmOption,
    FlatOption,
    FramesOption,
    GainOption,
    HduOption,
    JsonOption,
    MaskOption,
    MaxPixelsOption,
    MinScoreOption,
    ModeOption,
    NoiseOption,
    OversamplingOption,
    PageOption,
    PixelScaleOption,
    PlaneOption,
    PlotOption,
    PriorOption,
    PsfSigmaOption,
    RatioOption,
    ReadNoiseOption,
    RoiOption,
    RuntimeOption,
    SaturationOption,
    SensorOption,
    SkyOption,
    WeightOption,
    WeightsOption,
    ZeroPointOption,
)
from csist.cli.output import (
    FAILURE,
    INTERNAL_ERROR,
    InterruptedRunError,
    check_outputs,
    complain,
    make_console,
    progress,
    show_traceback,
    uninterrupted,
    write_json,
)
from csist.cli.unmix.files import OpenFile, open_file
from csist.cli.unmix.frames import TrackRows
from csist.cli.unmix.joint import JointRows
from csist.cli.unmix.places import AtOption, StartOption, check_images, read_places, writer_for
from csist.cli.unmix.report import Tally, draw_unmixed, groups_table, psf_text
from csist.cli.unmix.settings import Options, Settings, make_reading, make_settings
from csist.cluster import ClusterError
from csist.frames.options import FrameOptions

if TYPE_CHECKING:
    from distributed import Client

    from csist.cli.unmix.blocks import Block
    from csist.io import TableWriter

Item = TypeVar("Item")

SHOWN_PSFS = 4
"""Number of measured PSFs in the printed summary; the JSON holds all of them."""
SHOWN_DETECTORS = 3
"""Number of detectors there, with the reasons for them."""


def unmix(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT", help="Images (PNG, JPEG, TIFF, FITS, NPY, NPZ, store), videos or folders."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Table of targets (.csv, .parquet, .fits or .ecsv).")
    ] = Path("targets.csv"),
    form: Annotated[
        str | None,
        typer.Option("--format", help="Write the table for: thunderstorm, picasso (.hdf5), trackmate or napari."),
    ] = None,
    regions: Annotated[Path | None, typer.Option("--regions", help="Targets as DS9 regions (.reg).")] = None,
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
        typer.Option("--temporal", help="Subtract the static background of the last TEMPORAL frames (fixed camera)."),
    ] = None,
    joint: Annotated[
        int | None,
        typer.Option("--joint", help="Unmix JOINT frames of a sequence of windows at a time, as one posterior."),
    ] = None,
    tracks: Annotated[
        Path | None, typer.Option("--tracks", help="Table of tracks (.csv), linked from the targets of the frames.")
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
    pixel_scale: PixelScaleOption = None,
    sky: SkyOption = False,
    electrons: ElectronsOption = False,
    zero_point: ZeroPointOption = None,
    plot: PlotOption = None,
    json_target: JsonOption = None,
    config: ConfigOption = None,
) -> None:
    """Find the point targets of images and write them to a table.

    An image of at most 16 px per side, or a stack of such images, is a window and holds one group. A larger image is a
    frame, in which groups are detected first. Without sensor options, windows are assumed to have a Gaussian PSF of
    0.5 px and no background, and their noise is estimated.
    """
    del config  # read before the others, see `csist.cli.config`
    from csist.io import Quantities, check_form, parse_pixel_scale, split_selector

    if str(output) == "-":
        output = Path("/dev/stdout")
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
            quantities=Quantities(
                None if pixel_scale is None else parse_pixel_scale(pixel_scale), sky, electrons, zero_point
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
    tally = Tally(tracks=None if tracks is None else TrackRows() if joint is None else JointRows())
    if background is not None:
        tally.frame_notes.append("--background applies to windows only, the background of a frame is measured")
    files = _input_files(inputs, tally, sequence)
    check_images(settings, *zip(*files, strict=True))
    check_outputs([split_selector(path)[0] for _, path in files], json_target, output, groups, tracks, plot, regions)
    for table_path in (groups, tracks):
        if table_path is not None:
            check_form(table_path)
    if form is not None and len(files) > 1:
        raise InputError(f"--format {form} holds one image, stack or sequence, got {len(files)} files: give one")
    if plot is not None:
        from csist.plots import check_picture

        check_picture(plot)
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
    with cluster_client(engine, scheduler, workers) as client:
        try:
            with writer as table, progress() as report:
                _unmix_files(files, _openers(files, settings, client), table, tally, report, plot is not None)
                _write_tables(tally, groups, tracks, metadata)
        except BaseException as error:
            _save_partial(error, writer, output, tally, groups)
            raise
    if plot is not None:
        draw_unmixed(tally, plot)
    _report_unmixed(tally, output, time.perf_counter() - started, json_target)
    if tally.failed:
        raise typer.Exit(FAILURE)


def _write_tables(tally: Tally, groups: Path | None, tracks: Path | None, metadata: dict[str, Any]) -> None:
    """Write the tables of groups and of tracks that are asked for."""
    from csist.io import write_table

    if groups is not None:
        write_table(groups_table(tally.groups), groups, metadata)
    if tracks is not None and tally.tracks is not None:
        write_table(tally.tracks.table(), tracks, metadata)


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


def _input_files(inputs: Sequence[Path], tally: Tally, sequence: bool) -> list[tuple[str, Path]]:
    """Return (name in the table, path) of every image file; duplicate names are replaced by the path as typed.

    With `sequence`, a folder is one item.
    """
    from csist.io import read_frames

    found: list[tuple[str, Path]] = []
    for given in inputs:
        if sequence and given.is_dir():
            found.append((given.resolve().name, given))
            continue
        reader = read_frames(given)
        for line in reader.notes:
            name, _, text = line.rpartition(": ")
            tally.note(text, name)
        found += reader.files
    paths = [os.path.realpath(path) for _, path in found]
    for place, (_, path) in enumerate(found):
        if paths[place] in paths[:place]:
            raise InputError(f"{path} is given twice: leave one out")
    names = [name for name, _ in found]
    return [(name if names.count(name) == 1 else str(path), path) for name, path in found]


def _unmix_files(
    files: Sequence[tuple[str, Path]],
    openers: Iterable[Callable[[], OpenFile]],
    table: TableWriter,
    tally: Tally,
    report: Callable[[str, float, float], None],
    pictured: bool,
) -> None:
    """Unmix file by file; if there are several, a bad file is reported and the others continue."""
    from csist.windows import is_window

    for place, ((name, path), open_next) in enumerate(zip(files, openers, strict=True)):
        report(name, place, len(files))
        for opened, block in _unless_bad(_blocks_of(open_next, name, tally), path, len(files) == 1, tally):
            shape = opened.shape
            with uninterrupted():  # table, groups and summary must cover the same images
                image = _image_name(path, name, block.name, len(files) > 1)
                table.shape = (max(shape[0], block.start + len(block.targets)), *shape[1:])
                for index, targets in enumerate(block.targets):
                    table.append(image, block.start + index, targets, opened.further and opened.further(targets))
                tally.add(block, image, name, is_window(shape))
            if pictured:
                tally.keep_view(block, is_window(shape))
            done = (block.start + len(block.targets)) / shape[0] if shape[0] else 0.0
            report(name, place + min(done, 1.0), len(files))


def _blocks_of(open_next: Callable[[], OpenFile], name: str, tally: Tally) -> Iterator[tuple[OpenFile, Block]]:
    """Yield (the file, block) for each block of a file, and add its notes to the summary."""
    from csist.windows import is_window

    opened = open_next()
    tally.note_all(opened.notes, name)
    if not is_window(opened.shape):
        tally.note_all(tally.frame_notes, name)
    for block in opened.blocks:
        yield opened, block
    tally.note_all(opened.notes, name)  # reading frames may have added notes
    tally.files += 1


def _unless_bad(blocks: Iterator[Item], path: Path, alone: bool, tally: Tally) -> Iterator[Item]:
    """Yield the blocks of a file up to an error, which ends the run only if there is no other file.

    Raises:
        ClusterError: always, because the other files would fail too.
    """
    try:
        yield from blocks
    except ClusterError:
        raise
    except Exception as error:
        message = _file_message(path, error)
        if alone:
            raise (InputError if isinstance(error, InputError) else RuntimeError)(message) from error
        complain(message)
        tally.failed.append({"path": str(path), "error": message})


def _openers(
    files: Sequence[tuple[str, Path]], settings: Settings, client: Client | None
) -> Iterator[Callable[[], OpenFile]]:
    """Return a function for each file, in order, that opens it to be unmixed here or on the cluster."""
    if client is None:
        return (partial(open_file, path, name, settings) for name, path in files)
    from csist.cli.unmix.cluster import open_on_cluster

    return open_on_cluster(client, files, settings)


def _image_name(path: Path, name: str, own: str | None, several: bool) -> str:
    """Return the image name in the table: of the file or of an image in a folder, prefixed if there are several."""
    if own is None or not path.is_dir():
        return name
    return f"{name}/{own}" if several else own


def _file_message(path: Path, error: Exception) -> str:
    """Return one line that names the file and states what is wrong with it."""
    from csist.files import one_line

    message = one_line(error)
    if isinstance(error, MemoryError):
        message = "it does not fit into memory"
    elif not isinstance(error, InputError | OSError):
        show_traceback()
        message = f"{INTERNAL_ERROR}: {type(error).__name__}: {message}"
    return message if str(path) in message else f"{path}: {message}"


def _save_partial(error: BaseException, writer: TableWriter, output: Path, tally: Tally, groups: Path | None) -> None:
    """After an error, keep completed rows in files named as partial, and say so in the error."""
    kept = writer.partial_path != output and writer.partial_path.exists()
    if kept and not tally.images:
        writer.partial_path.unlink(missing_ok=True)
        kept = False
    where = f"the {tally.images} images done so far are in {writer.partial_path}" if kept else "nothing was written"
    if not isinstance(error, KeyboardInterrupt):
        if kept and isinstance(error, InputError | RuntimeError | ClusterError):
            raise type(error)(f"{error}; {where}") from error
        return
    if kept and groups is not None:
        from csist.files import write_text

        partial = groups.with_name(groups.name + ".partial")
        write_text(groups_table(tally.groups).to_csv(index=False, lineterminator="\n"), partial)
        where += f" and {partial}"
    raise InterruptedRunError(f"interrupted: {where}") from error


def _report_unmixed(tally: Tally, output: Path, seconds: float, json_target: str | None) -> None:
    tracks = None if tally.tracks is None else int(tally.tracks.table()["track"].nunique())
    figures = {
        "files": tally.files,
        "failed": tally.failed,
        "images": tally.images,
        "targets": tally.targets,
        "masked_pixels": tally.masked,
        **({"pixels_by_kind": dict(tally.kinds)} if tally.kinds else {}),
        **({"detectors": dict(tally.detectors)} if tally.detectors else {}),
        **({"psf": tally.psfs} if tally.psfs else {}),
        **({} if tracks is None else {"tracks": tracks}),
        "seconds": round(seconds, 3),
        "warnings": tally.warnings,
        "output": str(output),
    }
    if json_target is not None:
        write_json(figures, json_target)
    if json_target == "-":
        return
    # The summary must not mix with targets written to standard output.
    console = make_console(stderr=str(output) == "/dev/stdout")
    table = Table(box=None, show_header=False, pad_edge=False)
    rows = [("files", f"{tally.files}"), ("images", f"{tally.images}"), ("targets", f"{tally.targets}")]
    if tally.failed:
        rows.insert(1, ("failed", f"{len(tally.failed)}"))
    if tally.masked:
        rows.append(("masked pixels", f"{tally.masked}"))
    if tally.kinds:
        rows.append(("by kind", ", ".join(f"{count} {kind}" for kind, count in tally.kinds.items())))
    for used, frames in tally.detectors.most_common(SHOWN_DETECTORS):
        rows.append(("detector", used if len(tally.detectors) == 1 else f"{used}: {frames} frames"))
    for psf in tally.psfs[:SHOWN_PSFS]:
        rows.append(("PSF", psf_text(psf)))
    if tracks is not None:
        rows.append(("tracks", f"{tracks}"))
    rows += [("seconds", f"{seconds:.1f}"), ("written to", str(output))]
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for line in tally.warnings:
        console.print(f"note: {line}", soft_wrap=True)
