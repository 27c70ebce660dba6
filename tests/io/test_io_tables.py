"""Tables of targets out and in, and nothing lost when a run is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csist.checks import InputError
from csist.io import (
    TABLE_COLUMNS,
    TableWriter,
    read_targets_table,
    targets_table,
    write_table,
)
from csist.targets import Targets

HEADER = "image,frame,x,y,intensity,score,x_std,y_std,intensity_std,flags,group"

DETECTIONS = [
    (
        "a,b.png",
        0,
        Targets(
            x=[1.25, 1 / 3],
            y=[2.0, 0.1],
            intensity=[230.0, 1e5],
            score=[0.9, 0.5],
            flags=[0, 5],
            group=[0, 1],
        ),
    ),
    ("a,b.png", 3, Targets(x=[4.0], y=[5.0], intensity=[6.0], x_std=[0.01])),
    ("empty.png", 0, Targets.empty()),
    ("007", 0, Targets(x=[1.0], y=[1.0], intensity=[1.0])),
    ("NA", 2, Targets(x=[1.0], y=[1.0], intensity=[np.pi])),
    ('ä "q".png', 0, Targets(x=[7.0], y=[1.0], intensity=[1.0])),
]
EXPECTED = {(image, frame): targets for image, frame, targets in DETECTIONS if len(targets)}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_table_round_trip(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t{suffix}"
    table = targets_table(DETECTIONS)
    assert ",".join(table.columns) == HEADER == ",".join(TABLE_COLUMNS)
    write_table(table, path)
    assert read_targets_table(path) == EXPECTED
    assert list(read_targets_table(path)) == list(EXPECTED)
    write_table(targets_table([]), path)
    assert read_targets_table(path) == {}


def test_csv_text_is_the_contract(tmp_path: Path) -> None:
    write_table(targets_table(DETECTIONS[:2]), tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text().splitlines() == [
        HEADER,
        '"a,b.png",0,1.25,2.0,230.0,0.9,,,,0,0',
        '"a,b.png",0,0.3333333333333333,0.1,100000.0,0.5,,,,5,1',
        '"a,b.png",3,4.0,5.0,6.0,,0.01,,,0,',
    ]


def test_table_writer_writes_the_same_bytes(tmp_path: Path) -> None:
    write_table(targets_table(DETECTIONS), tmp_path / "whole.csv")
    with TableWriter(tmp_path / "rows.csv") as writer:
        for image, frame, targets in DETECTIONS:
            writer.append(image, frame, targets)
            assert not (tmp_path / "rows.csv").exists()
    assert writer.rows == 6
    assert (tmp_path / "rows.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rows.csv", "whole.csv"]


@pytest.mark.parametrize("name", ["rows.csv", "rows.fits"])
def test_an_output_that_is_a_link_stays_one(name: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    real = tmp_path / "elsewhere" / name
    link = tmp_path / name
    link.symlink_to(real)
    for _ in range(2):  # of a file that is not there yet, and of one that is
        write_table(targets_table(DETECTIONS), link)
        with TableWriter(link) as writer:
            for image, frame, targets in DETECTIONS:
                writer.append(image, frame, targets)
        assert link.is_symlink()
        assert not real.is_symlink()
        assert len(read_targets_table(real)) == 5
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == [name]


@settings(max_examples=25)
@given(
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=4),
    name=st.text('ab,"\n é', min_size=1),
)
def test_any_numbers_and_names_survive(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], name: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    targets = Targets(x=values, y=values[::-1], intensity=values)
    with TableWriter(path) as writer:
        writer.append(name, 0, targets)
    assert read_targets_table(path) == {(name, 0): targets}


def test_interrupt_keeps_a_valid_partial_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = TableWriter(tmp_path / "t.csv")
    with pytest.raises(KeyboardInterrupt), writer:
        writer.append(*DETECTIONS[0])
        assert writer._file is not None
        writer._file.write(b"half a li")  # as if the interrupt fell into the next row
        raise KeyboardInterrupt
    assert writer.partial_path.name == "t.csv.partial"
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv.partial"]
    kept = writer.partial_path.rename(tmp_path / "kept.csv")
    assert read_targets_table(kept) == {("a,b.png", 0): DETECTIONS[0][2]}
    with pytest.raises(RuntimeError):
        writer.append(*DETECTIONS[0])


def test_a_killed_run_leaves_its_rows(tmp_path: Path) -> None:
    code = (
        "import os, sys; from csist.io import TableWriter; from csist.targets import Targets\n"
        "with TableWriter(sys.argv[1]) as writer:\n"
        "    writer.append('a', 0, Targets(x=[1.0], y=[1.0], intensity=[1.0])); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "t.csv")], check=False)
    assert (tmp_path / "t.csv.partial").read_text().splitlines()[1:] == ["a,0,1.0,1.0,1.0,,,,,0,"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "damaged"),
        ("x,y\n1,2\n", "lacks the column image, frame, intensity"),
        ("image,frame,x,y,intensity\na,0,1,2\n", "row 2: intensity must be a number"),
        ("image,frame,x,y,intensity\na,0,1,2,3\na,0,one,2,3\n", "row 3: x must be a number, got 'one'"),
        ("image,frame,x,y,intensity\na,0.5,1,2,3\n", "frame must be a number, got '0.5'"),
        ("image,frame,x,y,intensity\na,,1,2,3\n", "frame must be a number, got ''"),
        ("image,frame,x,y,intensity\na,0,inf,2,3\n", "x must be a number, got 'inf'"),
        ("image,frame,x,y,intensity,score\na,0,1,2,3,high\n", "score must be a number, got 'high'"),
        ("image,frame,x,y,intensity,group\na,0,1,2,3,1.5\n", "group must be a number, got '1.5'"),
        ('image,frame,x,y,intensity\n"a,0,1,2,3\n', "damaged"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        read_targets_table(path)
    assert "t.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tables_of_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "\ufeffintensity,frame,x,y,image,colour,score\n3,0,1,2,a,red,\n4,0.0,1,2,a,blue,nan\n",
        encoding="utf-8",
    )
    assert read_targets_table(path) == {("a", 0): Targets(x=[1, 1], y=[2, 2], intensity=[3, 4])}
    with pytest.raises(InputError, match="no such file"):
        read_targets_table(tmp_path / "none.csv")
    with pytest.raises(InputError, match=r"\.csv or \.parquet"):
        read_targets_table(tmp_path / "t.txt")
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"t\.parquet"):
        read_targets_table(tmp_path / "t.parquet")


def test_write_table_takes_rows(tmp_path: Path) -> None:
    write_table([{"a": 1, "b": 0.5}, {"a": 2, "b": None}], tmp_path / "r.csv")
    assert (tmp_path / "r.csv").read_text() == "a,b\n1,0.5\n2,\n"
    write_table([{"a": 1}], tmp_path / "r.PARQUET")
    assert pd.read_parquet(tmp_path / "r.PARQUET")["a"].tolist() == [1]
    with pytest.raises(InputError, match=r"must end in \.csv or \.parquet"):
        write_table([], tmp_path / "r.xlsx")
