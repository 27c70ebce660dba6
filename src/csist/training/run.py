"""`train`: from a method's name to a weight file, in one call that can be cut off and repeated."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as lightning_package
import numpy as np
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from csist.checkpoint import describe_machine, make_card, read_card, save_weights
from csist.checks import InputError, check_positive, check_ratio
from csist.datasets.scenes import ScenePrior
from csist.methods.base import GridMethod
from csist.methods.registry import METHODS, canonical_name, create_method
from csist.metrics import bootstrap_interval
from csist.physics.sensor import Sensor
from csist.training.datamodule import UnmixingData, open_data
from csist.training.module import UnmixingModule

logger = logging.getLogger("csist.training")

DEFAULT_LEARNING_RATE = 1e-3
CHECKPOINT = "last.ckpt"
EPOCHS_PER_VALIDATION = 4
INTERVAL_SEED = 0


@dataclass(frozen=True)
class TrainingResult:
    """What a training left behind.

    Args:
        weights: weight file, the averaged weights with the best CSO-mAP on the validation images.
        card: its card.
        samples: samples seen, all sessions together.
        minutes: training time, all sessions together.
        score: CSO-mAP in percent of those weights on the validation images.
    """

    weights: Path
    card: dict[str, Any]
    samples: int
    minutes: float
    score: float


class Keeper(lightning_package.Callback):
    """Validates, keeps the best weights, writes checkpoints and shows progress.

    Args:
        output: folder of the files.
        name: registry name of the method.
        options: options that the method was built with.
        training: what the card says of the training, besides samples and minutes.
        validation_steps: steps between two validations.
        checkpoint_minutes: least time between two checkpoints.
        half: store weights in half precision.
        progress_bar: show a bar with the time left.
    """

    def __init__(
        self,
        output: Path,
        name: str,
        options: Mapping[str, Any],
        training: Mapping[str, Any],
        validation_steps: int,
        checkpoint_minutes: float,
        half: bool,
        progress_bar: bool,
    ) -> None:
        self.output, self.name, self.options, self.training = output, name, options, training
        self.validation_steps, self.checkpoint_minutes, self.half = validation_steps, checkpoint_minutes, half
        self.bar: Progress | None = None
        if progress_bar:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, TextColumn("{task.fields[facts]}"))
        self.task: TaskID | None = None
        self._saved = time.monotonic()
        self._first = (0, time.monotonic())

    @property
    def checkpoint(self) -> Path:
        """The file that a resumed run starts from."""
        return self.output / CHECKPOINT

    def weights_path(self, module: UnmixingModule) -> Path:
        """The weight file."""
        return self.output / f"{self.name}-c{module.method.ratio}.safetensors"

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the bar."""
        self._first = (pl_module.samples_seen, time.monotonic())
        self._saved = time.monotonic()
        if self.bar is not None and trainer.is_global_zero:
            self.bar.start()
            self.task = self.bar.add_task(self.name, total=1.0, completed=pl_module.progress, facts="")

    def _speed(self, module: UnmixingModule) -> float:
        samples, began = self._first
        return (module.samples_seen - samples) / max(time.monotonic() - began, 1e-9)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Move the bar."""
        if self.bar is not None and self.task is not None:
            speed, score = self._speed(pl_module), pl_module.score
            facts = f"{pl_module.samples_seen:,} samples, {speed:.0f}/s, CSO-mAP {score:.2f}"
            self.bar.update(self.task, completed=pl_module.progress, facts=facts)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Validate every few epochs; write a checkpoint when the last one is old enough or the run ends."""
        ends = trainer.should_stop or trainer.global_step >= trainer.max_steps > 0
        # By steps, not by epochs: a resumed run must validate where an undisturbed one does.
        due = trainer.global_step // self.validation_steps > pl_module.scored_at // self.validation_steps
        if due and not ends:
            self.score(trainer, pl_module)
        old = time.monotonic() - self._saved >= 60.0 * self.checkpoint_minutes
        # Every process must take part in a save, so the first one decides.
        if trainer.strategy.broadcast(due or old or ends):
            self.save(trainer, pl_module)

    def score(self, trainer: Any, module: UnmixingModule) -> None:
        """Measure CSO-mAP, log it, and keep the weights if they are the best so far."""
        if module.scored_at == trainer.global_step:
            return
        module.scored_at = trainer.global_step
        if trainer.is_global_zero:
            score = module.validate_now()
            logged = {"cso_map": score, "samples": module.samples_seen, "minutes": module.minutes}
            for each in trainer.loggers:
                each.log_metrics(logged, step=trainer.global_step)
            logger.info(
                "%s: %s samples, %.1f min, %.1f samples/s, CSO-mAP %.2f (best %.2f)",
                self.name, f"{module.samples_seen:,}", module.minutes, self._speed(module), score,
                max(score, module.best_score),
            )  # fmt: skip
            if score > module.best_score:
                module.best_score = score
                self.export(module)
        module.best_score = trainer.strategy.broadcast(module.best_score)

    def export(self, module: UnmixingModule) -> dict[str, Any]:
        """Write the averaged weights and their card."""
        with module.averaged.applied():
            found = module.method.predict(np.asarray(module.validation.images, dtype=np.float64))
            interval = bootstrap_interval(found, module.validation.truths(), INTERVAL_SEED, resamples=200)
            card = make_card(
                self.name,
                module.method.sensor,
                module.method.ratio,
                self.options,
                {**self.training, "samples": module.samples_seen, "minutes": round(module.minutes, 2)},
                {
                    "cso_map": round(interval.value, 3),
                    "interval_95": [round(interval.low, 3), round(interval.high, 3)],
                    "split": "val",
                    "images": len(module.validation.images),
                },
            )
            save_weights(self.weights_path(module), module.method, card, self.half)
        return card

    def save(self, trainer: Any, module: UnmixingModule) -> None:
        """Write the checkpoint under a temporary name and give it its own when it is complete."""
        temporary = self.checkpoint.with_name(f".{CHECKPOINT}.tmp")
        trainer.save_checkpoint(temporary)
        if trainer.is_global_zero:
            if temporary.is_file():
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
            temporary.replace(self.checkpoint)
        trainer.strategy.barrier()
        self._saved = time.monotonic()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Score the last weights."""
        self.score(trainer, pl_module)
        self.save(trainer, pl_module)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Stop the bar, also after an error."""
        if self.bar is not None:
            self.bar.stop()


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
    half: bool = False,
    sensor: Sensor | None = None,
    prior: ScenePrior | None = None,
    progress_bar: bool = False,
    options: Mapping[str, Any] | None = None,
) -> TrainingResult:
    """Train a grid method and write its weights.

    The folder `output` gets the weight file NAME-cRATIO.safetensors with its card (the averaged weights with
    the best CSO-mAP so far, there from the first validation on), `last.ckpt` to resume from, and logs as CSV
    and for TensorBoard. A run that ends by `max_samples` can be cut off at any moment, even by SIGKILL:
    called again with `resume=True` it goes on from the last checkpoint and, on one kind of CPU, ends with the
    same bits as an undisturbed one.

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
        half: store the weights in half precision.
        sensor: sensor of simulated scenes; default: the benchmark's. A store has its own.
        prior: of simulated scenes; default: the benchmark's.
        progress_bar: show a bar with the time left.
        options: the method's options.

    Returns:
        Where the weights are and how good they are.

    Raises:
        InputError: if an argument is out of range or unknown, or the checkpoint belongs to another training.
    """
    name = canonical_name(method_name)
    if not METHODS[name].trained:
        raise InputError(f"method {name!r} has nothing to train")
    if max_samples is None and max_minutes is None:
        raise InputError("give max_samples or max_minutes, or both")
    for label, value in (
        ("max_samples", max_samples), ("max_minutes", max_minutes), ("learning_rate", learning_rate),
        ("gradient_clip", gradient_clip), ("batch_size", batch_size), ("val_limit", val_limit),
        ("validate_every", validate_every), ("devices", devices), ("num_nodes", num_nodes),
        ("warmup_samples", warmup_samples),
    ):  # fmt: skip
        if value is not None:
            check_positive(label, value)
    check_ratio(ratio)
    source, validation, sensor, prior = open_data(data, sensor, prior, seed, val_limit)
    torch.manual_seed(seed)
    method: GridMethod = create_method(name, sensor=sensor, ratio=ratio, pretrained=False, **dict(options or {}))
    peak = learning_rate or float(getattr(method, "learning_rate", DEFAULT_LEARNING_RATE))
    clip = gradient_clip or getattr(method, "gradient_clip", None)

    world = devices * num_nodes
    step_size = batch_size * world
    total_steps = -1 if max_samples is None else -(-max_samples // step_size)
    steps = max(1, validate_every // EPOCHS_PER_VALIDATION // step_size)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    described = {
        "seed": seed, "data": "simulated" if data is None else Path(data).name, "prior": prior.to_card(),
        "batch_size": step_size, "learning_rate": peak, "schedule": schedule, "ema_decay": ema_decay,
        "constraint_share": constraint_share, "max_samples": max_samples, "machine": describe_machine(),
    }  # fmt: skip
    module = UnmixingModule(
        method, validation, step_size, max_samples, max_minutes, peak, schedule,
        warmup_samples=warmup_samples, decay=decay, ema_decay=ema_decay, constraint_share=constraint_share,
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
    )
    start = keeper.checkpoint if resume and keeper.checkpoint.is_file() else None
    if start is None and keeper.checkpoint.is_file():
        raise InputError(f"{folder} holds an earlier training: resume it (--resume) or choose another folder")
    with _quiet():
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
                CSVLogger(folder, name="csv", version=""),
                TensorBoardLogger(folder, name="tensorboard", version=""),
            ],
            log_every_n_steps=10,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        trainer.fit(module, UnmixingData(source, validation, method.grid, batch_size, steps), ckpt_path=start)
    path = keeper.weights_path(module)
    card = read_card(path)
    return TrainingResult(path, card, module.samples_seen, module.minutes, card["score"]["cso_map"])
