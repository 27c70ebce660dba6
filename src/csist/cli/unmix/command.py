"""`csist unmix`: images in, a table of targets out; a bad file of a batch does not stop the others."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.table import Table

from csist.checks import InputError
from csist.cli.engine import EngineOption, SchedulerOption, cluster_client
from csist.cli.options import (
    DetectorOption,
    FalseAlarmOption,
    JsonOption,
    ModeOption,
    NoiseOption,
    PlotOption,
    PriorOption,
    RatioOption,
    RuntimeOption,
    SensorOption,
    WeightsOption,
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
from csist.cli.unmix.report import Tally, draw_unmixed, groups_table
from csist.cli.unmix.settings import Options, Settings, make_settings
from csist.cluster import ClusterError
from csist.frames.options import FrameOptions

if TYPE_CHECKING:
    from distributed import Client

    from csist.cli.unmix.blocks import Block
    from csist.io import TableWriter

Item = TypeVar("Item")

SHOWN_PSFS = 4
"""Measured PSFs in the printed summary; the JSON has all."""


def unmix(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT", help="Images (PNG, TIFF, FITS, NPY, NPZ, HDF5 store), videos or folders."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Table of targets (.csv).")] = Path("targets.csv"),
    method: Annotated[str, typer.Option("--method", help="See `csist methods`.")] = "continuous",
    mode: ModeOption = None,
    prior: PriorOption = None,
    sensor: SensorOption = None,
    psf_sigma: Annotated[
        float | None, typer.Option("--psf-sigma", help="Gaussian PSF: standard deviation in px.")
    ] = None,
    psf: Annotated[
        Path | None,
        typer.Option(
            "--psf", help="Measured PSF: odd-sided array (.npy, .fits), target in its middle; auto; or empirical."
        ),
    ] = None,
    psf_oversampling: Annotated[
        int, typer.Option("--psf-oversampling", help="Samples a pixel of the measured PSF.")
    ] = 1,
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
        typer.Option("--groups", help="Table of groups (.csv): count, its probabilities, chi-squared."),
    ] = None,
    sequence: Annotated[bool, typer.Option("--sequence", help="Take every folder as one sequence of frames.")] = False,
    temporal: Annotated[
        int | None,
        typer.Option("--temporal", help="Subtract what stood still in the last so many frames (fixed camera)."),
    ] = None,
    tracks: Annotated[
        Path | None, typer.Option("--tracks", help="Link the frames' targets into tracks, table (.csv).")
    ] = None,
    engine: EngineOption = "local",
    scheduler: SchedulerOption = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", help="Threads; frames are shared out to them. With --engine dask: processes."),
    ] = None,
    plot: PlotOption = None,
    json_target: JsonOption = None,
) -> None:
    """Find the point targets of images and write them to a table.

    An image of at most 16 px a side, or a stack of such, is a window: it holds one group. Anything larger is a
    frame, where groups are looked for first. Without sensor options, windows are taken with a Gaussian PSF of
    0.5 px and no background, and the noise is estimated.
    """
    from csist.files import check_writable
    from csist.io import TABLE_SUFFIXES, TableWriter, write_table

    if str(output) == "-":
        output = Path("/dev/stdout")
    if engine == "dask":
        _check_independent(sequence, temporal, tracks)
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
        )
    )
    tally = Tally(tracks=None if tracks is None else TrackRows())
    if background is not None:
        tally.frame_notes.append("--background is for windows, that of a frame is measured")
    files = _input_files(inputs, tally, sequence)
    check_outputs([path for _, path in files], json_target, output, groups, tracks, plot)
    for table_path in (groups, tracks):
        if table_path is not None:
            check_writable(table_path, TABLE_SUFFIXES)
    if plot is not None:
        from csist.plots import check_picture

        check_picture(plot)
    begun = time.perf_counter()
    writer = TableWriter(output)
    with cluster_client(engine, scheduler, workers) as client:
        try:
            with writer as table, progress() as report:
                _unmix_files(files, _openers(files, settings, client), table, tally, report, plot is not None)
                if groups is not None:
                    write_table(groups_table(tally.groups), groups)
                if tracks is not None and tally.tracks is not None:
                    write_table(tally.tracks.table(), tracks)
        except BaseException as error:
            _after_the_break(error, writer, output, tally, groups)
            raise
    if plot is not None:
        draw_unmixed(tally, plot)
    _report_unmixed(tally, output, time.perf_counter() - begun, json_target)
    if tally.failed:
        raise typer.Exit(FAILURE)


def _check_independent(sequence: bool, temporal: int | None, tracks: Path | None) -> None:
    """Check that every image can be unmixed without those before it.

    Raises:
        InputError: if an option needs these.
    """
    given = {"--sequence": sequence, "--temporal": temporal is not None, "--tracks": tracks is not None}
    for option in [name for name, is_given in given.items() if is_given]:
        raise InputError(f"{option} takes frames one after the other, on one machine: leave out --engine dask")


def _input_files(inputs: Sequence[Path], tally: Tally, sequence: bool) -> list[tuple[str, Path]]:
    """(name in the table, path) of every image file; the path as typed where two inputs hold the same name.

    With `sequence` a folder is one item.
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
    """Unmix file by file; in a batch a bad file is reported and the others go on."""
    from csist.windows import is_window

    for place, ((name, path), open_next) in enumerate(zip(files, openers, strict=True)):
        report(name, place, len(files))
        for shape, block in _unless_bad(_blocks_of(open_next, name, tally), path, len(files) == 1, tally):
            with uninterrupted():  # table, groups and summary must tell of the same images
                image = _image_name(path, name, block.name, len(files) > 1)
                for index, targets in enumerate(block.targets):
                    table.append(image, block.start + index, targets)
                tally.add(block, image, name, is_window(shape))
            if pictured:
                tally.keep_view(block, is_window(shape))
            done = (block.start + len(block.targets)) / shape[0] if shape[0] else 0.0
            report(name, place + min(done, 1.0), len(files))


def _blocks_of(
    open_next: Callable[[], OpenFile], name: str, tally: Tally
) -> Iterator[tuple[tuple[int, int, int], Block]]:
    """(shape of the file, block) for each block of a file; its notes go to the tally."""
    from csist.windows import is_window

    opened = open_next()
    tally.note_all(opened.notes, name)
    if not is_window(opened.shape):
        tally.note_all(tally.frame_notes, name)
    for block in opened.blocks:
        yield opened.shape, block
    tally.note_all(opened.notes, name)  # more of them may come while frames are read
    tally.files += 1


def _unless_bad(blocks: Iterator[Item], path: Path, alone: bool, tally: Tally) -> Iterator[Item]:
    """The blocks of a file up to an error, which ends the run only where the file is alone.

    Raises:
        ClusterError: always: the other files would fail too.
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
    """A function for each file, in order, that opens it to be unmixed here or on the cluster."""
    if client is None:
        return (partial(open_file, path, name, settings) for name, path in files)
    from csist.cli.unmix.cluster import open_on_cluster

    return open_on_cluster(client, files, settings)


def _image_name(path: Path, name: str, own: str | None, several: bool) -> str:
    """Name in the table: that of the file, or of a folder's image, with the folder where there are several inputs."""
    if own is None or not path.is_dir():
        return name
    return f"{name}/{own}" if several else own


def _file_message(path: Path, error: Exception) -> str:
    """One line that names the file and says what is wrong with it."""
    from csist.files import one_line

    said = one_line(error)
    if isinstance(error, MemoryError):
        said = "it does not fit into the memory"
    elif not isinstance(error, InputError | OSError):
        show_traceback()
        said = f"{INTERNAL_ERROR}: {type(error).__name__}: {said}"
    return said if str(path) in said else f"{path}: {said}"


def _after_the_break(
    error: BaseException, writer: TableWriter, output: Path, tally: Tally, groups: Path | None
) -> None:
    """Leave what is complete under a name that says so, or nothing at all."""
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
    # The table must not run into the targets themselves.
    console = make_console(stderr=str(output) == "/dev/stdout")
    table = Table(box=None, show_header=False, pad_edge=False)
    rows = [("files", f"{tally.files}"), ("images", f"{tally.images}"), ("targets", f"{tally.targets}")]
    if tally.failed:
        rows.insert(1, ("failed", f"{len(tally.failed)}"))
    if tally.masked:
        rows.append(("masked pixels", f"{tally.masked}"))
    for psf in tally.psfs[:SHOWN_PSFS]:
        rows.append(("PSF", f"sigma {psf['sigma_px']:.3f} +- {psf['sigma_px_std']:.3f} px, {psf['sources']} sources"))
    if tracks is not None:
        rows.append(("tracks", f"{tracks}"))
    rows += [("seconds", f"{seconds:.1f}"), ("written to", str(output))]
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for line in tally.warnings:
        console.print(f"note: {line}", soft_wrap=True)
