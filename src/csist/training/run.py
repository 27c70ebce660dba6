"""`train`: from a method's name to a weight file, in one call that can be cut off and repeated."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as lightning_package
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from csist.checks import InputError, check_positive, check_ratio
from csist.create import create_method
from csist.files import one_line
from csist.methods.base import GridMethod
from csist.methods.table import METHODS, canonical_name
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior
from csist.training import logs
from csist.training.compiled import check_compiler
from csist.training.datamodule import UnmixingData, open_data
from csist.training.keeper import Keeper
from csist.training.module import UnmixingModule
from csist.weights.cards import describe_machine, read_card
from csist.weights.pretrained import begin_from

DEFAULT_LEARNING_RATE = 1e-3
EPOCHS_PER_VALIDATION = 4


@dataclass(frozen=True)
class TrainingResult:
    """What a training left behind.

    Args:
        weights: weight file, the averaged weights with the best CSO-mAP on the validation images.
        card: its card.
        samples: samples seen, all sessions together.
        minutes: training time, all sessions together.
        score: CSO-mAP in percent of those weights on the validation images.
        first_process: whether this process speaks for all that shared the work.
    """

    weights: Path
    card: dict[str, Any]
    samples: int
    minutes: float
    score: float
    first_process: bool = True


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's advice to its own users (workers, steps logged) is not meant for ours."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", module=r"torch\.utils\.data.*")
        warnings.filterwarnings(
            "ignore", message=r".*(Checkpoint directory|does not have many workers|log_every_n_steps).*"
        )
        names = ("lightning.pytorch", "lightning.fabric", "lightning")
        levels = {name: logging.getLogger(name).level for name in names}
        try:
            for name in names:
                logging.getLogger(name).setLevel(logging.ERROR)
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def train(
    method_name: str,
    data: str | Path | None = None,
    ratio: int = 3,
    output: str | Path = "runs",
    max_samples: int | None = None,
    max_minutes: float | None = None,
    resume: bool = False,
    seed: int = 0,
    batch_size: int = 64,
    learning_rate: float | None = None,
    schedule: str = "stable",
    devices: int = 1,
    num_nodes: int = 1,
    strategy: str = "auto",
    accelerator: str = "auto",
    precision: str = "32-true",
    val_limit: int = 1000,
    validate_every: int = 12_800,
    checkpoint_minutes: float = 2.0,
    gradient_clip: float | None = None,
    ema_decay: float = 0.999,
    warmup_samples: int = 6_400,
    decay: float = 0.2,
    constraint_share: float = 1.0,
    window: int | None = None,
    window_share: float = 0.8,
    compiled: bool = False,
    start: str | Path | None = None,
    half: bool = False,
    sensor: Sensor | None = None,
    prior: ScenePrior | None = None,
    progress_bar: bool = False,
    stop_asked: Callable[[], bool] | None = None,
    options: Mapping[str, Any] | None = None,
) -> TrainingResult:
    """Train a grid method and write its weights.

    The folder `output` gets the weight file NAME-cRATIO.safetensors with its card (the averaged weights with
    the best CSO-mAP so far, there from the first validation on), `last.ckpt` to resume from, and logs as CSV
    and for TensorBoard. A run that ends by `max_samples` can be cut off at any moment, even by SIGKILL:
    called again with `resume=True` it goes on from the last checkpoint and, on one kind of CPU and compiled in all
    sessions or in none, ends with the same bits as an undisturbed one.

    Args:
        method_name: a trained method of `csist.list_methods`.
        data: store to train on; None simulates new scenes for ever.
        ratio: sub-pixel grid ratio.
        output: folder, made where it is missing.
        max_samples: samples in all, over all sessions; the schedule ends there.
        max_minutes: end this session after so many minutes; without `max_samples` the schedule ends there.
        resume: go on from the checkpoint in `output`, if there is one.
        seed: of the initial weights, the order and the simulated scenes.
        batch_size: samples a step, of one process.
        learning_rate: peak; default: the method's own.
        schedule: "stable" (flat, then a linear fall over the last part `decay`) or "one-cycle".
        devices: processes or accelerators on each machine.
        num_nodes: machines.
        strategy: Lightning's name of the way they share the work: auto, ddp, ddp_spawn.
        accelerator: Lightning's name of the hardware: auto, cpu, gpu.
        precision: Lightning's name of the number format.
        val_limit: validation images.
        validate_every: samples between two validations.
        checkpoint_minutes: least time between two checkpoints.
        gradient_clip: largest norm of the gradient; default: no clipping but for the method's own.
        ema_decay: of the averaged weights, a step.
        warmup_samples: samples over which the learning rate rises; at most a tenth of the training.
        decay: part of the training over which the "stable" schedule falls.
        constraint_share: part of each batch whose constraint terms are computed.
        window: side in px of windows around the groups; the first part `window_share` of the training sees these
            instead of whole images, which costs less. For convolutional methods and groups inside one pixel.
        window_share: that first part, 0 to 1.
        compiled: train with kernels that torch.compile makes for this network first, which takes half a minute or
            more of this session and needs a C++ compiler: for long runs.
        start: weight file of the same method to begin from; it must fit sensor and options. One for another ratio
            lends what fits.
        half: store the weights in half precision.
        sensor: sensor of simulated scenes; default: the benchmark's. A store has its own.
        prior: of simulated scenes; default: the benchmark's.
        progress_bar: show a bar with the time left on standard error, where that is a terminal.
        stop_asked: asked after each step; once it answers True the run ends as if its time were up, with a
            checkpoint.
        options: the method's options.

    Returns:
        Where the weights are and how good they are.

    Raises:
        InputError: if an argument is out of range or unknown, or the checkpoint belongs to another training.
    """
    name = canonical_name(method_name)
    if name not in METHODS or not METHODS[name].trained:
        raise InputError(f"method {name!r} has nothing to train")
    if max_samples is None and max_minutes is None:
        raise InputError("give max_samples or max_minutes, or both")
    for label, value in (
        ("max_samples", max_samples), ("max_minutes", max_minutes), ("learning_rate", learning_rate),
        ("gradient_clip", gradient_clip), ("batch_size", batch_size), ("val_limit", val_limit),
        ("validate_every", validate_every), ("devices", devices), ("num_nodes", num_nodes),
        ("warmup_samples", warmup_samples), ("window", window),
    ):  # fmt: skip
        if value is not None:
            check_positive(label, value)
    check_ratio(ratio)
    source, validation, sensor, prior = open_data(data, sensor, prior, seed, val_limit)
    if window is not None and not prior.single_pixel:
        raise InputError("window needs groups inside one pixel (single_pixel of the prior): leave it out")
    torch.manual_seed(seed)
    lender = None if start is None else read_card(start)
    other_ratio = lender is not None and lender["ratio"] != ratio
    given = False if start is None or other_ratio else Path(start)
    try:
        method: GridMethod = create_method(name, sensor=sensor, ratio=ratio, pretrained=given, **dict(options or {}))
    except (TypeError, RuntimeError) as error:
        raise InputError(f"cannot build {name} with the options {dict(options or {})}: {one_line(error)}") from error
    if start is not None and other_ratio:
        begin_from(method, name, start)
    if next(method.parameters(), None) is None:
        raise InputError(f"{name} with the options {dict(options or {})} has nothing to train")
    peak = learning_rate or float(getattr(method, "learning_rate", DEFAULT_LEARNING_RATE))
    clip = gradient_clip or getattr(method, "gradient_clip", None)

    world = devices * num_nodes
    step_size = batch_size * world
    total_steps = -1 if max_samples is None else -(-max_samples // step_size)
    steps = max(1, validate_every // EPOCHS_PER_VALIDATION // step_size)
    folder = Path(output)
    described = {
        "seed": seed, "data": "simulated" if data is None else Path(data).name, "prior": prior.to_card(),
        "batch_size": step_size, "learning_rate": peak, "schedule": schedule, "ema_decay": ema_decay,
        "constraint_share": constraint_share, "window": window,
        "window_share": None if window is None else window_share, "compiled": compiled, "max_samples": max_samples,
        "start": None if start is None or lender is None else {"weights": Path(start).name, **lender["training"]},
        "machine": describe_machine(),
    }  # fmt: skip
    module = UnmixingModule(
        method, validation, step_size, max_samples, max_minutes, peak, schedule,
        warmup_samples=warmup_samples, decay=decay, ema_decay=ema_decay, constraint_share=constraint_share,
        window=window, window_share=window_share, compiled=compiled,
    )  # fmt: skip
    keeper = Keeper(
        folder,
        name,
        dict(options or {}),
        described,
        EPOCHS_PER_VALIDATION * steps,
        checkpoint_minutes,
        half,
        progress_bar,
        stop_asked,
    )
    resumed = keeper.checkpoint if resume and keeper.checkpoint.is_file() else None
    if resumed is None and keeper.checkpoint.is_file():
        raise InputError(f"{folder} holds an earlier training: resume it (--resume) or choose another folder")
    if compiled:
        check_compiler()
    with _quiet():
        try:
            trainer = lightning_package.Trainer(
                accelerator=accelerator,
                devices=devices,
                num_nodes=num_nodes,
                strategy=strategy,
                precision=precision,  # type: ignore[arg-type]
                max_steps=total_steps,
                max_epochs=-1,
                gradient_clip_val=clip,
                callbacks=[keeper],
                logger=[
                    CSVLogger(folder, name=logs.FOLDER, version=logs.next_session(folder, resumed is not None)),
                    TensorBoardLogger(folder, name="tensorboard", version=""),
                ],
                log_every_n_steps=10,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                use_distributed_sampler=False,
            )
        except (MisconfigurationException, ValueError) as error:
            chosen = f"accelerator {accelerator}, devices {devices}, strategy {strategy}, precision {precision}"
            raise InputError(f"cannot train with {chosen}: {one_line(error)}") from error
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write {folder}: {error.strerror}") from error
        trainer.fit(module, UnmixingData(source, validation, method.grid, batch_size, steps), ckpt_path=resumed)
    path = keeper.weights_path(module)
    card = read_card(path)
    return TrainingResult(
        path, card, module.samples_seen, module.minutes, card["score"]["cso_map"], trainer.is_global_zero
    )
