"""Tables of targets in the forms that other programs read, and as DS9 regions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from csist._version import package_version
from csist.files import atomic_path
from csist.io.forms import Source, plain_text, write_csv
from csist.io.quantities import ELECTRON_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

REGION_RADIUS_PX = 3.0
"""Of the circles that stand for targets whose PSF is not known."""


@dataclass(frozen=True)
class TableFacts:
    """What some forms state beside the rows.

    Args:
        shape: (N, H, W) of the images; 0 where not known.
        sigma_px: of the PSF; NaN where not known.
        metadata: of the run.
    """

    shape: tuple[int, int, int]
    sigma_px: float
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Export:
    """A form that another program reads.

    Args:
        suffix: of its files.
        write: what writes it.
        columns: further columns that it has a place for.
    """

    suffix: str
    write: Callable[[Source, Path, TableFacts], None]
    columns: tuple[str, ...] = ()


def _converted(convert: Callable[[pd.DataFrame, int, TableFacts], pd.DataFrame]) -> Callable[..., None]:
    """What writes a CSV file of other columns, from a function of (rows, number of the first one, facts)."""

    def write(source: Source, path: Path, facts: TableFacts) -> None:
        def pieces() -> Iterator[pd.DataFrame]:
            start = 0
            for chunk in source():
                yield convert(chunk, start, facts)
                start += len(chunk)

        write_csv(pieces, path, {})

    return write


def _flux(rows: pd.DataFrame) -> tuple[pd.Series[float], str]:
    """Fluxes (n,) and their unit by ThunderSTORM: photons where the gain is known, else ADU (counts)."""
    photons = rows.get("electrons")
    if photons is None or (len(photons) and photons.isna().all()):
        return rows["intensity"], "ADU"
    return photons, "photon"


def _thunderstorm(rows: pd.DataFrame, start: int, facts: TableFacts) -> pd.DataFrame:
    """Columns of ThunderSTORM, in px: its frames count from 1, its pixels begin at their upper left corner."""
    import pandas as pd

    flux, unit = _flux(rows)
    return pd.DataFrame(
        {
            "id": np.arange(start + 1, start + 1 + len(rows)),
            "frame": rows["frame"].to_numpy() + 1,
            "x [px]": rows["x"] + 0.5,
            "y [px]": rows["y"] + 0.5,
            "sigma [px]": facts.sigma_px,
            f"intensity [{unit}]": flux,
            "uncertainty [px]": np.sqrt(0.5 * (rows["x_std"] ** 2 + rows["y_std"] ** 2)),
        }
    )


def _trackmate(rows: pd.DataFrame, start: int, facts: TableFacts) -> pd.DataFrame:
    """Columns of TrackMate's CSV importer, in px, pixel centres at integers, frames from 0."""
    import pandas as pd

    del start
    radius = 2.0 * facts.sigma_px if np.isfinite(facts.sigma_px) else REGION_RADIUS_PX
    return pd.DataFrame(
        {
            "FRAME": rows["frame"],
            "X": rows["x"],
            "Y": rows["y"],
            "Z": 0.0,
            "QUALITY": rows["score"].fillna(rows["intensity"]),
            "RADIUS": radius,
            "NAME": rows["image"],
        }
    )


_NAPARI_FEATURES = ("intensity", "score", "x_std", "y_std", "intensity_std", "flags", "group")


def _napari(rows: pd.DataFrame, start: int, facts: TableFacts) -> pd.DataFrame:
    """Points of napari: axes are frame, row and column; single images have no axis of frames.

    napari reads the further columns as features, and a column with a blank field as text: what is missing is "nan".
    """
    import pandas as pd

    place = {} if facts.shape[0] == 1 else {"axis-0": rows["frame"].astype(np.float64)}
    first = len(place)
    columns = {**place, f"axis-{first}": rows["y"], f"axis-{first + 1}": rows["x"]}
    features = {name: rows[name].astype(object).where(rows[name].notna(), "nan") for name in _NAPARI_FEATURES}
    return pd.DataFrame({"index": np.arange(start, start + len(rows), dtype=np.float64), **columns, **features})


_PICASSO_FIELDS = (
    ("frame", "u4"), ("x", "f4"), ("y", "f4"), ("photons", "f4"), ("sx", "f4"), ("sy", "f4"), ("bg", "f4"),
    ("lpx", "f4"), ("lpy", "f4"),
)  # fmt: skip


def _write_picasso(source: Source, path: Path, facts: TableFacts) -> None:
    """Localisations of Picasso: HDF5, and beside it a YAML file that states the size of the images.

    Its `bg` is 0: a row does not say what was below a target.
    """
    import h5py

    frames, rows, columns = facts.shape
    with h5py.File(path, "w") as file:
        table = file.create_dataset("locs", (0,), np.dtype(list(_PICASSO_FIELDS)), maxshape=(None,))
        for chunk in source():
            values = np.zeros(len(chunk), table.dtype)
            for name, column in (("frame", "frame"), ("x", "x"), ("y", "y"), ("lpx", "x_std"), ("lpy", "y_std")):
                values[name] = chunk[column]
            values["photons"] = _flux(chunk)[0]
            values["sx"] = values["sy"] = facts.sigma_px
            table.resize(len(table) + len(chunk), axis=0)
            if len(chunk):
                table[-len(chunk) :] = values
    facts_text = {
        "Byte Order": "<", "Data Type": "float64", "Frames": frames, "Height": rows, "Width": columns,
        "Generated by": f"csist {package_version()}",
    }  # fmt: skip
    text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in facts_text.items())
    path.with_suffix(".yaml").write_text(text, encoding="utf-8")


EXPORTS: dict[str, Export] = {
    "thunderstorm": Export(".csv", _converted(_thunderstorm), ELECTRON_COLUMNS),
    "picasso": Export(".hdf5", _write_picasso, ELECTRON_COLUMNS),
    "trackmate": Export(".csv", _converted(_trackmate)),
    "napari": Export(".csv", _converted(_napari)),
}


def holds_photons(form: str | None) -> bool:
    """Whether a form, by its name in `EXPORTS`, has a place for fluxes in photons."""
    return form in EXPORTS and ELECTRON_COLUMNS[0] in EXPORTS[form].columns


def write_regions(source: Source, path: Path, several: bool) -> None:
    """Write a circle for each target as DS9 regions, in image coordinates; with several images each has a tag.

    Raises:
        InputError: if the package regions is missing or the path cannot be written.
    """
    from regions import CirclePixelRegion, PixCoord, RegionMeta, Regions

    circles = []
    for chunk in source():
        for image, frame, x, y in zip(chunk["image"], chunk["frame"], chunk["x"], chunk["y"], strict=True):
            meta = RegionMeta({"tag": [f"{plain_text(image)} {frame}"]}) if several else RegionMeta()
            circles.append(CirclePixelRegion(PixCoord(float(x), float(y)), REGION_RADIUS_PX, meta=meta))
    with atomic_path(path) as partial:
        partial.write_text(Regions(circles).serialize(format="ds9", precision=4) if circles else "image\n")
