"""Tables out: every form is read back by its own tool; units, metadata, and nothing but complete files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from csist import Targets
from csist.checks import InputError
from csist.io import EXPORTS, TABLE_SUFFIXES, Quantities, TableWriter, read_targets_table, write_table
from csist.io.headers import Header

PARTS = [
    ("a,b.fits[SCI]", 0, Targets(x=[1.25, 1 / 3], y=[2.0, 0.1], intensity=[230.0, 1e5], score=[0.9, 0.5],
                                 x_std=[0.01, 0.02], y_std=[0.03, 0.04], flags=[0, 5], group=[0, 1])),
    ("a,b.fits[SCI]", 3, Targets(x=[4.0], y=[5.0], intensity=[6.0])),
    ("empty.png", 0, Targets.empty()),
    ("NA", 2, Targets(x=[-1e-9], y=[1.0], intensity=[np.pi], score=[1.0])),
]  # fmt: skip
EXPECTED = {(image, frame): targets for image, frame, targets in PARTS if len(targets)}
METADATA = {"options": {"method": "continuous", "mode": "fast"}, "sensor": {"gain": 2.0}}


def write(path: Path, parts: Any = PARTS, **options: Any) -> Path:
    with TableWriter(path, metadata=METADATA, **options) as writer:
        for image, frame, targets in parts:
            writer.shape = (4, 20, 30)
            writer.append(image, frame, targets)
    return path


@pytest.mark.parametrize("suffix", TABLE_SUFFIXES)
@pytest.mark.parametrize("chunk", [1, 2, 100_000])
def test_every_form_comes_back(tmp_path: Path, suffix: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csist.io.writers.CHUNK", chunk)
    if suffix in (".fits", ".ecsv"):
        pytest.importorskip("astropy", reason="needs the extra `astro`")
    path = write(tmp_path / f"t{suffix}")
    assert read_targets_table(path) == EXPECTED
    assert list(read_targets_table(path)) == list(EXPECTED)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert read_targets_table(write(path, [])) == {}
    assert read_targets_table(write(path, PARTS[2:3])) == {}


def by_astropy(path: Path, **options: Any) -> Any:
    table = pytest.importorskip("astropy.table", reason="needs the extra `astro`").Table
    return table.read(path, **options)


@pytest.mark.parametrize("suffix", [".fits", ".ecsv"])
def test_astropy_reads_units_blanks_and_metadata(tmp_path: Path, suffix: str) -> None:
    table = by_astropy(write(tmp_path / f"t{suffix}"), **({"hdu": 1} if suffix == ".fits" else {}))
    assert {name: str(table[name].unit) for name in ("x", "y_std", "intensity", "intensity_std")} == {
        "x": "pix", "y_std": "pix", "intensity": "ct", "intensity_std": "ct",
    }  # fmt: skip
    assert table["score"].unit is None
    np.testing.assert_array_equal(table["x"], [1.25, 1 / 3, 4.0, -1e-9])
    assert [str(name) for name in table["image"]] == ["a,b.fits[SCI]"] * 3 + ["NA"]
    np.testing.assert_array_equal(np.ma.getmaskarray(table["group"]), [False, False, True, True])
    assert np.isnan(np.ma.filled(table["x_std"], np.nan)[2])
    meta = {key.lower(): value for key, value in table.meta.items()}
    options = meta["options"]
    assert (json.loads(options) if suffix == ".fits" else options)["mode"] == "fast"
    assert "csistver" in meta or "csist_version" in meta


def test_fits_verifies(tmp_path: Path) -> None:
    fits = pytest.importorskip("astropy.io.fits", reason="needs the extra `astro`")
    for parts in (PARTS, []):
        path = write(tmp_path / "t.fits", parts)
        assert path.stat().st_size % 2880 == 0
        with fits.open(path) as units:
            units.verify("exception")
            assert units[1].header["CSISTVER"]


def test_parquet_has_units_and_metadata(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    schema = pq.read_schema(write(tmp_path / "t.parquet"))
    assert schema.field("x").metadata == {b"unit": b"pix"}
    assert schema.field("intensity_std").metadata == {b"unit": b"ct"}
    assert schema.field("score").metadata is None
    assert json.loads(schema.metadata[b"csist"])["sensor"] == {"gain": 2.0}
    assert pd.read_parquet(tmp_path / "t.parquet")["group"].isna().tolist() == [False, False, True, True]


@pytest.mark.parametrize("suffix", TABLE_SUFFIXES)
def test_any_table_and_odd_names(tmp_path: Path, suffix: str) -> None:
    common = {"count": 2, "column": 3}
    rows = [{"image": "ä\udce9.png", "p_0": 0.5, **common}, {"image": "b", "p_0": None, **common}]
    write_table(rows, tmp_path / f"g{suffix}")
    if suffix == ".parquet":
        assert pd.read_parquet(tmp_path / "g.parquet")["p_0"].isna().tolist() == [False, True]
    elif suffix != ".csv":
        table = by_astropy(tmp_path / f"g{suffix}")
        assert (len(table), str(table["column"].unit)) == (2, "pix")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


ONE = [("s.tif", 0, PARTS[0][2]), ("s.tif", 3, PARTS[1][2])]


def test_thunderstorm(tmp_path: Path) -> None:
    rows = rows_of(write(tmp_path / "t.csv", ONE, form="thunderstorm", sigma_px=1.2))
    assert list(rows[0]) == ["id", "frame", "x [px]", "y [px]", "sigma [px]", "intensity [ADU]", "uncertainty [px]"]
    assert [(row["id"], row["frame"]) for row in rows] == [("1", "1"), ("2", "1"), ("3", "4")]
    assert (float(rows[0]["x [px]"]), float(rows[0]["y [px]"]), rows[0]["sigma [px]"]) == (1.75, 2.5, "1.2")
    assert float(rows[0]["uncertainty [px]"]) == pytest.approx(np.sqrt(0.5 * (0.01**2 + 0.03**2)))
    assert rows[2]["uncertainty [px]"] == ""


@pytest.mark.parametrize(("gain", "unit", "flux"), [(2.5, "photon", 575.0), (None, "ADU", 230.0)])
def test_fluxes_are_photons_where_the_gain_is_known(tmp_path: Path, gain: float | None, unit: str, flux: float) -> None:
    wanted = Quantities(photons=True)
    for form, suffix in (("thunderstorm", "csv"), ("picasso", "hdf5")):
        with TableWriter(tmp_path / f"t.{suffix}", form=form, columns=wanted.columns) as table:
            for image, frame, targets in ONE:
                table.append(image, frame, targets, wanted.of(targets, Header(), gain))
    assert float(rows_of(tmp_path / "t.csv")[0][f"intensity [{unit}]"]) == flux
    with h5py.File(tmp_path / "t.hdf5") as file:
        assert file["locs"]["photons"][0] == flux


def test_trackmate_and_napari(tmp_path: Path) -> None:
    rows = rows_of(write(tmp_path / "t.csv", ONE, form="trackmate", sigma_px=1.5))
    assert [(row["FRAME"], float(row["X"]), float(row["Y"]), row["Z"]) for row in rows] == [
        ("0", 1.25, 2.0, "0.0"), ("0", 1 / 3, 0.1, "0.0"), ("3", 4.0, 5.0, "0.0"),
    ]  # fmt: skip
    assert [row["QUALITY"] for row in rows] == ["0.9", "0.5", "6.0"]
    assert rows[0]["RADIUS"] == "3.0"
    rows = rows_of(write(tmp_path / "t.csv", ONE, form="napari"))
    features = ["intensity", "score", "x_std", "y_std", "intensity_std", "flags", "group"]
    assert list(rows[0]) == ["index", "axis-0", "axis-1", "axis-2", *features]
    assert [float(value) for value in list(rows[2].values())[:5]] == [2.0, 3.0, 5.0, 4.0, 6.0]
    assert rows[2]["score"] == "nan"
    assert all(value != "" for row in rows for value in row.values())  # napari reads such a column as text


def test_napari_reads_its_points_itself(tmp_path: Path) -> None:
    reader = pytest.importorskip("napari_builtins.io", reason="needs napari")
    path = write(tmp_path / "t.csv", ONE, form="napari")
    places, given, kind = reader.csv_to_layer_data(str(path))
    assert kind == "points"
    assert places.tolist() == [[0.0, 2.0, 1.25], [0.0, 0.1, 1 / 3], [3.0, 5.0, 4.0]]  # frame, row, column
    assert given["properties"]["intensity"].tolist() == [230.0, 1e5, 6.0]
    assert given["properties"]["flags"].tolist() == [0, 5, 0]


def test_picasso(tmp_path: Path) -> None:
    path = write(tmp_path / "t.hdf5", ONE, form="picasso", sigma_px=1.5)
    with h5py.File(path) as file:
        locs = file["locs"][...]
    assert {"frame", "x", "y", "photons", "sx", "sy", "bg", "lpx", "lpy"} == set(locs.dtype.names)
    np.testing.assert_allclose(locs["x"], [1.25, 1 / 3, 4.0], rtol=1e-6)
    assert locs["frame"].tolist() == [0, 0, 3]
    yaml = pytest.importorskip("yaml")
    described = yaml.safe_load((tmp_path / "t.yaml").read_text())
    assert (described["Frames"], described["Height"], described["Width"]) == (4, 20, 30)
    with h5py.File(write(tmp_path / "none.hdf5", [], form="picasso")) as file:
        assert file["locs"].shape == (0,)


@pytest.mark.parametrize("parts", [PARTS, ONE[:1], []])
def test_regions_are_read_by_their_own_package(tmp_path: Path, parts: Any) -> None:
    regions = pytest.importorskip("regions", reason="needs the extra `astro`")
    write(tmp_path / "t.csv", parts, regions=tmp_path / "t.reg")
    found = regions.Regions.read(tmp_path / "t.reg", format="ds9")
    expected = [(x, y) for _, _, targets in parts for x, y in zip(targets.x, targets.y, strict=True)]
    places = np.array([(each.center.x, each.center.y) for each in found]).reshape(-1, 2)
    np.testing.assert_allclose(places, np.array(expected).reshape(-1, 2), atol=1e-4)
    several = len({(image, frame) for image, frame, _ in parts}) > 1
    assert [bool(each.meta.get("tag")) for each in found] == [several] * len(expected)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("t.txt", {}, "must end in"),
        ("t.fits", {"form": "napari"}, r"must end in \.csv"),
        ("t.csv", {"form": "excel"}, "format must be one of thunderstorm, picasso, trackmate, napari, got 'excel'"),
        ("t.csv", {"regions": "t.txt"}, r"must end in \.reg"),
        ("/dev/null", {"form": "picasso"}, "needs a file of its own"),
    ],
)
def test_what_cannot_be_written(tmp_path: Path, name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        TableWriter(tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".parquet", ".fits", ".ecsv"])
def test_rows_are_kept_when_a_run_breaks(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"t{suffix}").write_text("older")
    writer = TableWriter(tmp_path / f"t{suffix}")
    with pytest.raises(KeyboardInterrupt), writer:
        writer.append(*PARTS[0])
        raise KeyboardInterrupt
    assert (tmp_path / f"t{suffix}").read_text() == "older"
    assert writer.partial_path.name == f"t{suffix}.partial.csv"
    assert read_targets_table(writer.partial_path) == {PARTS[0][:2]: PARTS[0][2]}


@pytest.mark.parametrize("suffix", TABLE_SUFFIXES)
def test_a_form_that_breaks_leaves_the_older_file(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(source: Callable[[], Any], path: Path, metadata: Any) -> None:
        path.write_text("half")
        raise OSError(28, "no space")

    monkeypatch.setitem(__import__("csist.io.forms", fromlist=["FORMS"]).FORMS, suffix, broken)
    (tmp_path / f"t{suffix}").write_text("older")
    with pytest.raises(InputError, match=r"cannot write .*space"):
        write_table([{"a": 1}], tmp_path / f"t{suffix}")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(f"t{suffix}", "older")]


def test_every_export_has_its_test() -> None:
    assert set(EXPORTS) == {"thunderstorm", "picasso", "trackmate", "napari"}
