"""`csist train`: train a method and write its weights, in sessions that can be interrupted and resumed."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from csist.checks import InputError, check_packages
from csist.cli.options import JsonOption, PriorOption, RatioOption, SensorOption, read_sensor
from csist.cli.output import (
    InterruptedRunError,
    check_outputs,
    complain,
    interval_cell,
    make_console,
    number,
    write_json,
)

if TYPE_CHECKING:
    from types import FrameType

    from csist.training import TrainingResult

NEEDED = ("lightning", "tensorboard")
"""Packages of the extra `train`."""

OWN_OPTIONS = ("name", "sensor", "ratio", "pretrained")
"""Names that --option may not set, because the command sets them."""

PYTHON_WORDS = {"True": True, "False": False, "None": None}


def train(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="See `csist methods`; one that needs training.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="Store (.h5) to train on.", show_default="simulated scenes")
    ] = None,
    ratio: RatioOption = 3,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the results.", show_default="runs/METHOD")
    ] = None,
    max_samples: Annotated[
        int | None, typer.Option("--max-samples", help="Total number of samples; the schedule ends there.")
    ] = None,
    max_minutes: Annotated[
        float | None, typer.Option("--max-minutes", help="Length of this session in minutes.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint in the folder.")] = False,
    start: Annotated[
        Path | None,
        typer.Option(
            "--start", help="Weight file of this method to start from (.safetensors), also for another ratio."
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="NAME=VALUE", help="Option of the method; may be given several times."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the weights, the order and the simulated scenes.")] = 0,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Samples per step and process.")] = 64,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Peak learning rate.", show_default="set by the method")
    ] = None,
    schedule: Annotated[
        str, typer.Option("--schedule", help="Learning rate schedule: stable or one-cycle.")
    ] = "stable",
    warmup_samples: Annotated[
        int, typer.Option("--warmup-samples", help="Samples of the learning rate warm-up.")
    ] = 6_400,
    decay: Annotated[
        float, typer.Option("--decay", help="Final fraction of the stable schedule, in which the learning rate falls.")
    ] = 0.2,
    gradient_clip: Annotated[
        float | None,
        typer.Option("--gradient-clip", help="Largest norm of the gradient.", show_default="set by the method"),
    ] = None,
    ema_decay: Annotated[float, typer.Option("--ema-decay", help="Decay of the averaged weights per step.")] = 0.999,
    constraint_share: Annotated[
        float, typer.Option("--constraint-share", help="Fraction of a batch for which constraint terms are computed.")
    ] = 1.0,
    window: Annotated[
        int | None,
        typer.Option("--window", help="Side in px of windows around the groups to train on first, at lower cost."),
    ] = None,
    window_share: Annotated[
        float, typer.Option("--window-share", help="Fraction of the training on windows; the rest uses whole images.")
    ] = 0.8,
    compiled: Annotated[
        bool,
        typer.Option("--compile", help="Compile the network first; worthwhile for long runs, needs a C++ compiler."),
    ] = False,
    devices: Annotated[int, typer.Option("--devices", help="Processes or accelerators per machine.")] = 1,
    num_nodes: Annotated[int, typer.Option("--num-nodes", help="Number of machines.")] = 1,
    strategy: Annotated[str, typer.Option("--strategy", help="Distribution strategy: auto or ddp.")] = "auto",
    accelerator: Annotated[str, typer.Option("--accelerator", help="Hardware to train on: auto, cpu or gpu.")] = "auto",
    precision: Annotated[
        str, typer.Option("--precision", help="Numerical precision: 32-true, 16-mixed or bf16-mixed.")
    ] = "32-true",
    half: Annotated[bool, typer.Option("--half", help="Store the weights in half precision.")] = False,
    val_limit: Annotated[int, typer.Option("--val-limit", help="Number of validation images.")] = 1000,
    validate_every: Annotated[int, typer.Option("--validate-every", help="Samples between validations.")] = 12_800,
    checkpoint_minutes: Annotated[
        float, typer.Option("--checkpoint-minutes", help="Minimum time between checkpoints in minutes.")
    ] = 2.0,
    sensor: SensorOption = None,
    prior: PriorOption = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Figure of loss and CSO-mAP against samples.")] = None,
    json_target: JsonOption = None,
) -> None:
    """Train a method and write its weights, checkpoint and logs to a folder.

    Without --data, scenes are generated on the fly from --sensor and --prior, by default those of the benchmark. Give
    --max-samples, --max-minutes or both. Ctrl-C ends the session with a checkpoint; the same command with --resume
    continues from it.
    """
    from csist.methods.table import canonical_name
    from csist.scenes import ScenePrior

    name = canonical_name(method)
    chosen = _method_options(option or [])
    card = None if sensor is None else read_sensor(sensor)[0]
    scene_prior = None if prior is None else ScenePrior.named(prior)
    check_outputs([] if data is None else [data], json_target)
    check_packages("training", NEEDED, "train")
    if plot is not None:
        from csist.plots import check_picture

        check_picture(plot)
    from csist.training import train as run

    folder = Path("runs") / name if output is None else output
    with _log_to_stderr(), _interruptible(folder) as stop_asked:
        result = run(
            name, data, ratio, folder, max_samples=max_samples, max_minutes=max_minutes, resume=resume, seed=seed,
            batch_size=batch_size, learning_rate=learning_rate, schedule=schedule, devices=devices,
            num_nodes=num_nodes, strategy=strategy, accelerator=accelerator, precision=precision,
            val_limit=val_limit, validate_every=validate_every, checkpoint_minutes=checkpoint_minutes,
            gradient_clip=gradient_clip, ema_decay=ema_decay, warmup_samples=warmup_samples, decay=decay,
            constraint_share=constraint_share, window=window, window_share=window_share, compiled=compiled, half=half,
            sensor=card, prior=scene_prior, progress_bar=True, stop_asked=stop_asked, options=chosen, start=start,
        )  # fmt: skip
    if not result.first_process:
        return
    if plot is not None:
        _draw_curves(result, folder, plot)
    if stop_asked() and (max_samples is None or result.samples < max_samples):
        raise InterruptedRunError(_how_to_resume(folder, result.samples))
    if json_target is not None:
        write_json(_figures(result), json_target)
    if json_target != "-":
        _report_training(result)


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
    from csist.training.keeper import CHECKPOINT

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
