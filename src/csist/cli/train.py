"""`csist train`: train a method and write its weights, in sessions that can be interrupted and resumed."""

from __future__ import annotations

import inspect
import json
import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import typer
from rich.table import Table

from csist.checks import InputError, check_packages
from csist.cli.options import JsonOption, read_sensor
from csist.cli.output import (
    InterruptedRunError,
    check_outputs,
    complain,
    files_among,
    interval_cell,
    make_console,
    number,
    write_json,
)
from csist.training.config import FLAGS, SHOWN, TrainingConfig, descriptions, trainable_name

if TYPE_CHECKING:
    from types import FrameType

    from csist.physics.sensor import Sensor
    from csist.scenes import ScenePrior
    from csist.training import TrainingResult

NEEDED = ("lightning", "tensorboard")
"""Packages of the extra `train`."""

OWN_OPTIONS = ("name", "sensor", "ratio", "pretrained")
"""Names that --option may not set, because the command sets them."""

MethodArgument = Annotated[str, typer.Argument(metavar="METHOD", help="See `csist methods`; one that needs training.")]
PlotCurvesOption = Annotated[
    Path | None, typer.Option("--plot", help="Figure of loss and CSO-mAP against samples, with the exact map.")
]

PYTHON_WORDS = {"True": True, "False": False, "None": None}


def _method_options(given: Sequence[str]) -> dict[str, Any]:
    """Parse NAME=VALUE options; a value is read as JSON or as True, False or None, else as text."""
    options: dict[str, Any] = {}
    for each in given:
        name, sign, text = each.partition("=")
        name = name.strip().replace("-", "_")
        if not sign or not name.isidentifier():
            raise InputError(f"--option must be NAME=VALUE, such as stages=2, got {each!r}")
        if name in OWN_OPTIONS:
            raise InputError(f"--option cannot set {name}, got {each!r}: use its own option, see csist train --help")
        if name in options:
            raise InputError(f"--option {name} is given twice: leave one out")
        try:
            options[name] = json.loads(text)
        except ValueError:
            options[name] = PYTHON_WORDS.get(text, text)
    return options


def _read_card(path: str) -> Sensor:
    return read_sensor(Path(path))[0]


def _read_prior(name: str) -> ScenePrior:
    from csist.io.cards import read_prior

    return read_prior(name)


def _read_clip(text: str) -> str | float:
    """Read a number, or a word that `TrainingConfig` checks."""
    try:
        return float(text)
    except ValueError:
        return text


def _read_stages(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(each) for each in text.split(","))
    except ValueError as error:
        raise InputError(f"--grow must be numbers of stages such as 2,4,6, got {text!r}") from error


READ: dict[str, Callable[[Any], Any]] = {
    "options": _method_options,
    "gradient_clip": _read_clip,
    "grow": _read_stages,
    "sensor": _read_card,
    "prior": _read_prior,
}
"""Functions that convert values of the command line to the types of these fields."""

METAVARS = {
    "options": "NAME=VALUE", "gradient_clip": "running|X|none", "grow": "N,N,...", "sensor": "FILE",
    "prior": "flat|csist-100k|FILE",
}  # fmt: skip


def _parameters() -> list[inspect.Parameter]:
    """Return the parameters of the command: the method, an option per field of `TrainingConfig`, --plot and --json."""
    hints = get_type_hints(TrainingConfig, localns={"Sensor": Any, "ScenePrior": Any})
    helps = descriptions()
    found = {
        "method": (MethodArgument, inspect.Parameter.empty),
        **{each.name: _option(each, hints[each.name], helps[each.name]) for each in fields(TrainingConfig)},
        "plot": (PlotCurvesOption, None),
        "json_target": (JsonOption, None),
    }
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return [inspect.Parameter(name, kind, default=default, annotation=hint) for name, (hint, default) in found.items()]


def _option(setting: Field[Any], hint: Any, text: str) -> tuple[Any, Any]:
    """Return the annotation and default of the option that sets a field."""
    if setting.name in READ:
        hint = list[str] | None if setting.name == "options" else str | None
        default = None
    else:
        hint = Path | None if Path in get_args(hint) else hint
        default = setting.default
    option = typer.Option(
        *FLAGS.get(setting.name, (f"--{setting.name.replace('_', '-')}",)),
        help=f"{text[0].upper()}{text[1:]}",
        show_default=SHOWN.get(setting.name, True),
        metavar=METAVARS.get(setting.name),
    )
    return Annotated[hint, option], default


def _with_parameters(command: Callable[..., None]) -> Callable[..., None]:
    """Give the command the signature of `_parameters`, which Typer reads."""
    described: Any = command
    parameters = _parameters()
    described.__signature__ = inspect.Signature(parameters)
    described.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


@_with_parameters
def train(method: str, plot: Path | None, json_target: str | None, **given: Any) -> None:
    """Train a method and write its weights, checkpoint and logs to a folder.

    Without --data, scenes are generated on the fly from --sensor and --prior, by default those of the benchmark. Give
    --max-samples, --max-minutes or both. Ctrl-C ends the session with a checkpoint; the same command with --resume
    continues from it.
    """
    name = trainable_name(method)
    settings = {key: READ[key](value) if key in READ and value else value for key, value in given.items()}
    config = TrainingConfig(**{key: value for key, value in settings.items() if value is not None})
    check_outputs(files_among(*(given[name] for name in ("data", "start", "sensor", "prior"))), json_target, plot)
    check_packages("training", NEEDED, "train")
    if plot is not None:
        from csist.plots import check_picture

        check_picture(plot)
        if _has_exact_map(config):
            config = replace(config, exact_map=True)
    from csist.training import train as run

    folder = config.folder(name)
    with _log_to_stderr(), _interruptible(folder) as stop_asked:
        result = run(name, config, progress_bar=True, stop_asked=stop_asked)
    if not result.first_process:
        return
    if plot is not None:
        _draw_curves(result, folder, plot)
    if stop_asked() and (config.max_samples is None or result.samples < config.max_samples):
        raise InterruptedRunError(_how_to_resume(folder, result.samples))
    if json_target is not None:
        write_json(_figures(result), json_target)
    if json_target != "-":
        _report_training(result)


def _has_exact_map(config: TrainingConfig) -> bool:
    """Return whether the exact map of the training scenes can be computed for the figure."""
    prior = config.prior
    if config.data is not None:
        from csist.io.store import load

        prior = load(config.data).prior
    return prior is None or prior.single_pixel


@contextmanager
def _log_to_stderr() -> Iterator[None]:
    """Write the log of the training (one line per validation) to standard error."""

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # Look up sys.stderr each time: the progress bar replaces it to keep log lines above the bar.
            typer.echo(record.getMessage(), err=True)

    logger, handler = logging.getLogger("csist.training"), Lines()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


@contextmanager
def _interruptible(folder: Path) -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C request a stop after the current step; the second one interrupts immediately.

    Yields:
        A function that returns whether a stop was requested.
    """
    before = signal.getsignal(signal.SIGINT)
    pressed = reported = False

    def note(_number: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def stop_asked() -> bool:
        nonlocal reported
        if pressed and not reported:
            reported = True
            complain("ending this session with a checkpoint and a score; press Ctrl-C again to stop immediately")
        return pressed

    signal.signal(signal.SIGINT, note)
    try:
        yield stop_asked
    except (KeyboardInterrupt, SystemExit) as error:  # the training library turns Ctrl-C into an exit
        raise InterruptedRunError(_how_to_resume(folder, None)) from error
    finally:
        signal.signal(signal.SIGINT, before)


def _how_to_resume(folder: Path, samples: int | None) -> str:
    from csist.training.callback import CHECKPOINT

    if not (folder / CHECKPOINT).is_file():
        return f"interrupted: {folder} holds no checkpoint yet, start again"
    done = "the work up to the last checkpoint is" if samples is None else f"all {samples} samples are"
    return f"interrupted: {done} in {folder / CHECKPOINT}, continue with the same command and --resume"


def _draw_curves(result: TrainingResult, folder: Path, path: Path) -> None:
    from csist.plots import save_figure, training_curves
    from csist.training.logs import read_log

    card = result.card
    name = f"{card['method']}, ratio {card['ratio']}"
    save_figure(training_curves({name: read_log(folder, card["training"]["batch_size"])}), path)


def _figures(result: TrainingResult) -> dict[str, Any]:
    card = result.card
    return {
        "method": card["method"],
        "ratio": card["ratio"],
        "cso_map": result.score,
        "interval_95": card["score"]["interval_95"],
        "validation_images": card["score"]["images"],
        "samples": result.samples,
        "minutes": result.minutes,
        "weights": str(result.weights),
        "card": card,
    }


def _report_training(result: TrainingResult) -> None:
    figures = _figures(result)
    score = f"{number(figures['cso_map'], '.2f')} ({interval_cell(figures['interval_95'], '.1f')})"
    table = Table(box=None, show_header=False, pad_edge=False)
    for row in (
        ("method", f"{figures['method']}, ratio {figures['ratio']}"),
        ("CSO-mAP", f"{score} on {figures['validation_images']} validation images"),
        ("samples", f"{figures['samples']}"),
        ("minutes", f"{figures['minutes']:.1f}"),
        ("weights", str(figures["weights"])),
    ):
        table.add_row(*row)
    make_console().print(table)
