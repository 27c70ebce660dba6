"""The training loop's steps: published loss, learning rate by samples seen, averaged weights, CSO-mAP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import lightning as lightning_package
import numpy as np
import torch
from torch import Tensor, nn

from csist.checks import InputError
from csist.methods.base import GridMethod
from csist.methods.crop import Crop, Cropper
from csist.methods.layers import UnfoldedMethod
from csist.metrics import cso_map
from csist.targets import Targets
from csist.training.compiled import compile_for_training
from csist.training.datamodule import Labelled

SCHEDULES = ("stable", "one-cycle")
FINAL_SHARE = 0.01
"""Learning rate at the end, as a share of the peak."""


def published_loss(
    method: GridMethod, image: Tensor, truth: Tensor, share: float = 1.0, crop: Crop | None = None
) -> tuple[Tensor, Tensor]:
    """(discrepancy, constraint) in counts^2; their sum is minimised.

    mean (s_N - s)^2 and 0.01 sum_k mean (F~(F(r_k)) - r_k)^2; a method without residuals has constraint 0.

    Args:
        method: grid method.
        image: (B, 1, H, W) in counts.
        truth: true maps (B, 1, cH, cW) in counts.
        share: part of the batch whose residuals are computed.
        crop: where given, the loss is that of these windows: the mean over the whole map, were all else zero.

    Source: Zhang & Ghanem, ISTA-Net, CVPR 2018, eq. 11-12.
    """
    part = 1.0
    if crop is not None:
        cells = truth.shape[2:].numel()
        truth = crop.map(truth)
        part = truth.shape[2:].numel() / cells
    if not isinstance(method, UnfoldedMethod):
        found = method(image if crop is None else crop.image(image))
        return part * ((found - truth) ** 2).mean(), image.new_zeros(())
    found, residuals = method.forward_with_residuals(image, share, crop)
    constraint = sum(((residual**2).mean() for residual in residuals), image.new_zeros(()))
    return part * ((found - truth) ** 2).mean(), part * method.constraint_weight * constraint


def learning_rate_share(progress: float, warmup: float, decay: float, schedule: str) -> float:
    """Learning rate as a share of its peak after the part `progress` (0 to 1) of the training.

    Both start with a linear rise over `warmup`. "stable" then stays at the peak and falls linearly over the
    last part `decay`: a run can be ended early by giving it a smaller total, and goes on from where it is if
    the total grows before the fall began. "one-cycle" falls with a half cosine from the warmup on.
    """
    if progress < warmup:
        return max(progress / warmup, 1e-3)
    if schedule == "one-cycle":
        done = min((progress - warmup) / (1.0 - warmup), 1.0)
        return FINAL_SHARE + (1.0 - FINAL_SHARE) * 0.5 * (1.0 + float(np.cos(np.pi * done)))
    left = max(1.0 - progress, 0.0)
    return max(min(left / decay, 1.0), FINAL_SHARE)


class AveragedWeights:
    """Exponential moving average of the parameters, warmed up so that early weights are forgotten.

    After update n the decay is min(`decay`, (1 + n) / (10 + n)).

    Args:
        module: whose parameters are averaged.
        decay: share of the old average that is kept at each update.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.parameters = list(module.parameters())
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters as they are now."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self._to_device()
        torch._foreach_lerp_(self.average, list(self.parameters), 1.0 - decay)

    def _to_device(self) -> None:
        if self.average and self.average[0].device != self.parameters[0].device:
            self.average = [average.to(self.parameters[0].device) for average in self.average]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The averages stand in for the parameters inside this context."""
        self._to_device()
        kept = [parameter.detach().clone() for parameter in self.parameters]
        with torch.no_grad():
            for parameter, average in zip(self.parameters, self.average, strict=True):
                parameter.copy_(average)
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, old in zip(self.parameters, kept, strict=True):
                    parameter.copy_(old)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs."""
        return {"average": self.average, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.updates = state["updates"]
        for average, saved in zip(self.average, state["average"], strict=True):
            average.copy_(saved)


class UnmixingModule(lightning_package.LightningModule):
    """A grid method with its loss, optimiser, schedule and averaged weights.

    Args:
        method: grid method to train.
        validation: images whose CSO-mAP decides which weights are kept.
        batch_size: samples a step over all processes.
        max_samples: samples after which the schedule ends; None ties it to `max_minutes`.
        max_minutes: duration of this run.
        learning_rate: peak of the schedule.
        schedule: "stable" or "one-cycle".
        warmup_samples: samples over which the learning rate rises; at most a tenth of the training.
        decay: part of the training over which the "stable" schedule falls.
        ema_decay: of the averaged weights.
        constraint_share: part of a batch whose constraint residuals are computed.
        window: side in px of the windows around the groups that the first part of the training sees; None: it
            sees whole images all the time.
        window_share: that first part.
        compiled: compile the method before the first step.

    Raises:
        InputError: if a value is out of range.
    """

    def __init__(
        self,
        method: GridMethod,
        validation: Labelled,
        batch_size: int,
        max_samples: int | None,
        max_minutes: float | None,
        learning_rate: float,
        schedule: str = "stable",
        warmup_samples: int = 6_400,
        decay: float = 0.2,
        ema_decay: float = 0.999,
        constraint_share: float = 1.0,
        window: int | None = None,
        window_share: float = 0.8,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        if schedule not in SCHEDULES:
            raise InputError(f"schedule must be one of {', '.join(SCHEDULES)}, got {schedule!r}")
        for name, value in (
            ("decay", decay),
            ("ema_decay", ema_decay),
            ("constraint_share", constraint_share),
            ("window_share", window_share),
        ):
            if not 0.0 < value <= 1.0:
                raise InputError(f"{name} must be above 0 and at most 1, got {value}")
        self.method = method
        self.validation = validation
        self.batch_size = batch_size
        self.max_samples, self.max_minutes = max_samples, max_minutes
        self.learning_rate, self.schedule, self.decay = learning_rate, schedule, decay
        self.warmup_samples = warmup_samples
        self.constraint_share = constraint_share
        self.cropper = None if window is None else Cropper(method.sensor, method.ratio, window)
        self.window_share = window_share
        self.compiled = compiled
        self.averaged = AveragedWeights(method, ema_decay)
        self.best_score = -np.inf
        self.score = float("nan")
        self.scored_at = 0
        self.minutes_before = 0.0
        self._began = time.monotonic()
        self._random_state: Tensor | None = None

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
        if self.max_samples is not None:
            return self.samples_seen / self.max_samples
        return min(self.minutes_now / (self.max_minutes or np.inf), 1.0)

    def _warmup(self) -> float:
        total = self.max_samples if self.max_samples is not None else self.samples_seen / max(self.progress, 1e-6)
        return min(self.warmup_samples / max(total, 1.0), 0.1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam on every parameter."""
        return torch.optim.Adam(self.method.parameters(), lr=self.learning_rate)

    def setup(self, stage: str) -> None:
        """Compile, in each process by itself: what is compiled cannot be sent to another one."""
        if self.compiled:
            compile_for_training(self.method)

    def on_train_start(self) -> None:
        """Start the clock, and put back the random state of a resumed run."""
        self._began = time.monotonic()
        if self._random_state is not None:
            torch.set_rng_state(self._random_state.cpu())

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the learning rate: a function of the progress alone, so that nothing has to be remembered."""
        optimizer: Any = self.optimizers()
        share = learning_rate_share(self.progress, self._warmup(), self.decay, self.schedule)
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate * share

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The published loss of one batch, in counts^2."""
        image, truth = batch
        crop = None
        if self.cropper is not None and self.progress < self.window_share:
            crop = self.cropper(truth)
        discrepancy, constraint = published_loss(self.method, image, truth, self.constraint_share, crop)
        self.log("discrepancy", discrepancy.detach())
        self.log("constraint", constraint.detach())
        return discrepancy + constraint

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the learning rate and the gradient's norm."""
        norms = [p.grad.norm() for p in self.method.parameters() if p.grad is not None]
        self.log("gradient_norm", torch.stack(norms).norm())
        self.log("learning_rate", optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Average the weights; stop when the time is up."""
        self.averaged.update()
        if self.max_minutes is not None and self.minutes_now >= self.max_minutes:
            self.trainer.should_stop = True

    def validate_now(self) -> list[Targets]:
        """What the averaged weights find in the validation images; their CSO-mAP in percent becomes `score`."""
        # Batches of validation have other sizes, each of which would be compiled anew.
        as_written = torch.compiler.set_stance("force_eager") if self.compiled else nullcontext()
        with self.averaged.applied(), as_written:
            found = self.method.predict(np.asarray(self.validation.images, dtype=np.float64))
        self.score = float(cso_map(found, self.validation.truths())["CSO-mAP"])
        return found

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a resumed run needs to go on as if nothing had happened."""
        checkpoint["csist"] = {
            "averaged": self.averaged.state_dict(),
            "best_score": self.best_score,
            "score": self.score,
            "scored_at": self.scored_at,
            "minutes": self.minutes,
            "random_state": torch.get_rng_state(),
            "batch_size": self.batch_size,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            InputError: if it was made with another batch size, so that the samples seen would not agree, or of
                another method or other options.
        """
        saved = checkpoint["csist"]
        theirs, ours = (
            {key: value.shape for key, value in state.items()}
            for state in (checkpoint["state_dict"], self.state_dict())
        )
        if theirs != ours:
            raise InputError("this run was begun with another method, ratio or other options: resume it with its own")
        if saved["batch_size"] != self.batch_size:
            raise InputError(f"this run was begun with batches of {saved['batch_size']} samples, got {self.batch_size}")
        self.averaged.load_state_dict(saved["averaged"])
        self.best_score, self.score = saved["best_score"], saved["score"]
        self.scored_at = saved["scored_at"]
        self.minutes_before = saved["minutes"]
        self._random_state = saved["random_state"]
