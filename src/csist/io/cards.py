"""The cards that describe sensors, priors, motions and weights: JSON from outside, checked field by field.

The models here are the only check of what a file says; from them comes the JSON schema of the documentation, too. What
a value means (a gain > 0, an order of bounds) is checked by the class that it describes, with the same message.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from csist.checks import InputError
from csist.files import one_line, reading
from csist.physics.psf import KINDS, FieldPSF, SampledPSF
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior
from csist.trajectories import MotionPrior

Built = TypeVar("Built")

MOST_BYTES = 2**26
"""Size of a card; that of a measured PSF is the largest."""
MOST_SIDE_PX, MOST_PSF_PX = 2**15, 250.0
"""Bounds of an image's side and of a PSF's width: beyond them a card would ask for more memory than there is."""

Side = Annotated[int, Field(ge=1, le=MOST_SIDE_PX)]
Pair = Annotated[list[float], Field(min_length=2, max_length=2)]


MOST_NODES = 100
"""Nodes along an axis that a PSF varying over the field may have."""


class Card(BaseModel):
    """What all cards have in common: no further fields, numbers that are numbers, and finite ones."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)


class SampledPSFCard(Card):
    """Card of a measured PSF: base64 of little-endian float32, row by row."""

    kind: Literal["sampled"]
    oversampling: Annotated[int, Field(ge=1, le=100)]
    shape: Annotated[list[Side], Field(min_length=2, max_length=2)]
    float32: str


class FieldPSFCard(Card):
    """Card of a PSF that varies over the field: its nodes row by row, at the columns x and the rows y."""

    kind: Literal["field"]
    x: Annotated[list[float], Field(min_length=1, max_length=MOST_NODES)]
    y: Annotated[list[float], Field(min_length=1, max_length=MOST_NODES)]
    nodes: Annotated[list[SampledPSFCard], Field(min_length=1, max_length=MOST_NODES**2)]


def _psf_card(kind: str) -> type[BaseModel]:
    """The card of a kind of PSF that is told by numbers."""
    number = Annotated[float, Field(ge=-1000.0, le=1000.0)]
    width = Annotated[float, Field(gt=0.0, le=MOST_PSF_PX)]
    numbers: dict[str, Any] = {
        each.name: (width if each.name.endswith("_px") else number, ...) for each in fields(KINDS[kind])
    }
    described: dict[str, Any] = {"kind": (Literal[kind], ...), **numbers}
    return create_model(f"{KINDS[kind].__name__}Card", __base__=Card, **described)


class ScenePriorCard(Card):
    """Card of a scene prior; a field that is left out takes its default."""

    count_range: Annotated[list[Annotated[int, Field(ge=0, le=1000)]], Field(min_length=2, max_length=2)] = [1, 10]
    intensity_range: Pair | None = None
    snr_range: Pair = [4.0, 1e5]
    intensity_law: Literal["uniform", "log-uniform"] = "log-uniform"
    min_separation_px: Annotated[float, Field(ge=0.0, le=MOST_SIDE_PX)] = 0.1
    single_pixel: bool = False


class MotionPriorCard(Card):
    """Card of a law of motion; a field that is left out takes its default."""

    start: ScenePriorCard | None = None
    frames: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    group_speed_px: Annotated[float, Field(ge=0.0, le=MOST_SIDE_PX)] | None = None
    own_speed_px: Annotated[float, Field(ge=0.0, le=MOST_SIDE_PX)] | None = None
    scintillation: Annotated[float, Field(ge=0.0, le=100.0)] | None = None
    inner_side_px: Annotated[float, Field(gt=0.0, le=MOST_SIDE_PX)] | None = None


@lru_cache(maxsize=1)
def sensor_card() -> type[BaseModel]:
    """The model of a sensor card; a field that is left out takes its default."""
    tables: dict[str, type[BaseModel]] = {SampledPSF.kind: SampledPSFCard, FieldPSF.kind: FieldPSFCard}
    kinds = [tables.get(kind) or _psf_card(kind) for kind in KINDS]
    union: Any = kinds[0]
    for kind in kinds[1:]:
        union = union | kind
    described: dict[str, Any] = {
        "psf": (Annotated[union, Field(discriminator="kind")] | None, None),
        "shape": (Annotated[list[Side], Field(min_length=2, max_length=2)] | None, None),
        "background": (float, 0.0),
        "read_noise": (Annotated[float, Field(ge=0.0)], 0.0),
        "gain": (Annotated[float, Field(gt=0.0)] | None, None),
        "quantised": (bool, True),
        "bits": (Annotated[int, Field(ge=1, le=32)] | None, None),
        "saturation": (Annotated[float, Field(gt=0.0)] | None, None),
    }
    return create_model("SensorCard", __base__=Card, **described)


@lru_cache(maxsize=1)
def weight_card() -> type[BaseModel]:
    """The model of a weight file's card; later versions may add fields."""
    described: dict[str, Any] = {
        "method": (Annotated[str, Field(max_length=100)], ...),
        "ratio": (Annotated[int, Field(ge=1, le=64)], ...),
        "sensor": (sensor_card(), ...),
        "options": (dict[str, Any], ...),
        "training": (dict[str, Any], {}),
        "score": (dict[str, Any], {}),
    }
    return create_model("WeightCard", __base__=Card, **described)


def card_schemas() -> dict[str, dict[str, Any]]:
    """The JSON schema of every card, by what it describes."""
    return {
        "sensor": sensor_card().model_json_schema(),
        "prior": ScenePriorCard.model_json_schema(),
        "motion": MotionPriorCard.model_json_schema(),
        "weights": weight_card().model_json_schema(),
    }


def parse_json(text: str | bytes, where: str) -> Any:
    """The value of a JSON text.

    Raises:
        InputError: if it is none, or too long or too deep.
    """
    if len(text) > MOST_BYTES:
        raise InputError(f"cannot use {where}: it has {len(text)} bytes, a card has at most {MOST_BYTES}")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise InputError(f"cannot use {where}: it is nested too deeply") from error
    except ValueError as error:
        raise InputError(f"cannot use {where}: it is not JSON ({one_line(error)[:80]})") from error


def read_json(path: str | Path, what: str) -> Any:
    """The value of a JSON file; `what` it is, for the message.

    Raises:
        InputError: if the file cannot be read or is no JSON.
    """
    path = Path(path)
    with reading(path):
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"cannot use {what} {path}: it has {path.stat().st_size} bytes, a card has few")
        text = path.read_bytes()
    return parse_json(text, f"{what} {path}")


def _checked(model: type[BaseModel], card: Any, where: str) -> None:
    """Check a card against its model.

    Raises:
        InputError: if a field is missing, unknown or has a wrong value; the message names it.
    """
    try:
        model.model_validate(card)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "it"
        got = "" if first["type"] in ("missing", "extra_forbidden") else f", got {_short(first['input'])}"
        said = f"{place[:80]}: {first['msg'][:120]}{got}"
        if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
            said = f"it may hold {', '.join(model.model_fields)}; got {place[:80]}"
        raise InputError(f"cannot use {where}: {one_line(ValueError(said))}") from error
    except RecursionError as error:
        raise InputError(f"cannot use {where}: it is nested too deeply") from error


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # also an integer with too many digits to be written
        return type(value).__name__
    return text if len(text) <= 40 else f"{text[:37]}..."


def _built(make: Callable[[Any], Built], model: type[BaseModel], card: Any, where: str) -> Built:
    """What a card describes, checked."""
    _checked(model, card, where)
    try:
        return make(card)
    except InputError as error:
        raise InputError(f"cannot use {where}: {error}") from error
    except (TypeError, ValueError, ArithmeticError, MemoryError) as error:
        raise InputError(f"cannot use {where}: {one_line(error)[:120]}") from error


def sensor_of_card(card: Any, where: str = "the sensor card") -> Sensor:
    """The sensor that a card from outside describes.

    Args:
        card: a JSON value.
        where: what it is, for the message.

    Raises:
        InputError: if a field is unknown or has a wrong value.
    """
    return _built(Sensor.from_card, sensor_card(), card, where)


def prior_of_card(card: Any, where: str = "the prior card") -> ScenePrior:
    """The scene prior that a card from outside describes.

    Raises:
        InputError: if a field is unknown or has a wrong value.
    """
    return _built(ScenePrior.from_card, ScenePriorCard, card, where)


def motion_of_card(card: Any, where: str = "the motion card") -> MotionPrior:
    """The law of motion that a card from outside describes.

    Raises:
        InputError: if a field is unknown or has a wrong value.
    """
    return _built(MotionPrior.from_card, MotionPriorCard, card, where)


def check_weight_card(card: Any, where: str) -> dict[str, Any]:
    """The card of a weight file.

    Raises:
        InputError: if a field is missing or has a wrong value.
    """
    known = {name: value for name, value in card.items() if name in weight_card().model_fields} if isinstance(
        card, dict
    ) else card  # fmt: skip
    _checked(weight_card(), known, where)
    sensor_of_card(card["sensor"], where)
    return dict(card)


def read_sensor(path: str | Path) -> tuple[Sensor, bool]:
    """The sensor of a card in a JSON file, and whether the card states its read noise.

    Raises:
        InputError: if the file cannot be read or is no sensor card.
    """
    card = read_json(path, "the sensor card")
    return sensor_of_card(card, f"the sensor card {path}"), "read_noise" in card


def read_prior(name: str) -> ScenePrior:
    """The prior called flat or csist-100k, or the one that a JSON file holds.

    Raises:
        InputError: if it is neither.
    """
    try:
        return ScenePrior.named(name)
    except InputError as error:
        if not Path(name).is_file():
            raise InputError(f"unknown prior {name!r}: use flat, csist-100k or the path of a JSON file") from error
    return prior_of_card(read_json(name, "the prior"), f"the prior {name}")
