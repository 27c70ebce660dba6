"""Pretrained weights by method, sensor and ratio, and methods built from a weight file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csist.checks import InputError, check_names
from csist.grid import SubPixelGrid
from csist.io.cards import check_weight_card, read_json
from csist.methods.table import option_names
from csist.physics.sensor import Sensor
from csist.weights.cards import (
    SUFFIX,
    check_card,
    describe_optics,
    read_card,
    same_optics,
    trained_prior,
    training_budget,
)
from csist.weights.files import PICKLES, load_into, load_state

if TYPE_CHECKING:
    from csist.methods.base import GridMethod

USUAL_SAMPLES = 500_000
"""Number of training samples suggested for a method without a card."""


def begin_from(method: GridMethod, name: str, path: str | Path) -> None:
    """Initialise the parameters of a method from weights of the same method for another ratio.

    Parameters of the same name and shape are copied. Parameters with one column per cell of the map are interpolated to
    the finer or coarser map. Gradient steps are scaled by the ratio of the operators' Lipschitz constants: a step that
    suits a coarse map is too long for a finer one, and every stage would enlarge the error. Buffers and parameters
    without a counterpart are unchanged.

    Args:
        method: method to initialise, modified in place.
        name: registry name of the method.
        path: weight file.

    Raises:
        InputError: if the file is damaged, belongs to another method or sensor, or holds none of the parameters.
    """
    import torch
    from torch.nn import functional

    from csist.methods.operator import SteeringOperator

    card = read_card(path)
    check_card(path, card, name, method.sensor, card["ratio"])
    given = load_state(path)
    old, new = SubPixelGrid(method.grid.shape, card["ratio"]).map_shape, method.grid.map_shape
    shorter = SteeringOperator(method.sensor, card["ratio"]).lipschitz
    shorter /= SteeringOperator(method.sensor, method.ratio).lipschitz
    taken = 0
    with torch.no_grad():
        for key, parameter in method.named_parameters():
            value = given.get(key)
            if value is None:
                continue
            if value.shape[1:] == (old[0] * old[1],) and parameter.shape == (len(value), new[0] * new[1]):
                maps = value.float().view(-1, 1, *old)
                value = functional.interpolate(maps, size=new, mode="bilinear").flatten(1)
            if key.rpartition(".")[2] == "step":
                value = shorter * value
            if value.shape == parameter.shape:
                parameter.copy_(value)
                taken += 1
    if not taken:
        raise InputError(f"{path} holds none of the parameters of {name} for ratio {method.ratio}")


def weights_folder() -> Path:
    """Return the folder of the package's own weights."""
    return Path(str(resources.files("csist"))) / "weights"


def list_pretrained(folder: str | Path | None = None) -> list[tuple[Path, dict[str, Any]]]:
    """Return (weight file, card) of all weights in a folder, by default the package's, in order of name."""
    return [(path, card) for path, card in _cards(folder) if path.is_file()]


def _cards(folder: str | Path | None) -> list[tuple[Path, dict[str, Any]]]:
    """Return (weight file, card) of every card in a folder; some weight files are too large for the package."""
    found = []
    for path in sorted(Path(folder or weights_folder()).glob("*.json")):
        try:
            card = check_weight_card(read_json(path, "the card"), f"the card {path}")
        except InputError:
            continue
        found.append((path.with_suffix(SUFFIX), card))
    return found


def find_pretrained(name: str, sensor: Sensor, ratio: int, folder: str | Path | None = None) -> Path:
    """Find the weights for a method, PSF, image shape and ratio.

    If there are several, the one with the read noise closest to the sensor's is returned.

    Args:
        name: registry name of the method.
        sensor: sensor of the images.
        ratio: sub-pixel grid ratio.
        folder: folder to search; None for the package's weights.

    Raises:
        InputError: if there are none; the message lists the weights that exist for the method.
    """
    every = [(path, card) for path, card in list_pretrained(folder) if card["method"] == name]
    fitting = [
        (abs(trained.read_noise - sensor.read_noise), path.name, path)
        for path, card in every
        for trained in [Sensor.from_card(card["sensor"])]
        if card["ratio"] == ratio and same_optics(trained, sensor)
    ]
    if fitting:
        return min(fitting)[2]
    have = "; ".join(f"ratio {card['ratio']}, {describe_optics(Sensor.from_card(card['sensor']))}" for _, card in every)
    raise InputError(
        f"no trained weights of {name} for ratio {ratio}, {describe_optics(sensor)} "
        f"({'these exist: ' + have if have else 'none of this method exist'}): train them with "
        f"`csist train {name} --ratio {ratio} --max-samples {_samples_to_train(name, folder)}`, "
        "or build it untrained with pretrained=False"
    )


def _samples_to_train(name: str, folder: str | Path | None) -> int:
    """Return the number of samples to train a method with, that of the longest training among the cards of a folder."""
    budgets = [training_budget(card)["samples"] for _, card in _cards(folder) if card["method"] == name]
    return int(max(budgets, default=USUAL_SAMPLES))


def load_method(
    factory: Callable[..., Any],
    name: str,
    sensor: Sensor | None,
    ratio: int,
    options: Mapping[str, Any],
    path: str | Path | None = None,
) -> Any:
    """Build a method and load its weights.

    Args:
        factory: the method's class.
        name: its registry name.
        sensor: sensor; None for the sensor of the weight file, or the default one if `path` is None.
        ratio: sub-pixel grid ratio.
        options: options of the method; those not given are taken from the weight file.
        path: weight file; None to search the pretrained weights.

    Raises:
        InputError: if there are no such weights, or they do not match.
    """
    from csist.methods.layers import without_start

    if path is None:
        path = find_pretrained(name, sensor or Sensor(), ratio)
    if Path(path).suffix in PICKLES:
        # The file has no card and may lack the linear start: build the method as requested and check the shapes.
        find = getattr(factory, "published_options", None)
        known = {} if find is None else find(load_state(path))
        method = factory(sensor=sensor or Sensor(), ratio=ratio, **{**known, **options})
        load_into(method, path)
        return method
    card = read_card(path)
    trained = Sensor.from_card(card["sensor"])
    check_card(path, card, name, sensor or trained, ratio)
    check_names(f"{path} does not fit: method {name!r}", card["options"], option_names(factory))
    for key, value in options.items():
        if key in card["options"] and card["options"][key] != value:
            raise InputError(f"{path} was trained with {key}={card['options'][key]}, got {value}")
    with without_start():
        method = factory(sensor=sensor or trained, ratio=ratio, **{**card["options"], **options})
    method.suit(trained_prior(card))
    load_into(method, path)
    return method
