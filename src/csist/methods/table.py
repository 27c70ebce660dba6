"""The table of methods: a new one is one file and one line here. Nothing is imported before it is needed.

A grid method's name may carry a suffix, NAME+SUFFIX, that says what becomes of its map.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace

from csist.checks import InputError


@dataclass(frozen=True)
class Entry:
    """One line of the table: what a method is and what it can do.

    Args:
        target: "module:class" under csist.methods.
        summary: what it is, in one line.
        source: paper.
        trained: whether it has weights that training finds; without, it works as it is.
        grid: whether it answers with a map, which a suffix can follow.
        export: whether one fixed graph computes its maps, so that an ONNX file can hold it.
        frames: whether it unmixes the blobs of a frame, whose windows have a background and any size.
        prior: whether it takes a scene prior.
        masks: whether it leaves NaN pixels out.
        threads: whether it takes `workers`, the number of its threads.
        modes: names of its efforts, the default first.
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
    threads: bool = False
    modes: tuple[str, ...] = ()


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
        export=False,
        frames=True,
        prior=True,
        masks=True,
        threads=True,
        modes=("accurate", "fast"),
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
    "centroid": Suffix("methods.readout.centroid:CentroidReadOut"),
    "refine": Suffix("methods.readout.refine:Refined", options=("prior", "workers")),
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


def abilities(name: str) -> Entry:
    """What a method, with its suffix, is and can do.

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
    )


def methods_that(ability: str) -> list[str]:
    """Names of the methods with an ability, a boolean field of `Entry`.

    >>> methods_that("frames")
    ['continuous']
    """
    return [name for name, entry in METHODS.items() if getattr(entry, ability)]


def list_methods() -> list[str]:
    """Names of all methods, in the table's order."""
    return list(METHODS)
