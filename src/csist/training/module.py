"""The training's steps: loss, optimiser, learning rate by samples seen, averaged weights, CSO-mAP."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning as lightning_package
import numpy as np
import torch
from torch import Tensor

from csist.checks import InputError
from csist.methods.base import GridMethod
from csist.methods.crop import Cropper
from csist.methods.layers import StagedMethod
from csist.metrics import cso_map
from csist.targets import Targets
from csist.training.average import AveragedWeights
from csist.training.compiled import compile_for_training
from csist.training.config import TrainingConfig
from csist.training.datamodule import Labelled
from csist.training.optimisers import GradientClip, make_optimiser
from csist.training.schedule import learning_rate_share, stages_at

RECORD = "csist"
"""Key of what this module adds to a checkpoint."""


class UnmixingModule(lightning_package.LightningModule):
    """A grid method with its loss, optimiser, schedule and averaged weights.

    Args:
        method: grid method to train.
        validation: images whose CSO-mAP decides which weights are kept.
        config: settings; those that are left to the method are its own.

    Raises:
        InputError: if a setting does not fit the method.
    """

    def __init__(self, method: GridMethod, validation: Labelled, config: TrainingConfig) -> None:
        super().__init__()
        self.method = method
        self.validation = validation
        self.config = config
        self.peak = config.learning_rate or method.learning_rate
        self.optimiser_name = config.optimiser or method.optimiser
        self.clip = GradientClip(method.gradient_clip if config.gradient_clip is None else config.gradient_clip)
        self.cropper = None if config.window is None else Cropper(method.sensor, method.ratio, config.window)
        if config.grow:
            self._begin_small(method)
        make_optimiser(self.optimiser_name, method.parameters(), self.peak)  # what it cannot do is said now
        self.averaged = AveragedWeights(method, config.ema_decay)
        self.true_maps = validation.maps(method.grid)
        self.best_score = -np.inf
        self.score = self.squared_error = float("nan")
        self.scored_at = 0
        self.minutes_before = 0.0
        self._began = time.monotonic()
        self._random_state: Tensor | None = None

    def _begin_small(self, method: GridMethod) -> None:
        if not isinstance(method, StagedMethod):
            raise InputError(f"{type(method).__name__} cannot grow: leave grow out (--grow)")
        if self.config.grow[-1] != len(method.stages):
            raise InputError(
                f"grow must end with the {len(method.stages)} stages of the network, got {self.config.grow[-1]}"
            )
        if self.config.world > 1:
            raise InputError(f"grow works in one process, got {self.config.world}: leave it out (--grow)")
        method.hold_back(self.config.grow[0])
        method.active_stages = self.config.grow[0]

    @property
    def batch_size(self) -> int:
        """Samples a step, of all processes."""
        return self.config.step_size

    @property
    def samples_seen(self) -> int:
        """Samples of all processes and sessions up to now."""
        return self.trainer.global_step * self.batch_size

    @property
    def minutes(self) -> float:
        """Training time in minutes, all sessions together."""
        return self.minutes_before + self.minutes_now

    @property
    def minutes_now(self) -> float:
        """Minutes of this session."""
        return (time.monotonic() - self._began) / 60.0

    @property
    def progress(self) -> float:
        """Part of the training that is done, 0 to 1."""
        if self.config.max_samples is not None:
            return self.samples_seen / self.config.max_samples
        return min(self.minutes_now / (self.config.max_minutes or np.inf), 1.0)

    def _warmup(self) -> float:
        total = self.config.max_samples
        samples = self.samples_seen / max(self.progress, 1e-6) if total is None else float(total)
        return min(self.config.warmup_samples / max(samples, 1.0), 0.1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The chosen optimiser on every parameter."""
        return make_optimiser(self.optimiser_name, self.method.parameters(), self.peak)

    def setup(self, stage: str) -> None:
        """Compile, in each process by itself: what is compiled cannot be sent to another one."""
        if self.config.compiled:
            compile_for_training(self.method)

    def on_train_start(self) -> None:
        """Start the clock, and put back the random state of a resumed run."""
        self._began = time.monotonic()
        if self._random_state is not None:
            torch.set_rng_state(self._random_state.cpu())

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set learning rate and stages: functions of the progress alone, so that nothing has to be remembered."""
        optimizer: Any = self.optimizers()
        share = learning_rate_share(self.progress, self._warmup(), self.config.decay, self.config.schedule)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share
        if self.config.grow and isinstance(self.method, StagedMethod):
            self.method.active_stages = stages_at(self.progress, self.config.grow)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of one batch, in counts^2."""
        image, truth = batch
        crop = None
        if self.cropper is not None and self.progress < self.config.window_share:
            crop = self.cropper(truth)
        discrepancy, constraint = self.method.loss_terms(image, truth, self.config.constraint_share, crop)
        self.log("discrepancy", discrepancy.detach())
        self.log("constraint", constraint.detach())
        return discrepancy + constraint

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient; log its norm before that and the learning rate (Adam's, where there are two)."""
        gradients = [p.grad for p in self.method.parameters() if p.grad is not None]
        self.log("gradient_norm", self.clip(gradients))
        self.log("learning_rate", optimizer.param_groups[-1]["lr"])

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Average the weights; stop when the time is up."""
        self.averaged.update()
        if self.config.max_minutes is not None and self.minutes_now >= self.config.max_minutes:
            self.trainer.should_stop = True

    def validate_now(self) -> list[Targets]:
        """What the averaged weights find in the validation images.

        CSO-mAP in percent becomes `score`, the mean squared error of a cell in counts^2 `squared_error`.

        Raises:
            InputError: if the maps are not finite.
        """
        images = np.asarray(self.validation.images, dtype=np.float64)
        # Batches of validation have other sizes, each of which would be compiled anew.
        as_written = torch.compiler.set_stance("force_eager") if self.config.compiled else nullcontext()
        with self.averaged.applied(), as_written:
            maps = self.method.predict_maps(images)
        found = self.method.read(images, maps)
        self.score = float(cso_map(found, self.validation.truths())["CSO-mAP"])
        self.squared_error = float(((maps - self.true_maps) ** 2).mean())
        if not np.isfinite(self.squared_error):
            raise InputError(
                f"the training diverged: after {self.samples_seen} samples the maps are not finite; lower the "
                f"learning rate, now {self.peak:g} (--learning-rate)"
            )
        return found

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a resumed run needs to go on as if nothing had happened."""
        checkpoint[RECORD] = {
            "averaged": self.averaged.state_dict(),
            "clip": self.clip.state_dict(),
            "best_score": float(self.best_score),
            "score": self.score,
            "scored_at": self.scored_at,
            "minutes": self.minutes,
            "random_state": torch.get_rng_state(),
            "batch_size": self.batch_size,
            "optimiser": self.optimiser_name,
            "samples_of": self.samples_of,
        }

    @property
    def samples_of(self) -> dict[str, Any]:
        """What the samples are drawn from, which a resumed run has to go on with."""
        config, sensor = self.config, self.method.sensor
        return {
            "data": None if config.data is None else Path(config.data).name, "seed": config.seed,
            "targets": config.targets, "sensor": json.dumps(sensor.to_card(), sort_keys=True),
        }  # fmt: skip

    def check_resumable(self, checkpoint: dict[str, Any]) -> None:
        """Check that a run can go on from a checkpoint.

        Raises:
            InputError: if it was made with another batch size, so that the samples seen would not agree, with another
                optimiser, of another method, with other options or of other data.
        """
        saved = checkpoint[RECORD]
        theirs, ours = (
            {key: value.shape for key, value in state.items()}
            for state in (checkpoint["state_dict"], self.state_dict())
        )
        if theirs != ours:
            raise InputError("this run was begun with another method, ratio or other options: resume it with its own")
        if saved["batch_size"] != self.batch_size:
            raise InputError(f"this run was begun with batches of {saved['batch_size']} samples, got {self.batch_size}")
        if saved["optimiser"] != self.optimiser_name:
            raise InputError(
                f"this run was begun with optimiser {saved['optimiser']}, got {self.optimiser_name}: resume it with "
                f"--optimiser {saved['optimiser']}"
            )
        for name, begun in saved.get("samples_of", {}).items():  # earlier versions did not store it
            if begun != self.samples_of[name]:
                raise InputError(
                    f"this run was begun with {name} {begun}, got {self.samples_of[name]}: resume it with its own, or "
                    "choose another folder"
                )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from a checkpoint that `check_resumable` found fit."""
        saved = checkpoint[RECORD]
        self.averaged.load_state_dict(saved["averaged"])
        self.clip.load_state_dict(saved["clip"])
        self.best_score, self.score = saved["best_score"], saved["score"]
        self.scored_at = saved["scored_at"]
        self.minutes_before = saved["minutes"]
        self._random_state = saved["random_state"]
