"""Build a ready-to-use method from its name, with its weights and runtime.

Modules are imported only when they are needed: the continuous method works without torch.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csist.checks import InputError, check_names, check_ratio
from csist.methods.table import METHODS, RUNTIMES, SUFFIXES, option_names, split_name
from csist.onnx import ONNX_SUFFIX
from csist.physics.sensor import Sensor

if TYPE_CHECKING:
    from csist.grid import SubPixelGrid
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
        sensor: sensor of the images; None for a Gaussian PSF of 0.5 px and 11 x 11 px.
        ratio: sub-pixel grid ratio; continuous methods ignore it.
        pretrained: None loads the trained weights for the sensor and ratio, False builds the method untrained, a path
            loads that weight file.
        runtime: library that computes the map of a grid method: "torch", or "onnx" for onnxruntime, which also
            accepts the path of a file written by `csist export`.
        **options: options of the method and of the suffix.

    Raises:
        InputError: if the name, an option or the runtime is unknown, or the requested weights do not exist.
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
    check_names(f"method {key!r}", options, option_names(factory))
    if pretrained is not False and entry.trained:
        # Imported here: building without weights needs no weight file format.
        from csist.weights.pretrained import load_method

        path = pretrained if isinstance(pretrained, str | Path) else None
        return load_method(factory, key, sensor, check_ratio(ratio), options, path)
    if isinstance(pretrained, str | Path):
        raise InputError(f"method {key!r} has no weights to load: leave pretrained out, got {str(pretrained)!r}")
    return factory(sensor=sensor or Sensor(), ratio=check_ratio(ratio), **options)


def follow(suffix: str, method: Any, **options: Any) -> Any:
    """Return the grid method followed by the read-out of a suffix of `SUFFIXES`, built with its own options."""
    return _class(f"csist.{SUFFIXES[suffix].target}")(method, **options)


def _class(target: str) -> Any:
    """Import the class at "module:class"."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def onnx_method(
    key: str, sensor: Sensor | None, ratio: int, weights: bool | str | Path | None, options: Mapping[str, Any]
) -> OnnxMethod:
    """Build a grid method that runs in onnxruntime, from an ONNX file or exported in memory.

    The session of an in-memory export is cached for the same weights, sensor and options.

    Args:
        key: registry name, without suffix.
        sensor: as in `create_method`.
        ratio: sub-pixel grid ratio.
        weights: an .onnx file, or as `pretrained` of `create_method`.
        options: options of the method.

    Raises:
        InputError: if the method has no graph, or the file does not match the method.
    """
    from csist.onnx.graph import to_onnx
    from csist.onnx.runtime import OnnxMethod, open_session, read_onnx
    from csist.weights.pretrained import find_pretrained

    if not METHODS[key].grid:
        raise InputError(f"the runtime onnx is for grid methods, and {key!r} is not one: leave it out")
    if isinstance(weights, str | Path) and Path(weights).suffix == ONNX_SUFFIX:
        if options:
            raise InputError(f"{weights} is a finished graph and takes no options, got {', '.join(options)}")
        return read_onnx(weights, key, sensor, ratio)
    if isinstance(weights, bool) or not METHODS[key].trained:
        method, card = build_with_card(key, sensor, ratio, weights, options)
        session = open_session(to_onnx(method, card, None))
        online = OnnxMethod(session, method.sensor, ratio, method.sensor.background)
        online.grid = method.grid
        return online
    path = find_pretrained(key, sensor or Sensor(), ratio) if weights is None else Path(weights)
    if sensor is None:
        sensor = create_method(key, None, ratio, path, **options).sensor
    # The graph depends on neither noise nor background: one graph serves files that differ in them.
    optics = Sensor(psf=sensor.psf, shape=sensor.shape)
    written = path.stat().st_mtime_ns if path.is_file() else 0
    session, grid = _exported(key, json.dumps(optics.to_card()), ratio, path, written, tuple(sorted(options.items())))
    online = OnnxMethod(session, sensor, ratio, optics.background)
    online.grid = grid
    return online


@lru_cache(maxsize=8)
def _exported(
    key: str, sensor_card: str, ratio: int, weights: Path, written: int, options: tuple[tuple[str, Any], ...]
) -> tuple[Any, SubPixelGrid]:
    """Session and grid of a method exported in memory; `written` distinguishes versions of a weight file."""
    from csist.onnx.graph import to_onnx
    from csist.onnx.runtime import open_session

    method, card = build_with_card(key, Sensor.from_card(json.loads(sensor_card)), ratio, weights, dict(options))
    return open_session(to_onnx(method, card, None)), method.grid


def build_with_card(
    key: str, sensor: Sensor | None, ratio: int, weights: bool | str | Path | None, options: Mapping[str, Any]
) -> tuple[GridMethod, dict[str, Any]]:
    """Build the method in torch, and its card with the training and score stated in the weight file."""
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
