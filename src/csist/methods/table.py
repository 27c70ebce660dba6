"""Table of methods: a new method is one file and one line here. Modules are imported only when they are needed.

The name of a grid method may have a suffix, NAME+SUFFIX, that selects the read-out of its map.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from csist.checks import InputError

WITHIN = "probability within 0.25 px"
"""Score of methods with a posterior: probability of a target within 0.25 px."""


@dataclass(frozen=True)
class Entry:
    """One line of the table: description and capabilities of a method.

    Args:
        target: "module:class" under csist.methods.
        summary: description in one line.
        source: paper.
        trained: whether it has trained weights; other methods need no training.
        grid: whether it computes a map, which a suffix can read out.
        export: whether a fixed graph computes its maps, as an ONNX file requires.
        frames: whether it unmixes the blobs of a frame, in windows of any size with a background.
        prior: whether it takes a scene prior.
        masks: whether it can leave out NaN pixels.
        noise_maps: whether it takes the noise of each pixel.
        threads: whether it takes `workers`, the number of its threads.
        modes: names of its modes, the default first.
        score: what the score of a target is.
    """

    target: str
    summary: str
    source: str
    trained: bool = True
    grid: bool = True
    export: bool = True
    frames: bool = False
    prior: bool = False
    masks: bool = False
    noise_maps: bool = False
    threads: bool = False
    modes: tuple[str, ...] = ()
    score: str = "cell value in counts"


@dataclass(frozen=True)
class Suffix:
    """Read-out that can follow a grid method.

    Args:
        target: "module:class" under csist; the class takes the grid method and its own options.
        options: names of its own options; all others go to the grid method.
        trained: whether it has trained weights of its own.
        score: what the score of a target is.
    """

    target: str
    options: tuple[str, ...] = ()
    trained: bool = False
    score: str = WITHIN


METHODS: dict[str, Entry] = {
    "continuous": Entry(
        "continuous:Continuous",
        "likelihood fit in continuous coordinates with count by evidence",
        "this project",
        trained=False,
        grid=False,
        export=False,
        frames=True,
        prior=True,
        masks=True,
        noise_maps=True,
        threads=True,
        modes=("accurate", "fast"),
        score=WITHIN,
    ),
    "ista": Entry(
        "ista:ISTA",
        "iterative shrinkage-thresholding on the sub-pixel grid",
        "Daubechies et al. 2004",
        trained=False,
        export=False,
    ),
    "fista": Entry("ista:FISTA", "ISTA with Nesterov momentum", "Beck & Teboulle 2009", trained=False, export=False),
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
    "focus": Entry(
        "focus:FOCUS", "one stage of masked intensities, with a small correction", "FOCUS, arXiv 2607.16007"
    ),
}


SUFFIXES: dict[str, Suffix] = {
    "centroid": Suffix("methods.readout.centroid:CentroidReadOut", score="flux in counts"),
    "ensemble": Suffix("methods.readout.ensemble:EnsembleReadOut", score="cell value in counts"),
    "refine": Suffix("methods.readout.refine:Refined", options=("prior", "workers")),
    "yolo": Suffix(
        "pipelines.yolo:YoloReadOut", options=("detector",), trained=True, score="confidence of the detector"
    ),
}
"""`centroid` merges the cells of one target, `ensemble` averages the maps of the image turned and mirrored, `refine`
optimises positions in continuous coordinates, `yolo` passes the map to an object detector (extra `yolo`, AGPL-3.0)."""


RUNTIMES = ("torch", "onnx")


def option_names(factory: Callable[..., Any]) -> list[str]:
    """Return the names of a method's own options: the arguments of its class without `sensor` and `ratio`."""
    return [name for name in inspect.signature(factory).parameters if name not in ("sensor", "ratio")]


def split_name(name: str) -> tuple[str, str | None]:
    """Return the registry name of a method and its suffix; hyphens and underscores are equivalent.

    Raises:
        InputError: if no such method or suffix exists (the message names the closest method or all suffixes), or if
            the method computes no map.

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
        raise InputError(f"method {key!r} has no map to read out: leave out '+{suffix}'")
    return key, suffix


def canonical_name(name: str) -> str:
    """Return the registry name of a method, with its suffix if it has one.

    Raises:
        InputError: as `split_name`.
    """
    return "+".join(filter(None, split_name(name)))


def abilities(name: str) -> Entry:
    """Return the description and capabilities of a method with its suffix.

    Raises:
        InputError: as `split_name`.

    >>> abilities("ista").prior, abilities("ista+refine").prior
    (False, True)
    """
    key, suffix = split_name(name)
    if suffix is None:
        return METHODS[key]
    following = SUFFIXES[suffix]
    return replace(
        METHODS[key],
        trained=METHODS[key].trained or following.trained,
        export=False,
        prior="prior" in following.options,
        threads="workers" in following.options,
        score=following.score,
    )


def methods_that(ability: str) -> list[str]:
    """Return the names of the methods with a capability, a boolean field of `Entry`.

    >>> methods_that("frames")
    ['continuous']
    """
    return [name for name, entry in METHODS.items() if getattr(entry, ability)]


def list_methods() -> list[str]:
    """Return the names of all methods, in the order of the table."""
    return list(METHODS)
