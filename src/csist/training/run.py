"""`train`: from a method's name to a weight file, in one call that can be cut off and repeated."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as lightning_package
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from csist.checks import InputError
from csist.create import create_method
from csist.files import one_line
from csist.methods.base import GridMethod
from csist.methods.exact_map import check_has_exact_map
from csist.training import logs
from csist.training.callback import TrainingCallback
from csist.training.compiled import check_compiler
from csist.training.config import TrainingConfig, trainable_name
from csist.training.datamodule import LabelMaps, MapSource, OpenData, UnmixingData, open_data
from csist.training.module import UnmixingModule
from csist.training.posterior import PosteriorMaps, measure_exact_map
from csist.weights.cards import describe_machine, read_card
from csist.weights.pretrained import begin_from

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


def train(
    method: str,
    config: TrainingConfig,
    *,
    progress_bar: bool = False,
    stop_asked: Callable[[], bool] | None = None,
) -> TrainingResult:
    """Train a grid method and write its weights.

    The folder `config.output` gets the weight file NAME-cRATIO.safetensors with its card (the averaged weights with
    the best CSO-mAP so far, there from the first validation on), `last.ckpt` to resume from, and logs as CSV
    and for TensorBoard. A run that ends by `max_samples` can be cut off at any moment, even by SIGKILL:
    called again with `resume=True` it goes on from the last checkpoint and, on one kind of CPU and compiled in all
    sessions or in none, ends with the same bits as an undisturbed one.

    Args:
        method: a trained method of `csist.list_methods`.
        config: settings.
        progress_bar: show a bar with the time left on standard error, where that is a terminal.
        stop_asked: asked after each step; once it answers True the run ends as if its time were up, with a
            checkpoint.

    Returns:
        Where the weights are and how good they are.

    Raises:
        InputError: if a setting does not fit the method, or the checkpoint belongs to another training.
    """
    name = trainable_name(method)
    config = replace(config, options=_options(config))
    data = open_data(config)
    if config.window is not None and not data.prior.single_pixel:
        raise InputError("window needs groups inside one pixel (single_pixel of the prior): leave it out")
    if config.exact_map or config.targets == "posterior":
        check_has_exact_map(data.prior)
    torch.manual_seed(config.seed)
    network = _build(name, config, data)
    source = _source(config, data, network)
    module = UnmixingModule(network, data.validation, config)
    steps = max(1, config.validate_every // EPOCHS_PER_VALIDATION // config.step_size)
    callback = TrainingCallback(
        name, config, _describe(config, data, module), EPOCHS_PER_VALIDATION * steps,
        progress_bar=progress_bar, stop_asked=stop_asked,
    )  # fmt: skip
    resumed = _find_checkpoint(callback.checkpoint, config.resume, module)
    if config.compiled:
        check_compiler()
    with _quiet():
        trainer = _make_trainer(config, callback, resumed is not None)
        try:
            callback.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write {callback.output}: {error.strerror}") from error
        if config.exact_map and trainer.is_global_zero:
            callback.reference = measure_exact_map(data, network.grid, callback.output)
        trainer.fit(module, UnmixingData(source, config.batch_size, steps), ckpt_path=resumed)
    path = callback.weights_path(module)
    card = read_card(path)
    score = card["score"]["cso_map"]
    return TrainingResult(path, card, module.samples_seen, module.minutes, score, trainer.is_global_zero)


def _options(config: TrainingConfig) -> dict[str, Any]:
    """The method's own options: those of the weights to start from, and what is given beside them."""
    card = None if config.start is None else read_card(config.start)
    return {**(card["options"] if card is not None and card["ratio"] == config.ratio else {}), **config.options}


def _build(name: str, config: TrainingConfig, data: OpenData) -> GridMethod:
    """The network with its weights before training."""
    options = dict(config.options)
    other_ratio = config.start is not None and read_card(config.start)["ratio"] != config.ratio
    given = False if config.start is None or other_ratio else Path(config.start)
    try:
        network: GridMethod = create_method(name, data.sensor, config.ratio, given, **options)
    except (TypeError, RuntimeError) as error:
        raise InputError(f"cannot build {name} with the options {options}: {one_line(error)}") from error
    if config.start is not None and other_ratio:
        begin_from(network, name, config.start)
    if next(network.parameters(), None) is None:
        raise InputError(f"{name} with the options {options} has nothing to train")
    network.suit(data.prior)
    return network


def _source(config: TrainingConfig, data: OpenData, network: GridMethod) -> MapSource:
    """Training images and the maps to learn."""
    if config.targets == "posterior":
        return PosteriorMaps(data, network.grid)
    return LabelMaps(data.source, network.grid)


def _describe(config: TrainingConfig, data: OpenData, module: UnmixingModule) -> dict[str, Any]:
    """What the card says of the training, besides samples and minutes."""
    start = None
    if config.start is not None:
        start = {"weights": Path(config.start).name, **read_card(config.start)["training"]}
    return {
        "seed": config.seed, "data": "simulated" if config.data is None else Path(config.data).name,
        "prior": data.prior.to_card(), "batch_size": config.step_size, "optimiser": module.optimiser_name,
        "learning_rate": module.peak, "gradient_clip": module.clip.limit, "schedule": config.schedule,
        "decay": config.decay, "ema_decay": config.ema_decay, "targets": config.targets,
        "constraint_share": config.constraint_share, "window": config.window,
        "window_share": None if config.window is None else config.window_share, "grow": list(config.grow),
        "compiled": config.compiled, "max_samples": config.max_samples, "start": start, "machine": describe_machine(),
    }  # fmt: skip


def _find_checkpoint(path: Path, resume: bool, module: UnmixingModule) -> Path | None:
    """The checkpoint to go on from, checked; None for a new training.

    Raises:
        InputError: if the folder holds a training that is not to be resumed, or one that does not fit.
    """
    if not path.is_file():
        return None
    if not resume:
        raise InputError(f"{path.parent} holds an earlier training: resume it (--resume) or choose another folder")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        module.check_resumable(checkpoint)
    except InputError:
        raise
    except Exception as error:  # a damaged pickle can raise almost anything
        reason = f"it lacks {error}" if isinstance(error, KeyError) else one_line(error)[:200]
        raise InputError(
            f"{path} is damaged or no checkpoint of this version of csist ({reason}): choose another folder"
        ) from error
    return path


def _make_trainer(config: TrainingConfig, callback: TrainingCallback, resumed: bool) -> Any:
    folder = callback.output
    total_steps = -1 if config.max_samples is None else -(-config.max_samples // config.step_size)
    try:
        return lightning_package.Trainer(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.num_nodes,
            strategy=config.strategy,
            precision=config.precision,  # type: ignore[arg-type]
            max_steps=total_steps,
            max_epochs=-1,
            callbacks=[callback],
            logger=[
                CSVLogger(folder, name=logs.FOLDER, version=logs.next_session(folder, resumed)),
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
        chosen = (
            f"accelerator {config.accelerator}, devices {config.devices}, strategy {config.strategy}, "
            f"precision {config.precision}"
        )
        raise InputError(f"cannot train with {chosen}: {one_line(error)}") from error


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
