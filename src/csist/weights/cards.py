"""Cards: the metadata of weight files."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from csist._version import package_version
from csist.checks import InputError
from csist.io.cards import check_weight_card, parse_json
from csist.physics.psf import GaussianPSF
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior

if TYPE_CHECKING:
    pass

CARD_VERSION = 1


METADATA_KEY = "csist"


SUFFIX = ".safetensors"


SIGMA_TOLERANCE_PX = 1e-6


def processor() -> str:
    """Return the model name of the CPU."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return model
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)


def describe_machine() -> dict[str, Any]:
    """Return the CPU model, number of torch threads, accelerator and torch version."""
    import torch

    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": processor(),
        "threads": torch.get_num_threads(),
        "accelerator": accelerator,
        "torch": torch.__version__,
    }


def trained_prior(card: Mapping[str, Any]) -> ScenePrior | None:
    """The prior of the scenes that a method was trained on; None where the card does not say."""
    prior = (card.get("training") or {}).get("prior")
    return None if prior is None else ScenePrior.from_card(prior)


def make_card(
    method: str,
    sensor: Sensor,
    ratio: int,
    options: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    score: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Build the card of a weight file.

    Args:
        method: registry name.
        sensor: sensor of the training images.
        ratio: sub-pixel grid ratio.
        options: options with which the method was built.
        training: seed, samples, minutes and so on.
        score: CSO-mAP with its interval, and the data it was measured on.
    """
    return {
        "card_version": CARD_VERSION,
        "csist_version": package_version(),
        "method": method,
        "options": dict(options or {}),
        "ratio": ratio,
        "sensor": sensor.to_card(),
        "training": dict(training or {}),
        "score": dict(score or {}),
    }


def read_card(path: str | Path) -> dict[str, Any]:
    """Read the card of a weight file.

    Raises:
        InputError: if the file does not exist, is damaged, or holds no card.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no weight file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged or not a safetensors file: {error}") from error
    try:
        card = parse_json(metadata[METADATA_KEY], f"the card of {path}")
    except (KeyError, InputError) as error:
        raise InputError(f"{path} is a safetensors file without a csist card: it was not written by csist") from error
    return check_weight_card(card, f"the card of {path}")


def same_optics(one: Sensor, other: Sensor) -> bool:
    """Return whether weights for one sensor suit another: same PSF and shape; noise and background may differ."""
    if one.shape != other.shape:
        return False
    if isinstance(one.psf, GaussianPSF) and isinstance(other.psf, GaussianPSF):
        return abs(one.psf.sigma_px - other.psf.sigma_px) < SIGMA_TOLERANCE_PX
    return one.psf == other.psf


def describe_optics(sensor: Sensor) -> str:
    """Describe the PSF and shape of a sensor for messages."""
    card = sensor.psf.to_card()
    size = next((f" {key}={value}" for key, value in card.items() if key in ("sigma_px", "radius_px")), "")
    return f"{card['kind']} PSF{size}, {sensor.shape[0]} x {sensor.shape[1]} px"


def check_card(path: str | Path, card: Mapping[str, Any], method: str, sensor: Sensor, ratio: int) -> None:
    """Check that a weight file matches method, sensor and ratio.

    Raises:
        InputError: if it does not; the message states both values.
    """
    if card["method"] != method:
        raise InputError(f"{path} holds weights of {card['method']}, not of {method}")
    if card["ratio"] != ratio:
        raise InputError(f"{path} was trained for ratio {card['ratio']}, got {ratio}: give ratio={card['ratio']}")
    trained = Sensor.from_card(card["sensor"])
    if not same_optics(trained, sensor):
        raise InputError(
            f"{path} was trained for another sensor ({describe_optics(trained)}), got {describe_optics(sensor)}"
        )


def training_budget(card: Mapping[str, Any]) -> dict[str, float]:
    """Return the samples and minutes of training of a card, including the trainings it was started from.

    >>> first = {"samples": 640, "minutes": 2.0}
    >>> training_budget({"training": {"samples": 64, "minutes": 0.5, "start": first}})
    {'samples': 704, 'minutes': 2.5}
    """
    total = {"samples": 0, "minutes": 0.0}
    training = card["training"]
    while isinstance(training, Mapping):
        for key in total:
            total[key] += training.get(key) or 0
        training = training.get("start")
    return total
