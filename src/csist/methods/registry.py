"""The table of methods: a new one is one file and one line here. Nothing is imported before it is needed."""

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
    """

    target: str
    summary: str
    source: str
    trained: bool = True


METHODS: dict[str, Entry] = {
    "continuous": Entry(
        "continuous:Continuous",
        "likelihood fit in continuous coordinates with count by evidence",
        "this project",
        trained=False,
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
}


def canonical_name(name: str) -> str:
    """The registry's spelling of a method name; hyphens and underscores are equal.

    Raises:
        InputError: if no such method exists; names the closest one.
    """
    key = name.strip().lower().replace("_", "-")
    if key in METHODS:
        return key
    close = difflib.get_close_matches(key, METHODS, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}?" if close else f"these exist: {', '.join(METHODS)}"
    raise InputError(f"unknown method {name!r}: {hint}")


def list_methods() -> list[str]:
    """Names of all methods, in the table's order."""
    return list(METHODS)


def create_method(
    name: str,
    sensor: Sensor | None = None,
    ratio: int = 3,
    pretrained: bool | str | Path | None = None,
    **options: Any,
) -> Any:
    """Build a method by name.

    Args:
        name: a name of `list_methods`.
        sensor: default: Gaussian PSF of 0.5 px, 11 x 11 px.
        ratio: sub-pixel grid ratio; continuous methods ignore it.
        pretrained: None loads the trained weights that belong to sensor and ratio, False builds the method
            untrained, a path loads that weight file.
        **options: the method's own options.

    Raises:
        InputError: if the name or an option is unknown, or weights are asked for that do not exist.
    """
    key = canonical_name(name)
    entry = METHODS[key]
    module, _, attribute = entry.target.partition(":")
    factory = getattr(importlib.import_module(f"csist.methods.{module}"), attribute)
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


def _with_options(key: str, options: dict[str, Any], build: Callable[[], Any]) -> Any:
    """What `build` gives, with an unknown option named in one line."""
    try:
        return build()
    except TypeError as error:
        if options and "unexpected keyword" in str(error):
            raise InputError(f"method {key!r} does not take {', '.join(options)}: {error}") from error
        raise
