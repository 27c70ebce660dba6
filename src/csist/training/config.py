"""Everything that a training can be told, in one place: Python, the command line and the checks read it from here."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csist.checks import InputError, check_positive, check_ratio

if TYPE_CHECKING:
    from csist.physics.sensor import Sensor
    from csist.scenes import ScenePrior

SCHEDULES = ("stable", "one-cycle")
OPTIMISERS = ("muon", "adam")
CLIPS = ("running", "none")
TARGETS = ("labels", "posterior")


def _setting(default: Any, check: Any = None, flags: tuple[str, ...] = (), shown: str | None = None) -> Any:
    """A field.

    Args:
        default: its default.
        check: "positive", "share" (above 0, at most 1) or the words that are allowed.
        flags: spellings on the command line, where it is not the field's name alone.
        shown: what the command line shows for the default.
    """
    return field(default=default, metadata={"check": check, "flags": flags, "shown": shown})


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of a training, checked.

    Args:
        data: store (.h5) to train on; without one, new scenes are simulated for ever.
        ratio: sub-pixel grid ratio.
        output: folder of the results, made where it is missing.
        max_samples: samples in all, over all sessions; the schedule ends there.
        max_minutes: end this session after so many minutes; without max_samples the schedule ends there.
        resume: go on from the checkpoint in the folder, if there is one.
        start: weight file of this method to begin from (.safetensors); one for another ratio lends what fits.
        options: the method's own options.
        seed: of the weights, the order and the simulated scenes.
        batch_size: samples a step, of one process.
        optimiser: muon (for kernels between layers, Adam for the rest) or adam.
        learning_rate: peak; that of Muon's kernels is four times this.
        schedule: stable (flat, then a linear fall over the last part, decay) or one-cycle.
        warmup_samples: samples over which the learning rate rises; at most a tenth of the training.
        decay: last part of the training, over which the stable schedule falls.
        gradient_clip: largest norm of the gradient: a number, running (twice its running mean) or none.
        ema_decay: of the averaged weights, a step.
        targets: maps to learn: labels (the true ones) or posterior (their mean given the image, by the continuous
            method, which takes long: see the guide).
        constraint_share: part of a batch whose constraint terms are computed.
        window: side in px of windows around the groups to train on first, which costs less. For convolutional methods
            and groups inside one pixel.
        window_share: part of the training on windows; the rest sees whole images.
        grow: numbers of stages, rising, such as 2,4,6: the first half of the training is shared by all but the last
            one, and stages are added as the identity.
        compiled: compile the network first: for long runs, needs a C++ compiler.
        devices: processes or accelerators on each machine.
        num_nodes: machines.
        strategy: how they share the work: auto or ddp.
        accelerator: auto, cpu or gpu.
        precision: number format: 32-true, 16-mixed or bf16-mixed.
        half: store the weights in half precision.
        val_limit: validation images.
        validate_every: samples between two validations.
        checkpoint_minutes: least time between two checkpoints, in minutes.
        exact_map: also measure what the exact map scores on the validation images, for the log and the picture.
        sensor: sensor of simulated scenes; a store has its own.
        prior: of simulated scenes; a store has its own.

    Raises:
        InputError: if a value is out of range or unknown, or no end is given.
    """

    data: str | Path | None = _setting(None, shown="simulated scenes")
    ratio: int = _setting(3)
    output: str | Path | None = _setting(None, flags=("--output", "-o"), shown="runs/METHOD")
    max_samples: int | None = _setting(None, "positive")
    max_minutes: float | None = _setting(None, "positive")
    resume: bool = _setting(False)
    start: str | Path | None = _setting(None)
    options: Mapping[str, Any] = field(default_factory=dict, metadata={"flags": ("--option",)})
    seed: int = _setting(0)
    batch_size: int = _setting(64, "positive")
    optimiser: str | None = _setting(None, OPTIMISERS, shown="the method's own")
    learning_rate: float | None = _setting(None, "positive", shown="the method's own")
    schedule: str = _setting("stable", SCHEDULES)
    warmup_samples: int = _setting(6_400, "positive")
    decay: float = _setting(0.2, "share")
    gradient_clip: str | float | None = _setting(None, flags=("--clip", "--gradient-clip"), shown="the method's own")
    ema_decay: float = _setting(0.999, "share")
    targets: str = _setting("labels", TARGETS)
    constraint_share: float = _setting(1.0, "share")
    window: int | None = _setting(None, "positive")
    window_share: float = _setting(0.8, "share")
    grow: tuple[int, ...] = _setting(())
    compiled: bool = _setting(False, flags=("--compile",))
    devices: int = _setting(1, "positive")
    num_nodes: int = _setting(1, "positive")
    strategy: str = _setting("auto")
    accelerator: str = _setting("auto")
    precision: str = _setting("32-true")
    half: bool = _setting(False)
    val_limit: int = _setting(1000, "positive")
    validate_every: int = _setting(12_800, "positive")
    checkpoint_minutes: float = _setting(2.0)
    exact_map: bool = _setting(False)
    sensor: Sensor | None = _setting(None)
    prior: ScenePrior | None = _setting(None)

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None:
                _check(each.name, value, each.metadata.get("check"))
        check_ratio(self.ratio)
        if self.max_samples is None and self.max_minutes is None:
            raise InputError("give max_samples or max_minutes, or both")
        _check_clip(self.gradient_clip)
        if self.grow and (self.grow[0] < 1 or any(b <= a for a, b in zip(self.grow, self.grow[1:], strict=False))):
            raise InputError(f"grow must be rising numbers of stages such as 2,4,6, got {','.join(map(str, self.grow))}")

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


def _check(name: str, value: Any, check: Any) -> None:
    if check == "positive":
        check_positive(name, value)
    elif check == "share":
        if not 0.0 < value <= 1.0:
            raise InputError(f"{name} must be above 0 and at most 1, got {value}")
    elif check is not None and value not in check:
        raise InputError(f"{name} must be one of {', '.join(check)}, got {value!r}")


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
