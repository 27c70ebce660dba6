"""The command `csist`. Exit codes: 0 done, 1 failure, 2 bad use, 130 interrupted; an error is one line.

A new command is one function under `@app.command()`: it raises `InputError` for what the user can mend, and
`main` turns every exception into its line and code. Heavy imports belong inside the commands, so that
`csist --help` answers at once.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from csist.checks import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from csist.datasets.scenes import ScenePrior
    from csist.io import ImageStack, TableWriter
    from csist.physics.psf import PSF
    from csist.physics.sensor import Sensor
    from csist.plots import View
    from csist.targets import Targets

    FloatArray = NDArray[np.float64]

DEBUG_VARIABLE = "CSIST_DEBUG"
"""Set to anything, the traceback of an error is shown as well."""

INTERNAL_ERROR = f"internal error, please report it with the traceback that {DEBUG_VARIABLE}=1 shows"

FAILURE, BAD_USE, INTERRUPTED = 1, 2, 130

PIPE_WIDTH = 132
"""Columns of a table that goes to a file or pipe."""

GROUP_PLACE = ("column", "row", "peaks", "significance")
"""Where a group of a frame is; columns of the table of groups that windows do not have."""

VIEWS_KEPT = 4
"""Most windows in one picture."""


class InterruptedRunError(Exception):
    """Ctrl-C, with a message that says what is left of the work."""


app = typer.Typer(
    name="csist",
    help="Find the point targets hidden in one blurred infrared blob: how many, where, how bright, how sure.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# --- options that several commands share ---------------------------------------------------------------

RatioOption = Annotated[int, typer.Option("--ratio", help="Sub-pixel grid ratio of grid methods, 3, 5 or 7.")]
ModeOption = Annotated[
    str | None,
    typer.Option("--mode", help="Effort of the continuous method: accurate or fast.", show_default="accurate"),
]
PriorOption = Annotated[
    str | None, typer.Option("--prior", help="What is known of a group: flat, csist-100k or a JSON file.")
]
SensorOption = Annotated[Path | None, typer.Option("--sensor", help="Sensor card (JSON file).")]
NoiseOption = Annotated[float | None, typer.Option("--noise-std", help="Noise of a pixel in counts.")]
WeightsOption = Annotated[
    Path | None,
    typer.Option("--weights", help="Weight file of a trained method, instead of the package's own."),
]
JsonOption = Annotated[
    str | None,
    typer.Option("--json", help="Write the figures as JSON to this file, or - for standard output."),
]
PlotOption = Annotated[Path | None, typer.Option("--plot", help="Draw a picture (.png, .svg or .pdf).")]


def _print_version(wanted: bool) -> None:
    if wanted:
        import csist

        typer.echo(f"csist {csist.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(BAD_USE)


# --- output --------------------------------------------------------------------------------------------


def _console(stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def _complain(message: object) -> None:
    typer.echo(f"csist: {' '.join(str(message).split())}", err=True)


@contextmanager
def _progress() -> Iterator[Callable[[str, float, float], None]]:
    """A bar on standard error, gone when the work is done; nothing at all where nobody watches.

    Yields:
        A function to be called with (what is being done, amount done, amount in all).
    """
    console = Console(stderr=True, markup=False)
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def report(what: str, done: float, total: float) -> None:
            bar.update(task, description=what[-40:], completed=done, total=total)

        yield report


def _json_ready(value: Any) -> Any:
    """The value with NaN and infinities, which JSON does not have, as null."""
    if isinstance(value, dict):
        return {str(key): _json_ready(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_json_ready(each) for each in value]
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return value


def _write_json(value: Any, target: str) -> None:
    from csist.io import write_text

    text = json.dumps(_json_ready(value), indent=2, allow_nan=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
    else:
        write_text(text, target)


def _check_outputs(inputs: Sequence[Path], json_target: str | None, *others: Path | None) -> None:
    """Check before the work begins that outputs can be written, are different, and are no input."""
    from csist.io import check_writable

    given = [Path(json_target)] if json_target not in (None, "-") else []
    given += [path for path in others if path is not None]
    for place, path in enumerate(given):
        check_writable(path)
        if any(_same_file(path, source) for source in inputs):
            raise InputError(f"cannot write {path}: it is an input, give another name")
        if any(_same_file(path, other) for other in given[:place]) and not path.is_char_device():
            raise InputError(f"cannot write {path}: it is the name of two outputs, give different ones")


def _same_file(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None or value != value else format(value, form)


# --- unmix ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """What the options of `csist unmix` say, checked once; None where they say nothing."""

    method: str
    ratio: int
    mode: str | None
    prior: ScenePrior | None
    sensor: Sensor | None
    psf: PSF | None
    background: float | None
    noise_std: float | None
    mask_nan: bool
    weights: Path | None

    def sensor_for(self, stack: ImageStack, images: FloatArray) -> Sensor:
        """The sensor of these images: a card, what the file states, or the default, with the options on top."""
        from csist.unmixing import default_sensor

        sensor = self.sensor or stack.sensor or default_sensor(images, stack.data.dtype)
        if self.psf is not None:
            sensor = replace(sensor, psf=self.psf)
        if self.background is not None:
            sensor = replace(sensor, background=self.background)
        return sensor

    def noise_for(self, stack: ImageStack) -> float | None:
        """The noise in counts if an option or the file states it; None if it is to be estimated."""
        if self.noise_std is None and self.sensor is None and stack.sensor is not None:
            return stack.sensor.read_noise
        return self.noise_std

    @property
    def method_options(self) -> dict[str, Any]:
        """Arguments of `create_method` that were given."""
        from csist.unmixing import FRAME_METHODS

        options: dict[str, Any] = {} if self.mode is None else {"mode": self.mode}
        if self.method not in FRAME_METHODS:
            options |= {"ratio": self.ratio, "pretrained": self.weights}
        return options


def _settings(
    method: str,
    ratio: int,
    mode: str | None,
    prior: str | None,
    sensor: Path | None,
    psf_sigma: float | None,
    psf: Path | None,
    psf_oversampling: int,
    noise_std: float | None,
    background: float | None,
    mask_nan: bool,
    weights: Path | None,
) -> Settings:
    from csist.checks import check_not_negative, check_ratio
    from csist.datasets.scenes import ScenePrior
    from csist.methods.registry import canonical_name
    from csist.physics.psf import GaussianPSF

    _check_mode(mode)
    card, stated_noise = (None, None) if sensor is None else _read_sensor(sensor)
    if psf is not None and psf_sigma is not None:
        raise InputError(f"give --psf {psf} or --psf-sigma {psf_sigma}, not both")
    chosen: PSF | None = None
    if psf_sigma is not None:
        chosen = GaussianPSF(psf_sigma)
    elif psf is not None:
        chosen = _read_psf(psf, psf_oversampling)
    if background is not None and abs(background) == float("inf"):
        raise InputError(f"background must be finite, got {background}")
    return Settings(
        method=canonical_name(method),
        ratio=check_ratio(ratio),
        mode=mode,
        prior=None if prior is None else ScenePrior.named(prior),
        sensor=card,
        psf=chosen,
        background=background,
        noise_std=stated_noise if noise_std is None else check_not_negative("noise_std", noise_std),
        mask_nan=mask_nan,
        weights=weights,
    )


def _check_mode(mode: str | None) -> None:
    if mode not in (None, "accurate", "fast"):
        raise InputError(f"mode must be accurate or fast, got {mode!r}")


def _read_sensor(path: Path) -> tuple[Sensor, float | None]:
    """The sensor of a card, and its noise if the card states one."""
    from csist.io import reading
    from csist.physics.sensor import Sensor

    with reading(path):
        card = json.loads(path.read_text(encoding="utf-8"))
    try:
        sensor = Sensor.from_card(card)
    except (TypeError, ValueError) as error:
        raise InputError(f"cannot use the sensor card {path}: {error}") from error
    return sensor, sensor.read_noise if "read_noise" in card else None


def _read_psf(path: Path, oversampling: int) -> PSF:
    from csist.io import read_image
    from csist.physics.psf import SampledPSF

    stack = read_image(path)
    if len(stack) != 1:
        raise InputError(f"cannot use the PSF {path}: it holds {len(stack)} images, give one")
    try:
        return SampledPSF(stack[0], oversampling)
    except InputError as error:
        raise InputError(f"cannot use the PSF {path}: {error}") from error


@dataclass(frozen=True, eq=False)
class Block:
    """Some consecutive images of a file, unmixed."""

    start: int
    targets: list[Targets]
    groups: list[dict[str, Any]]
    masked: int
    view: Callable[[int], View]
    """Picture of an image, by its place in the block."""


def _solve_windows(stack: ImageStack, settings: Settings) -> Iterator[Block]:
    """The windows of a file in blocks of about a second: progress, and no long wait after Ctrl-C."""
    import numpy as np

    from csist.methods.continuous import Continuous
    from csist.plots import View
    from csist.unmixing import window_method

    images = np.array(stack[:])  # a mapped file's array is read-only, which torch does not take
    method = window_method(
        images, stack.data.dtype, settings.sensor_for(stack, images), settings.prior, settings.method,
        mask_nan=settings.mask_nan, noise_std=settings.noise_for(stack), **settings.method_options,
    )  # fmt: skip
    truths = _store_truths(stack)
    start, size = 0, 32
    while start < len(images):
        block = images[start : start + size]
        begun = time.perf_counter()
        groups: list[dict[str, Any]] = []
        if isinstance(method, Continuous):
            found, known = method.solve(block)
            groups = [{"frame": start + i, "group": 0, **_group_row(group)} for i, group in enumerate(known)]
        else:
            found = method.predict(block)

        def view(index: int, start: int = start, block: FloatArray = block, found: list[Targets] = found) -> View:
            model = method.sensor.render(found[index])
            truth = None if truths is None else truths[start + index]
            number = f", image {start + index}" if len(images) > 1 else ""
            return View(block[index], model, found[index], truth, f"{stack.name}{number}: {_count(found[index])}")

        yield Block(start, found, groups, int(np.isnan(block).sum()), view)
        start += len(block)
        if time.perf_counter() - begun < 0.5:
            size = min(2 * size, 4096)


def _store_truths(stack: ImageStack) -> list[Targets] | None:
    if stack.kind != "store":
        return None
    from csist.datasets.dataset import load

    return load(stack.path)["test"].targets


def _count(targets: Targets) -> str:
    return f"{len(targets)} target{'' if len(targets) == 1 else 's'}"


def _group_row(group: Any) -> dict[str, Any]:
    """Columns of the table of groups, from what a solver knows of one."""
    probability = {f"p_{k}": float(value) for k, value in enumerate(group.count_probability)}
    place = {name: getattr(group, name) for name in GROUP_PLACE if hasattr(group, name)}
    return {
        **place,
        "count": int(group.count),
        "chi_squared": float(group.chi_squared),
        "degrees_of_freedom": int(group.degrees_of_freedom),
        "flags": int(group.flags),
        **probability,
    }


def _solve_file(stack: ImageStack, settings: Settings) -> Iterator[Block]:
    """All images of a file; what is wrong with its values shows before the first one is unmixed."""
    import numpy as np

    from csist.unmixing import check_frame_method, is_window

    if is_window(stack.shape):
        yield from _solve_windows(stack, settings)
        return
    check_frame_method(settings.method)
    for index, frame in enumerate(stack):  # reading it finds infinities
        if np.isnan(frame).all():
            raise InputError(f"{stack.path}: frame {index} holds nothing but NaN, remove it")
    yield from _solve_frames(stack, settings)


def _solve_frames(stack: ImageStack, settings: Settings) -> Iterator[Block]:
    """The frames of a file, one by one."""
    from csist.plots import View
    from csist.unmixing import count_masked, frame_model, solve_frame

    sensor = settings.sensor or stack.sensor
    options = {**settings.method_options, "noise_std": settings.noise_std, "psf": settings.psf}
    for index in range(len(stack)):
        frame = stack[index]
        try:
            found, known = solve_frame(frame, sensor, settings.prior, **options)
        except InputError as error:
            raise InputError(f"frame {index}: {error}" if len(stack) > 1 else str(error)) from error
        groups = [{"frame": index, "group": group.number, **_group_row(group)} for group in known]

        def view(_: int, index: int = index, frame: FloatArray = frame, found: Targets = found) -> View:
            number = f", frame {index}" if len(stack) > 1 else ""
            model = frame_model(frame, found, sensor, settings.psf)
            return View(frame, model, found, None, f"{stack.name}{number}: {_count(found)}")

        yield Block(index, [found], groups, count_masked(frame, sensor, settings.psf), view)


@dataclass
class Tally:
    """What `csist unmix` has done so far."""

    files: int = 0
    images: int = 0
    targets: int = 0
    masked: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)
    groups: list[dict[str, Any]] = field(default_factory=list)
    windows: list[tuple[int, View]] = field(default_factory=list)
    frame: tuple[float, View] | None = None

    def note(self, text: str, name: str) -> None:
        """Remember something that the user should know about a file."""
        names = self.notes.setdefault(text, [])
        if name not in names:
            names.append(name)

    def keep_view(self, block: Block, window: bool) -> None:
        """Keep for the picture the windows with the most targets, or the frame with the surest pair."""
        for index, targets in enumerate(block.targets):
            if window:
                if len(self.windows) < VIEWS_KEPT or len(targets) > self.windows[-1][0]:
                    self.windows.append((len(targets), block.view(index)))
                    self.windows.sort(key=lambda each: -each[0])
                    del self.windows[VIEWS_KEPT:]
            elif self.frame is None or _interest(targets) > self.frame[0]:
                self.frame = _interest(targets), block.view(index)

    @property
    def warnings(self) -> list[str]:
        """One line for each kind of note."""
        lines = []
        for text, names in self.notes.items():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            lines.append(f"{names[0]}{more}: {text}")
        return lines


def _interest(targets: Targets) -> float:
    """How much a frame has to show: the highest second-best score of a group; of lone targets, a hundredth."""
    import numpy as np

    most = 0.01 * float(np.nan_to_num(targets.score).max(initial=0.0))
    for group in np.unique(targets.group[targets.group >= 0]):
        scores = np.sort(np.nan_to_num(targets.score[targets.group == group]))
        most = max(most, float(scores[-2])) if len(scores) > 1 else most
    return most


def _input_files(inputs: Sequence[Path], tally: Tally) -> list[tuple[str, Path]]:
    """(name in the table, path) of every image file; the path as typed where two inputs hold the same name."""
    from csist.io import read_frames

    found: list[tuple[str, Path]] = []
    for given in inputs:
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


@app.command()
def unmix(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT", help="Images (PNG, TIFF, FITS, NPY, NPZ, HDF5 store) or folders."),
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
        typer.Option("--psf", help="Measured PSF: odd-sided array (.npy, .fits), target in its middle."),
    ] = None,
    psf_oversampling: Annotated[
        int, typer.Option("--psf-oversampling", help="Samples a pixel of the measured PSF.")
    ] = 1,
    noise_std: NoiseOption = None,
    background: Annotated[float | None, typer.Option("--background", help="Background of windows in counts.")] = None,
    mask_nan: Annotated[
        bool, typer.Option("--mask-nan", help="Leave out NaN pixels of windows instead of refusing them.")
    ] = False,
    ratio: RatioOption = 3,
    weights: WeightsOption = None,
    groups: Annotated[
        Path | None,
        typer.Option("--groups", help="Table of groups (.csv): count, its probabilities, chi-squared."),
    ] = None,
    plot: PlotOption = None,
    json_target: JsonOption = None,
) -> None:
    """Find the point targets of images and write them to a table.

    An image of at most 16 px a side, or a stack of such, is a window: it holds one group. Anything larger is a
    frame, where groups are looked for first. Without sensor options, windows are taken with a Gaussian PSF of
    0.5 px and no background, and the noise is estimated.
    """
    from csist.io import TABLE_SUFFIXES, TableWriter, check_writable, write_table

    if str(output) == "-":
        output = Path("/dev/stdout")
    settings = _settings(
        method,
        ratio,
        mode,
        prior,
        sensor,
        psf_sigma,
        psf,
        psf_oversampling,
        noise_std,
        background,
        mask_nan,
        weights,
    )
    tally = Tally()
    files = _input_files(inputs, tally)
    _check_outputs([path for _, path in files], json_target, output, groups, plot)
    if groups is not None:
        check_writable(groups, TABLE_SUFFIXES)
    if plot is not None:
        from csist.plots import check_picture

        check_picture(plot)
    begun = time.perf_counter()
    writer = TableWriter(output)
    try:
        with writer as table, _progress() as report:
            _unmix_files(files, settings, table, tally, report, plot is not None)
            if groups is not None:
                write_table(_groups_table(tally.groups), groups)
    except BaseException as error:
        _after_the_break(error, writer, output, tally, groups)
        raise
    if plot is not None:
        _draw_unmixed(tally, plot)
    _report_unmixed(tally, output, time.perf_counter() - begun, json_target)
    if tally.failed:
        raise typer.Exit(FAILURE)


def _unmix_files(
    files: Sequence[tuple[str, Path]],
    settings: Settings,
    table: TableWriter,
    tally: Tally,
    report: Callable[[str, float, float], None],
    pictured: bool,
) -> None:
    """Unmix file by file; in a batch a bad file is told of and the others go on."""
    from csist.io import read_image
    from csist.unmixing import is_window

    for place, (name, path) in enumerate(files):
        report(name, place, len(files))
        blocks: Iterator[Block] | None = None
        while True:
            try:
                if blocks is None:
                    stack = read_image(path, name)
                    for text in stack.notes:
                        tally.note(text, name)
                    if settings.background is not None and not is_window(stack.shape):
                        tally.note("--background is for windows, that of a frame is measured", name)
                    blocks = _solve_file(stack, settings)
                block = next(blocks, None)
            except Exception as error:
                message = _file_message(path, error)
                if len(files) == 1:
                    raise (InputError if isinstance(error, InputError) else RuntimeError)(message) from error
                _complain(message)
                tally.failed.append({"path": str(path), "error": message})
                break
            if block is None:
                tally.files += 1
                break
            for index, targets in enumerate(block.targets):
                table.append(name, block.start + index, targets)
            tally.images += len(block.targets)
            tally.targets += sum(map(len, block.targets))
            tally.masked += block.masked
            tally.groups += [{"image": name, **row} for row in block.groups]
            if pictured:
                tally.keep_view(block, is_window(stack.shape))
            report(name, place + (block.start + len(block.targets)) / len(stack), len(files))


def _file_message(path: Path, error: Exception) -> str:
    """One line that names the file and says what is wrong with it."""
    from csist.io import one_line

    said = one_line(error)
    if isinstance(error, MemoryError):
        said = "it does not fit into the memory"
    elif not isinstance(error, InputError | OSError):
        _show_traceback()
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
        if kept and isinstance(error, InputError | RuntimeError):
            raise type(error)(f"{error}; {where}") from error
        return
    if kept and groups is not None:
        from csist.io import write_text

        partial = groups.with_name(groups.name + ".partial")
        write_text(_groups_table(tally.groups).to_csv(index=False, lineterminator="\n"), partial)
        where += f" and {partial}"
    raise InterruptedRunError(f"interrupted: {where}") from error


def _groups_table(rows: list[dict[str, Any]]) -> Any:
    """One row a group; a probability that a group does not have (fewer targets possible) is blank."""
    import pandas as pd

    place = [name for name in GROUP_PLACE if any(name in row for row in rows)]
    first = ["image", "frame", "group", *place, "count", "chi_squared", "degrees_of_freedom", "flags"]
    most = max((int(key[2:]) for row in rows for key in row if key.startswith("p_")), default=-1)
    return pd.DataFrame(rows, columns=[*first, *(f"p_{k}" for k in range(most + 1))])


def _draw_unmixed(tally: Tally, path: Path) -> None:
    from csist.plots import frame_panel, save_figure, window_gallery

    if tally.frame is not None:
        view = tally.frame[1]
        save_figure(frame_panel(view.image, view.targets, view.model, view.truth, view.title), path)
    elif tally.windows:
        save_figure(window_gallery([view for _, view in tally.windows]), path)


def _report_unmixed(tally: Tally, output: Path, seconds: float, json_target: str | None) -> None:
    figures = {
        "files": tally.files,
        "failed": tally.failed,
        "images": tally.images,
        "targets": tally.targets,
        "masked_pixels": tally.masked,
        "seconds": round(seconds, 3),
        "warnings": tally.warnings,
        "output": str(output),
    }
    if json_target is not None:
        _write_json(figures, json_target)
    if json_target == "-":
        return
    # The table must not run into the targets themselves.
    console = _console(stderr=str(output) == "/dev/stdout")
    table = Table(box=None, show_header=False, pad_edge=False)
    rows = [("files", f"{tally.files}"), ("images", f"{tally.images}"), ("targets", f"{tally.targets}")]
    if tally.failed:
        rows.insert(1, ("failed", f"{len(tally.failed)}"))
    if tally.masked:
        rows.append(("masked pixels", f"{tally.masked}"))
    rows += [("seconds", f"{seconds:.1f}"), ("written to", str(output))]
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for line in tally.warnings:
        console.print(f"note: {line}", soft_wrap=True)


# --- evaluate ------------------------------------------------------------------------------------------


@app.command()
def evaluate(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Store (.h5) or folder of a GrokCSO dataset.")],
    split: Annotated[str, typer.Option("--split", help="train, val or test.")] = "test",
    method: Annotated[
        list[str] | None, typer.Option("--method", help="See `csist methods`; may be given several times.")
    ] = None,
    predictions: Annotated[
        list[Path] | None,
        typer.Option("--predictions", help="Table that `csist unmix` wrote, to be scored as well."),
    ] = None,
    ratio: RatioOption = 3,
    limit: Annotated[int | None, typer.Option("--limit", help="Use the first images only.")] = None,
    mode: ModeOption = None,
    prior: PriorOption = None,
    weights: WeightsOption = None,
    oracle: Annotated[bool, typer.Option(help="Add what no read-out of the grid can exceed.")] = True,
    resamples: Annotated[int, typer.Option("--resamples", help="Resamples of the intervals; 0 for none.")] = 1000,
    json_target: JsonOption = None,
    plot: PlotOption = None,
) -> None:
    """Score methods on a dataset: CSO-mAP, counts, errors, calibration, speed.

    Sensor, noise and prior are the dataset's own. Without --method and --predictions, `continuous` is scored.
    """
    from csist import evaluation
    from csist.checks import check_ratio
    from csist.datasets.scenes import ScenePrior
    from csist.methods.registry import canonical_name

    names = [canonical_name(name) for name in (method or ([] if predictions else ["continuous"]))]
    if len(set(names)) < len(names):
        raise InputError(f"a method is given twice: {', '.join(names)}")
    if weights is not None and len(names) != 1:
        raise InputError(f"--weights {weights} needs exactly one --method, got {len(names)}")
    if resamples < 0:
        raise InputError(f"resamples must be a whole number >= 0, got {resamples}")
    _check_mode(mode)
    check_ratio(ratio)
    chosen = None if prior is None else ScenePrior.named(prior)
    sources = [data, *(predictions or [])]
    _check_outputs(sources, json_target, plot)
    if plot is not None:
        from csist.plots import check_picture

        check_picture(plot)
    with _progress() as report:
        images = evaluation.read_labelled(data, split, limit, lambda done, total: report("reading", done, total))
        given = {path.name: evaluation.read_predictions(path, images) for path in predictions or []}
        result = evaluation.evaluate(
            images, names, ratio, prior=chosen, mode=mode, weights=weights, predictions=given, oracle=oracle,
            resamples=resamples, progress=report,
        )  # fmt: skip
    if plot is not None:
        _draw_evaluation(result, images.truths, plot)
    if json_target is not None:
        _write_json(result.to_dict(), json_target)
    if json_target != "-":
        _report_evaluation(result)


def _draw_evaluation(result: Any, truths: list[Targets], path: Path) -> None:
    from csist.metrics import match_detections, precision_recall_curve, reliability_curve
    from csist.plots import evaluation_panel, save_figure

    distance_px = 0.15  # the middle one of the five
    shown = {row["name"]: result.predictions[row["name"]] for row in result.rows}
    curves = {
        name: precision_recall_curve(match_detections(found, truths), distance_px) for name, found in shown.items()
    }
    reliability = {
        row["name"]: reliability_curve(shown[row["name"]], truths) for row in result.rows if row["calibration"]
    }
    data = result.data
    title = f"{Path(data['path']).name}, {data['split']}: {data['images']} images, {data['targets']} targets"
    save_figure(evaluation_panel(result.rows, curves, distance_px, reliability, title), path)


def _report_evaluation(result: Any) -> None:
    from csist.evaluation import SCORE_NAMES

    console, data = _console(), result.data
    console.print(
        f"{data['path']}, {data['split']}: {data['images']} images, {data['targets']} targets", soft_wrap=True
    )
    scores = Table(box=None, pad_edge=False, title_justify="left")
    for heading in ("", SCORE_NAMES[0], "95 % interval", *SCORE_NAMES[1:], "by intensity"):
        scores.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for row in result.rows:
        interval = "-" if row["interval"] is None else " - ".join(_number(v, ".1f") for v in row["interval"])
        rest = [_number(row[name], ".2f") for name in SCORE_NAMES[1:]]
        scores.add_row(
            row["name"],
            _number(row["CSO-mAP"], ".2f"),
            interval,
            *rest,
            _number(row["by_intensity"]["CSO-mAP"], ".2f"),
        )
    console.print(scores)
    console.print()
    details = Table(box=None, pad_edge=False)
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "count %": lambda row: _number(row["count_accuracy"], ".2f"),
        "missed": lambda row: _number(row["errors"]["missed"], "d"),
        "spurious": lambda row: _number(row["errors"]["spurious"], "d"),
        "rms px": lambda row: _number(row["errors"]["distance_rms"], ".4f"),
        "flux rms %": lambda row: _number(100 * row["errors"]["intensity_rms"], ".2f"),
        "PSNR dB": lambda row: _number(row.get("psnr"), ".2f"),
        "SSIM": lambda row: _number(row.get("ssim"), ".4f"),
        "calibration": lambda row: _number((row["calibration"] or {}).get("expected_calibration_error"), ".3f"),
        "x in 1 std %": lambda row: _number(100 * (row["coverage"] or {}).get("x_within_1", float("nan")), ".1f"),
        "images/s": lambda row: _number(row.get("images_per_second"), ".0f"),
    }
    cells = {name: [make(row) for row in result.rows] for name, make in columns.items()}
    used = [name for name, values in cells.items() if set(values) != {"-"}]
    details.add_column("")
    for name in used:
        details.add_column(name, justify="right", no_wrap=True)
    for place, row in enumerate(result.rows):
        details.add_row(row["name"], *(cells[name][place] for name in used))
    console.print(details)


# --- methods, generate, convert ------------------------------------------------------------------------


@app.command()
def methods(json_target: JsonOption = None) -> None:
    """List the methods, and for which ratios trained weights exist."""
    from csist.checkpoint import list_pretrained
    from csist.methods.registry import METHODS

    _check_outputs([], json_target)
    trained: dict[str, list[int]] = {}
    for _, card in list_pretrained():
        ratios = trained.setdefault(card["method"], [])
        if card["ratio"] not in ratios:
            ratios.append(card["ratio"])
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "summary": entry.summary,
            "source": entry.source,
            "needs_training": entry.trained,
            "trained_ratios": sorted(trained.get(name, [])),
        }
        for name, entry in METHODS.items()
    ]
    if json_target is not None:
        _write_json({"methods": rows}, json_target)
    if json_target == "-":
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("method", "what it is", "source", "trained weights"):
        table.add_column(heading)
    for row in rows:
        found = ", ".join(map(str, row["trained_ratios"]))
        weights = f"ratio {found}" if found else ("none" if row["needs_training"] else "needs none")
        table.add_row(row["name"], row["summary"], row["source"], weights)
    _console().print(table)


@app.command()
def generate(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Store to write (.h5), or folder for the layout grokcso.")],
    count: Annotated[int, typer.Option("--count", help="Images in all: 80 % train, 10 % val, 10 % test.")] = 100_000,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same bytes.")] = 0,
    noise_std: Annotated[float | None, typer.Option("--noise-std", help="Read noise in counts.")] = None,
    bits: Annotated[
        str | None, typer.Option("--bits", help="Width of a pixel: 8, 16 or float.", show_default="16")
    ] = None,
    clip: Annotated[bool, typer.Option("--clip", help="Clip at what the bits hold instead of refusing.")] = False,
    layout: Annotated[str, typer.Option("--layout", help="store or grokcso (PNG and XML).")] = "store",
    prior: PriorOption = "csist-100k",
    sensor: SensorOption = None,
) -> None:
    """Make a dataset; the default is the benchmark CSIST-100K."""
    from csist.datasets import generate as make
    from csist.datasets import load, split_sizes
    from csist.datasets.scenes import ScenePrior

    law = ScenePrior.named(prior or "csist-100k")
    card = None if sensor is None else _read_sensor(sensor)[0]
    begun = time.perf_counter()
    with _progress() as report:
        path = make(
            out, count, seed, sensor=card, prior=law, bits=bits, clip=clip, noise_std=noise_std, layout=layout,
            progress=lambda done, total: report("generating", done, total),
        )  # fmt: skip
    sizes = load(path).splits if layout == "store" else split_sizes(count)
    _report_written(path, sizes, time.perf_counter() - begun)


def _report_written(path: Path, sizes: dict[str, int], seconds: float) -> None:
    parts = ", ".join(f"{name} {size}" for name, size in sizes.items())
    _console().print(f"{path}: {sum(sizes.values())} images ({parts}) in {seconds:.1f} s", soft_wrap=True)


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="Store, folder of a GrokCSO dataset, or table of targets.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder, store (.h5), or table (.csv, .parquet).")],
) -> None:
    """Convert a dataset (store <-> GrokCSO folder) or a table of targets (CSV <-> Parquet)."""
    from csist.io import TABLE_SUFFIXES, check_writable, read_targets_table, targets_table, write_table

    if source.suffix.lower() in TABLE_SUFFIXES and not source.is_dir():
        if _same_file(source, out):
            raise InputError(f"cannot write {out}: it is the input, give another name")
        check_writable(out, TABLE_SUFFIXES)
        table = targets_table([(*key, targets) for key, targets in read_targets_table(source).items()])
        write_table(table, out)
        _console().print(f"{out}: {len(table)} targets", soft_wrap=True)
        return
    from csist.datasets import convert as convert_dataset
    from csist.datasets import load

    begun = time.perf_counter()
    with _progress() as report:
        convert_dataset(source, out, lambda done, total: report("converting", done, total))
    _report_written(out, load(source if out.is_dir() else out).splits, time.perf_counter() - begun)


# --- entry ---------------------------------------------------------------------------------------------


def _show_traceback() -> None:
    if os.environ.get(DEBUG_VARIABLE):
        import traceback

        traceback.print_exc()


def _with_value(message: str, arguments: Sequence[str]) -> str:
    """The message with the value that an option was given, where the library names the option only."""
    named = re.search(r"'(?:-\w / )?(--[\w-]+)'", message)
    if named is None or "nvalid value" not in message:
        return message
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, _, value = argument.partition("=")
        value = value or following
        if name == named[1] and repr(value) not in message:
            return f"{message.rstrip('.')}, got {value!r}"
    return message


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: what follows the command's name; None for those of the process.

    Returns:
        The exit code.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = app(args=arguments, prog_name="csist", standalone_mode=False)
        sys.stdout.flush()
    except InputError as error:
        _show_traceback()
        _complain(error)
        return BAD_USE
    except InterruptedRunError as error:
        _complain(error)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has had enough (`| head`): no reason to complain, and none to flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except (KeyboardInterrupt, typer.Abort):
        _complain("interrupted: nothing was written")
        return INTERRUPTED
    except MemoryError:
        _complain("the memory is full: use smaller images, or fewer at a time")
        return FAILURE
    except OSError as error:
        _show_traceback()
        _complain(str(error) or type(error).__name__)
        return FAILURE
    except Exception as error:
        if hasattr(error, "format_message"):  # bad use, told by the library that reads the options
            context = getattr(error, "ctx", None)
            see = f" (see {context.command_path} --help)" if context is not None else ""
            _complain(f"{_with_value(error.format_message(), arguments)}{see}")
            return BAD_USE
        if INTERNAL_ERROR in str(error):  # of a file, told with its name
            _complain(error)
        else:
            _show_traceback()
            _complain(f"{INTERNAL_ERROR}: {type(error).__name__}: {error}")
        return FAILURE
    if code == INTERRUPTED:  # some versions of Typer turn Ctrl-C into this code
        _complain("interrupted: nothing was written")
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(main())
