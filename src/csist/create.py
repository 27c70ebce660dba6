"""From a method's name to a method that is ready to use: the table, the weights and the runtimes put together.

Nothing is imported before it is needed: the continuous method works without torch.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csist.checks import InputError, check_ratio
from csist.methods.table import METHODS, RUNTIMES, SUFFIXES, split_name
from csist.onnx import ONNX_SUFFIX
from csist.physics.sensor import Sensor

if TYPE_CHECKING:
    from csist.methods.base import GridMethod
    from csist.onnx.runtime import OnnxMethod


def create_method(
    name: str,
    sensor: Sensor | None = None,
    ratio: int = 3,
    pretrained: bool | str | Path | None = None,
    runtime: str = "torch",
    **options: Any,
) -> Any:
    """Build a method by name.

    Args:
        name: a name of `list_methods`, or NAME+SUFFIX with a grid method and a suffix of `SUFFIXES`.
        sensor: default: Gaussian PSF of 0.5 px, 11 x 11 px.
        ratio: sub-pixel grid ratio; continuous methods ignore it.
        pretrained: None loads the trained weights that belong to sensor and ratio, False builds the method
            untrained, a path loads that weight file.
        runtime: what computes the map of a grid method: "torch", or "onnx" for onnxruntime, which also takes the
            path of a file that `csist export` wrote.
        **options: the method's own options, and the suffix's.

    Raises:
        InputError: if the name, an option or the runtime is unknown, or weights are asked for that do not exist.
    """
    if runtime not in RUNTIMES:
        raise InputError(f"runtime must be {' or '.join(RUNTIMES)}, got {runtime!r}")
    key, suffix = split_name(name)
    if suffix is not None:
        own = {option: options.pop(option) for option in SUFFIXES[suffix].options if option in options}
        return follow(suffix, create_method(key, sensor, ratio, pretrained, runtime, **options), **own)
    if runtime == "onnx":
        return onnx_method(key, sensor, check_ratio(ratio), pretrained, options)
    if isinstance(pretrained, str | Path) and Path(pretrained).suffix == ONNX_SUFFIX:
        raise InputError(f"{pretrained} is an exported graph: run it with runtime='onnx' (--runtime onnx)")
    entry = METHODS[key]
    factory = _class(f"csist.methods.{entry.target}")
    if pretrained is not False and entry.trained:
        # Imported here: building without weights needs no weight file format.
        from csist.weights.pretrained import load_method

        path = pretrained if isinstance(pretrained, str | Path) else None
        return _with_options(
            key, options, partial(load_method, factory, key, sensor, check_ratio(ratio), options, path)
        )
    if isinstance(pretrained, str | Path):
        raise InputError(f"method {key!r} has no weights to load: leave pretrained out, got {str(pretrained)!r}")
    sensor = sensor or Sensor()
    return _with_options(key, options, partial(factory, sensor=sensor, ratio=check_ratio(ratio), **options))


def follow(suffix: str, method: Any, **options: Any) -> Any:
    """The grid method with what a suffix of `SUFFIXES` stands for behind it; options are the suffix's own."""
    return _class(f"csist.{SUFFIXES[suffix].target}")(method, **options)


def _class(target: str) -> Any:
    """The class at "module:class"."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _with_options(key: str, options: dict[str, Any], build: Callable[[], Any]) -> Any:
    """What `build` gives, with an unknown option named in one line."""
    try:
        return build()
    except TypeError as error:
        if options and "unexpected keyword" in str(error):
            raise InputError(f"method {key!r} does not take {', '.join(options)}: {error}") from error
        raise


def onnx_method(
    key: str, sensor: Sensor | None, ratio: int, weights: bool | str | Path | None, options: Mapping[str, Any]
) -> OnnxMethod:
    """A grid method by onnxruntime: from an ONNX file, or exported on the spot, once for the same weights.

    Args:
        key: registry name, without suffix.
        sensor: as in `create_method`.
        ratio: sub-pixel grid ratio.
        weights: an .onnx file, or as `pretrained` of `create_method`.
        options: the method's own.

    Raises:
        InputError: if the method has no graph, or file and method do not fit.
    """
    from csist.onnx.graph import to_onnx
    from csist.onnx.runtime import OnnxMethod, open_session, read_onnx
    from csist.weights.pretrained import find_pretrained

    if not METHODS[key].grid:
        raise InputError(f"the runtime onnx is for methods on the grid, {key!r} has none: leave it out")
    if isinstance(weights, str | Path) and Path(weights).suffix == ONNX_SUFFIX:
        if options:
            raise InputError(f"{weights} is a finished graph and takes no options, got {', '.join(options)}")
        return read_onnx(weights, key, sensor, ratio)
    if isinstance(weights, bool) or not METHODS[key].trained:
        method, card = build_with_card(key, sensor, ratio, weights, options)
        session = open_session(to_onnx(method, card, None))
        return OnnxMethod(session, method.sensor, ratio, method.sensor.background)
    path = find_pretrained(key, sensor or Sensor(), ratio) if weights is None else Path(weights)
    if sensor is None:
        sensor = create_method(key, None, ratio, path, **options).sensor
    # Neither noise nor background is in the weights: one graph serves files that differ in them.
    optics = Sensor(psf=sensor.psf, shape=sensor.shape)
    written = path.stat().st_mtime_ns if path.is_file() else 0
    session = _exported(key, json.dumps(optics.to_card()), ratio, path, written, tuple(sorted(options.items())))
    return OnnxMethod(session, sensor, ratio, optics.background)


@lru_cache(maxsize=8)
def _exported(
    key: str, sensor_card: str, ratio: int, weights: Path, written: int, options: tuple[tuple[str, Any], ...]
) -> Any:
    """Session of a method exported in memory; `written` tells a weight file from an older one of its name."""
    from csist.onnx.graph import to_onnx
    from csist.onnx.runtime import open_session

    method, card = build_with_card(key, Sensor.from_card(json.loads(sensor_card)), ratio, weights, dict(options))
    return open_session(to_onnx(method, card, None))


def build_with_card(
    key: str, sensor: Sensor | None, ratio: int, weights: bool | str | Path | None, options: Mapping[str, Any]
) -> tuple[GridMethod, dict[str, Any]]:
    """The method in torch, and its card with what the weight file says of training and score."""
    from csist.weights.cards import SUFFIX, make_card, read_card
    from csist.weights.pretrained import find_pretrained

    if isinstance(weights, str | Path) and Path(weights).suffix == ONNX_SUFFIX:
        raise InputError(f"{weights} is an exported graph: give the weight file it was made from")
    if weights is None and METHODS[key].trained:
        weights = find_pretrained(key, sensor or Sensor(), ratio)
    method: GridMethod = create_method(key, sensor, ratio, weights, **options)
    known: dict[str, Any] = {"options": dict(options)}
    if isinstance(weights, str | Path) and Path(weights).suffix == SUFFIX:
        card = read_card(weights)
        known = {name: card.get(name) for name in ("options", "training", "score")}
    return method, make_card(key, method.sensor, method.ratio, **known)
