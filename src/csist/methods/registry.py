"""The table of methods: a new one is one file and one line here. Nothing is imported before it is needed.

A grid method's name may carry a suffix, NAME+SUFFIX, that says what becomes of its map.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from csist.checks import InputError, check_ratio
from csist.physics.sensor import Sensor


@dataclass(frozen=True)
class Entry:
    """One line of the table.

    Args:
        target: "module:class" under csist.methods.
        summary: what it is, in one line.
        source: paper.
        trained: whether it has weights that training finds; without, it works as it is.
        grid: whether it answers with a map, which a suffix can follow.
    """

    target: str
    summary: str
    source: str
    trained: bool = True
    grid: bool = True


@dataclass(frozen=True)
class Suffix:
    """What can follow a grid method.

    Args:
        target: "module:class" under csist; the class takes the grid method and its own options.
        options: names of these; all others go to the grid method.
        trained: whether it has weights of its own that training finds.
    """

    target: str
    options: tuple[str, ...] = ()
    trained: bool = False


METHODS: dict[str, Entry] = {
    "continuous": Entry(
        "continuous:Continuous",
        "likelihood fit in continuous coordinates with count by evidence",
        "this project",
        trained=False,
        grid=False,
    ),
    "ista": Entry(
        "ista:ISTA",
        "iterative shrinkage-thresholding on the sub-pixel grid",
        "Daubechies et al. 2004",
        trained=False,
    ),
    "fista": Entry("ista:FISTA", "ISTA with Nesterov momentum", "Beck & Teboulle 2009", trained=False),
    "lista": Entry("lista:LISTA", "learned ISTA, dense matrices", "Gregor & LeCun, ICML 2010"),
    "ti-lista": Entry("lista:TiLISTA", "tied LISTA with support selection", "Liu et al., ICLR 2019"),
    "liht": Entry("lista:LIHT", "learned iterative hard thresholding", "Wang et al., AAAI 2016"),
    "lamp": Entry("lista:LAMP", "learned approximate message passing", "Borgerding et al., IEEE TSP 2017"),
    "ista-net": Entry("ista_net:ISTANet", "ISTA with a learned transform", "Zhang & Ghanem, CVPR 2018"),
    "ista-net-plus": Entry("ista_net:ISTANetPlus", "ISTA-Net that predicts the residual", "Zhang & Ghanem, CVPR 2018"),
    "fista-net": Entry(
        "fista_net:FISTANet",
        "FISTA with a learned transform shared by all iterations",
        "Xiang et al., TMI 2021",
    ),
    "dista-net": Entry("dista_net:DISTANet", "ISTA-Net with dynamic transform and threshold", "Han et al., ICCV 2025"),
    "srcnn": Entry("sr.srcnn:SRCNN", "super-resolution by three convolutions", "Dong et al., IEEE TPAMI 2016"),
    "edsr": Entry("sr.edsr:EDSR", "super-resolution by residual blocks", "Lim et al., CVPR Workshops 2017"),
    "rcan": Entry("sr.rcan:RCAN", "super-resolution with channel attention", "Zhang et al., ECCV 2018"),
    "srfbn": Entry("sr.srfbn:SRFBN", "super-resolution by feedback between two grids", "Li et al., CVPR 2019"),
    "san": Entry("sr.san:SAN", "super-resolution with second-order attention", "Dai et al., CVPR 2019"),
}


SUFFIXES: dict[str, Suffix] = {
    "centroid": Suffix("methods.base:CentroidReadOut"),
    "refine": Suffix("methods.refine:Refined", options=("prior", "workers")),
    "yolo": Suffix("pipelines.yolo:YoloReadOut", options=("detector",), trained=True),
}
"""`centroid` merges the cells of one target, `refine` climbs from there in continuous coordinates, `yolo` shows the
map to a detector of objects (extra `yolo`, AGPL-3.0)."""


RUNTIMES = ("torch", "onnx")


def split_name(name: str) -> tuple[str, str | None]:
    """The registry's spelling of a method name, and its suffix; hyphens and underscores are equal.

    Raises:
        InputError: if no such method or suffix exists, naming the closest method or all suffixes, or if the
            method gives no map.

    >>> split_name("ISTA_Net+refine"), split_name("ista")
    (('ista-net', 'refine'), ('ista', None))
    """
    key, plus, suffix = name.strip().lower().replace("_", "-").partition("+")
    if key not in METHODS:
        close = difflib.get_close_matches(key, METHODS, n=1, cutoff=0.4)
        hint = f"did you mean {close[0] + plus + suffix!r}?" if close else f"these exist: {', '.join(METHODS)}"
        raise InputError(f"unknown method {name!r}: {hint}")
    if not plus:
        return key, None
    if suffix not in SUFFIXES:
        raise InputError(f"unknown suffix {suffix!r} of method {name!r}: use {' or '.join(SUFFIXES)}, or leave it out")
    if not METHODS[key].grid:
        raise InputError(f"method {key!r} has no grid, so nothing can follow it: leave out '+{suffix}'")
    return key, suffix


def canonical_name(name: str) -> str:
    """The registry's spelling of a method name, with its suffix if it has one.

    Raises:
        InputError: as `split_name`.
    """
    return "+".join(filter(None, split_name(name)))


def takes_prior(name: str) -> bool:
    """Whether a method, with its suffix, takes a scene prior.

    Raises:
        InputError: as `split_name`.
    """
    key, suffix = split_name(name)
    return not METHODS[key].grid if suffix is None else "prior" in SUFFIXES[suffix].options


def list_methods() -> list[str]:
    """Names of all methods, in the table's order."""
    return list(METHODS)


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
        from csist.export import onnx_method

        return onnx_method(key, sensor, check_ratio(ratio), pretrained, options)
    if isinstance(pretrained, str | Path) and Path(pretrained).suffix == ".onnx":
        raise InputError(f"{pretrained} is an exported graph: run it with runtime='onnx' (--runtime onnx)")
    entry = METHODS[key]
    factory = _class(f"csist.methods.{entry.target}")
    if pretrained is not False and entry.trained:
        # Imported here: building without weights needs no weight file format.
        from csist.checkpoint import load_method

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
