"""What microscopes write into TIFF files: which planes of an OME set a file holds itself, and times of the images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from defusedxml import DefusedXmlException, ElementTree

from csist._types import FloatArray
from csist.checks import InputError
from csist.io.formats import ReadOptions
from csist.io.times import seconds_of

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPageSeries

OME_NAMESPACE = "{*}"


def _description(tiff: TiffFile) -> str:
    """The text of the first page."""
    return str(tiff.pages.first.description)


def _ome_root(tiff: TiffFile) -> Any:
    """The OME-XML of a file; None where there is none that can be read."""
    text = _description(tiff)
    if "<OME" not in text[:2000]:
        return None
    try:
        return ElementTree.fromstring(text.encode(), forbid_dtd=True)
    except (ElementTree.ParseError, DefusedXmlException):
        return None


def is_ome_set(tiff: TiffFile, path: Path) -> bool:
    """Whether the file is one of several that describe the same images."""
    text = _description(tiff)
    return "<OME" in text[:2000] and bool(set(re.findall(r'FileName="([^"]*)"', text)) - {path.name})


def own_planes(
    tiff: TiffFile, path: Path, options: ReadOptions, notes: list[str]
) -> tuple[list[Any], FloatArray | None]:
    """The pages of this file of an OME set that have the channel and plane asked for, in order of time, and times."""
    root = _ome_root(tiff)
    found = [] if root is None else _ome_places(root, path.name, len(tiff.pages))
    if not found:
        notes.append("one file of a set, and the set's description does not name it: its pages are read in order")
        return list(tiff.pages), None
    places = np.array(found)
    for column, name in ((2, "channel"), (3, "plane")):
        held, wanted = sorted(set(places[:, column].tolist())), getattr(options, name)
        if wanted is not None:
            places = places[places[:, column] == wanted]
            if not len(places):
                raise InputError(f"this file of a set holds {name} {', '.join(map(str, held))}, not {wanted}")
        elif len(held) > 1 and (name == "channel" or len(set(places[:, 1].tolist())) > 1):
            raise InputError(f"it has {len(held)} {name}s: choose one with --{name} {held[0]} to {held[-1]}")
    ordered = places[np.lexsort((places[:, 3], places[:, 1]))].tolist()
    times = _ome_times(root, [{"T": t, "C": c, "Z": z} for _, t, c, z in ordered])
    return [tiff.pages[page] for page, *_ in ordered], times


def _ome_places(root: Any, name: str, pages: int) -> list[tuple[int, int, int, int]]:
    """(page, time, channel, plane) of the pages of the file of that name."""
    places: dict[int, tuple[int, int, int, int]] = {}
    for pixels in root.iterfind(f".//{OME_NAMESPACE}Pixels"):
        order = pixels.get("DimensionOrder", "XYZCT")[2:]
        sizes = {axis: max(int(pixels.get(f"Size{axis}", "1")), 1) for axis in order}
        for data in pixels.iterfind(f"{OME_NAMESPACE}TiffData"):
            uuid = data.find(f"{OME_NAMESPACE}UUID")
            file = None if uuid is None else uuid.get("FileName")
            own = file == name if file is not None else uuid is not None and uuid.text == root.get("UUID")
            if not own:
                continue
            first, page = 0, int(data.get("IFD", "0"))
            step = 1
            for axis in order:
                first += step * int(data.get(f"First{axis}", "0"))
                step *= sizes[axis]
            count = int(data.get("PlaneCount", "1" if data.get("IFD") else str(pages)))
            for number in range(min(count, pages - page)):
                at, place = first + number, {}
                for axis in order:
                    at, place[axis] = divmod(at, sizes[axis])
                places.setdefault(
                    page + number, (page + number, place.get("T", 0), place.get("C", 0), place.get("Z", 0))
                )
    return sorted(places.values())


def times_of_series(tiff: TiffFile, series: TiffPageSeries, places: list[dict[str, int]]) -> FloatArray | None:
    """Times (n,) in s of images of a series, as OME-XML or ImageJ state them; None where they state none.

    Args:
        tiff: the file.
        series: of the images.
        places: of each image along the series' axes, by their letters.
    """
    if series.kind == "imagej":
        return _imagej_times(tiff.imagej_metadata or {}, places)
    root = _ome_root(tiff) if series.kind == "ome" else None
    return None if root is None else _ome_times(root, places)


def _imagej_times(known: dict[str, Any], places: list[dict[str, int]]) -> FloatArray | None:
    """Times by ImageJ's frame interval, along its axis of time."""
    interval = seconds_of(known.get("finterval"), known.get("tunit", "s"))
    if not (interval > 0.0 and np.isfinite(interval) and any("T" in place for place in places)):
        return None
    return interval * np.array([place.get("T", 0) for place in places], dtype=np.float64)


def _ome_times(root: Any, places: list[dict[str, int]]) -> FloatArray | None:
    """Times by the DeltaT of each plane of the first image, or else by its TimeIncrement."""
    pixels = root.find(f".//{OME_NAMESPACE}Pixels")
    if pixels is None:
        return None
    stated: dict[tuple[str | None, ...], float] = {}
    for plane in pixels.iterfind(f"{OME_NAMESPACE}Plane"):
        place = tuple(plane.get(f"The{axis}", "0") for axis in "TCZ")
        stated[place] = seconds_of(plane.get("DeltaT"), plane.get("DeltaTUnit", "s"))
    times = [stated.get(tuple(str(place.get(axis, 0)) for axis in "TCZ"), np.nan) for place in places]
    step = seconds_of(pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s"))
    if np.isnan(times).all() and step > 0.0 and np.isfinite(step):
        times = [step * place.get("T", 0) for place in places]
    return None if np.isnan(times).all() else np.array(times, dtype=np.float64)
