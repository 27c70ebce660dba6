"""Everything that a training can be told, in one place: Python, the command line and the checks read it from here."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csist.checks import InputError, check_not_negative, check_positive, check_ratio
from csist.methods.table import METHODS, canonical_name

if TYPE_CHECKING:
    from csist.physics.sensor import Sensor
    from csist.scenes import ScenePrior

SCHEDULES = ("stable", "one-cycle")
OPTIMISERS = ("muon", "adam")
CLIPS = ("running", "none")
TARGETS = ("labels", "posterior")


POSITIVE = (
    "max_samples", "max_minutes", "batch_size", "learning_rate", "warmup_samples", "window", "devices", "num_nodes",
    "val_limit", "validate_every",
)  # fmt: skip
SHARES = ("decay", "ema_decay", "constraint_share", "window_share")
"""Above 0, at most 1."""

WORDS = {"optimiser": OPTIMISERS, "schedule": SCHEDULES, "targets": TARGETS}

FLAGS = {
    "output": ("--output", "-o"),
    "options": ("--option",),
    "gradient_clip": ("--clip", "--gradient-clip"),
    "compiled": ("--compile",),
}
"""Spellings on the command line of the fields that have another one than their name."""

SHOWN = {
    "data": "simulated scenes",
    "output": "runs/METHOD",
    "optimiser": "the method's own",
    "learning_rate": "the method's own",
    "gradient_clip": "the method's own",
}
"""What the command line shows for a default that is None."""


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of a training, checked.

    Args:
        data: store (.h5) to train on; without one, new scenes are generated on the fly.
        ratio: sub-pixel grid ratio.
        output: folder of the results, created if missing.
        max_samples: total number of samples over all sessions; the schedule ends there.
        max_minutes: end this session after so many minutes; without max_samples the schedule ends there.
        resume: continue from the checkpoint in the folder, if there is one.
        start: weight file of this method to start from (.safetensors); of one for another ratio, what fits is used.
        options: the method's own options.
        seed: seed of the initial weights, the order of the samples and the simulated scenes.
        batch_size: samples per step and process.
        optimiser: muon (for the kernels between layers; Adam for the rest) or adam.
        learning_rate: peak learning rate; the rate of the Muon kernels is four times this.
        schedule: learning rate schedule: stable (constant, then a linear decay over the last part) or one-cycle.
        warmup_samples: samples over which the learning rate rises; at most a tenth of the training.
        decay: fraction of the training over which the stable schedule decays, at its end.
        gradient_clip: largest norm of the gradient: a number, running (twice its running mean) or none.
        ema_decay: decay per step of the moving average of the weights.
        targets: maps to learn: labels (the true ones) or posterior (their mean given the image, by the continuous
            method, which takes long: see the guide).
        constraint_share: fraction of a batch whose constraint terms are computed.
        window: side in px of windows around the groups to train on first, which costs less. For convolutional methods
            and groups inside one pixel.
        window_share: fraction of the training on windows; the rest uses whole images.
        grow: numbers of stages, rising, such as 2,4,6: the first half of the training is shared by all but the last
            one, and stages are added as the identity.
        compiled: compile the network first, for long runs; needs a C++ compiler.
        devices: processes or accelerators on each machine.
        num_nodes: number of machines.
        strategy: distribution of the work: auto or ddp.
        accelerator: hardware: auto, cpu or gpu.
        precision: number format: 32-true, 16-mixed or bf16-mixed.
        half: store the weights in half precision.
        val_limit: number of validation images.
        validate_every: samples between two validations.
        checkpoint_minutes: shortest time between two checkpoints, in minutes.
        exact_map: also measure the score of the exact map on the validation images, for the log and the figure.
        sensor: sensor of simulated scenes; a store has its own.
        prior: prior of simulated scenes; a store has its own.

    Raises:
        InputError: if a value is out of range or unknown, or no end is given.
    """

    data: str | Path | None = None
    ratio: int = 3
    output: str | Path | None = None
    max_samples: int | None = None
    max_minutes: float | None = None
    resume: bool = False
    start: str | Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    batch_size: int = 64
    optimiser: str | None = None
    learning_rate: float | None = None
    schedule: str = "stable"
    warmup_samples: int = 6_400
    decay: float = 0.2
    gradient_clip: str | float | None = None
    ema_decay: float = 0.999
    targets: str = "labels"
    constraint_share: float = 1.0
    window: int | None = None
    window_share: float = 0.8
    grow: tuple[int, ...] = ()
    compiled: bool = False
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    accelerator: str = "auto"
    precision: str = "32-true"
    half: bool = False
    val_limit: int = 1000
    validate_every: int = 12_800
    checkpoint_minutes: float = 2.0
    exact_map: bool = False
    sensor: Sensor | None = None
    prior: ScenePrior | None = None

    def __post_init__(self) -> None:
        for name in POSITIVE:
            if getattr(self, name) is not None:
                check_positive(name, getattr(self, name))
        for name in SHARES:
            if not 0.0 < getattr(self, name) <= 1.0:
                raise InputError(f"{name} must be above 0 and at most 1, got {getattr(self, name)}")
        for name, words in WORDS.items():
            if getattr(self, name) not in (None, *words):
                raise InputError(f"{name} must be one of {', '.join(words)}, got {getattr(self, name)!r}")
        check_not_negative("checkpoint_minutes", self.checkpoint_minutes)
        check_ratio(self.ratio)
        if self.max_samples is None and self.max_minutes is None:
            raise InputError("give max_samples or max_minutes, or both")
        _check_clip(self.gradient_clip)
        if any(after <= before for before, after in pairwise((0, *self.grow))):
            raise InputError(
                f"grow must be rising numbers of stages such as 2,4,6, got {','.join(map(str, self.grow))}"
            )

    @property
    def world(self) -> int:
        """Processes in all."""
        return self.devices * self.num_nodes

    @property
    def step_size(self) -> int:
        """Samples a step, of all processes."""
        return self.batch_size * self.world

    def folder(self, name: str) -> Path:
        """Folder of the results of the method `name`."""
        return Path("runs") / name if self.output is None else Path(self.output)


def trainable_name(method: str) -> str:
    """The table's spelling of a method that learns.

    Raises:
        InputError: if there is no such method, or it has nothing to train.
    """
    name = canonical_name(method)
    if name not in METHODS or not METHODS[name].trained:
        raise InputError(f"method {name!r} has nothing to train")
    return name


def _check_clip(limit: str | float | None) -> None:
    if isinstance(limit, str):
        if limit not in CLIPS:
            raise InputError(f"gradient_clip must be a number > 0, {' or '.join(CLIPS)}, got {limit!r}")
    elif limit is not None:
        check_positive("gradient_clip", limit)


def descriptions() -> dict[str, str]:
    """What each field of `TrainingConfig` is, from its docstring."""
    text = inspect.getdoc(TrainingConfig) or ""
    arguments = text.partition("Args:\n")[2].partition("\n\n")[0]
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", arguments, re.MULTILINE)
    return {name: " ".join(words.split()) for name, words in found}
