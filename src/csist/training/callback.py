"""What happens between the steps of a training: validation, the best weights, checkpoints, the bar."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as lightning_package
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from csist.metrics import bootstrap_interval
from csist.targets import Targets
from csist.training.config import TrainingConfig
from csist.training.module import UnmixingModule
from csist.weights.cards import make_card
from csist.weights.files import save_weights

logger = logging.getLogger("csist.training")

CHECKPOINT = "last.ckpt"
INTERVAL_SEED = 0


@dataclass(frozen=True)
class Reference:
    """What the exact map scores on the validation images.

    Args:
        cso_map: in percent.
        squared_error: mean of a cell, counts^2.
    """

    cso_map: float
    squared_error: float


class TrainingCallback(lightning_package.Callback):
    """Validates, keeps the best weights, writes checkpoints and shows progress.

    Args:
        name: registry name of the method.
        config: settings of the training.
        described: what the card says of the training, besides samples and minutes.
        validation_steps: steps between two validations.
        progress_bar: show a bar with the time left.
        stop_asked: answers whether the run is to end after this step.
    """

    reference: Reference | None = None
    """Of the exact map, where it was asked for."""

    def __init__(
        self,
        name: str,
        config: TrainingConfig,
        described: Mapping[str, Any],
        validation_steps: int,
        *,
        progress_bar: bool = False,
        stop_asked: Callable[[], bool] | None = None,
    ) -> None:
        self.name, self.config, self.described = name, config, described
        self.output = config.folder(name)
        self.validation_steps = validation_steps
        self.stop_asked = stop_asked
        self.bar = _make_bar() if progress_bar else None
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
        """Move the bar; end the run where that is asked for."""
        # Every process must leave at the same step, so one that is asked is enough.
        if self.stop_asked is not None and trainer.strategy.reduce_boolean_decision(self.stop_asked(), all=False):
            trainer.should_stop = True
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
        old = time.monotonic() - self._saved >= 60.0 * self.config.checkpoint_minutes
        # Every process must take part in a save, so the first one decides.
        if trainer.strategy.broadcast(due or old or ends):
            self.save(trainer, pl_module)

    def score(self, trainer: Any, module: UnmixingModule) -> None:
        """Measure CSO-mAP, log it, and keep the weights if they are the best so far."""
        if module.scored_at == trainer.global_step:
            return
        module.scored_at = trainer.global_step
        if trainer.is_global_zero:
            found = module.validate_now()
            score = module.score
            logged = {
                "cso_map": score, "squared_error": module.squared_error,
                "samples": module.samples_seen, "minutes": module.minutes,
            }  # fmt: skip
            if self.reference is not None:
                logged |= {
                    "exact_cso_map": self.reference.cso_map, "exact_squared_error": self.reference.squared_error,
                }  # fmt: skip
            for each in trainer.loggers:
                each.log_metrics(logged, step=trainer.global_step)
            logger.info(
                "%s: %s samples, %.1f min, %.1f samples/s, CSO-mAP %.2f (best %.2f), squared error %.1f%s",
                self.name, f"{module.samples_seen:,}", module.minutes, self._speed(module), score,
                max(score, module.best_score), module.squared_error, self._beside(module),
            )  # fmt: skip
            if score > module.best_score:
                module.best_score = score
                self.export(module, found)
        module.best_score = trainer.strategy.broadcast(module.best_score)

    def _beside(self, module: UnmixingModule) -> str:
        """How far the exact map is, for the log."""
        if self.reference is None:
            return ""
        ratio = module.squared_error / max(self.reference.squared_error, 1e-9)
        return f" ({ratio:.2f} times the exact map's; its CSO-mAP {self.reference.cso_map:.2f})"

    def export(self, module: UnmixingModule, found: list[Targets]) -> None:
        """Write the averaged weights and their card, with the score of what they found in the validation images."""
        interval = bootstrap_interval(found, module.validation.truths(), INTERVAL_SEED, resamples=200)
        card = make_card(
            self.name,
            module.method.sensor,
            module.method.ratio,
            self.config.options,
            {**self.described, "samples": module.samples_seen, "minutes": round(module.minutes, 2)},
            {
                "cso_map": round(interval.value, 3),
                "interval_95": [round(interval.low, 3), round(interval.high, 3)],
                "squared_error": round(module.squared_error, 3),
                "split": "val",
                "images": len(module.validation.images),
            },
        )
        with module.averaged.applied():
            save_weights(self.weights_path(module), module.method, card, self.config.half)

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


def _make_bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(
        *columns, TextColumn("{task.fields[facts]}"), console=console, transient=True, disable=not console.is_terminal
    )
