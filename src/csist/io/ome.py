"""Sets of OME-TIFF files: which planes of the set a file holds itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from defusedxml import DefusedXmlException, ElementTree

from csist.checks import InputError
from csist.io.formats import ReadOptions

if TYPE_CHECKING:
    from tifffile import TiffFile

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


def own_planes(tiff: TiffFile, path: Path, options: ReadOptions, notes: list[str]) -> list[Any]:
    """The pages of this file of an OME set that have the channel and plane asked for, in order of time."""
    root = _ome_root(tiff)
    found = [] if root is None else _ome_places(root, path.name, len(tiff.pages))
    if not found:
        notes.append("one file of a set, and the set's description does not name it: its pages are read in order")
        return list(tiff.pages)
    places = np.array(found)
    for column, name in ((2, "channel"), (3, "plane")):
        held, wanted = sorted(set(places[:, column].tolist())), getattr(options, name)
        if wanted is not None:
            places = places[places[:, column] == wanted]
            if not len(places):
                raise InputError(f"this file of a set holds {name} {', '.join(map(str, held))}, not {wanted}")
        elif len(held) > 1 and (name == "channel" or len(set(places[:, 1].tolist())) > 1):
            raise InputError(f"it has {len(held)} {name}s: choose one with --{name} {held[0]} to {held[-1]}")
    return [tiff.pages[int(page)] for page in places[np.lexsort((places[:, 3], places[:, 1])), 0]]


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
