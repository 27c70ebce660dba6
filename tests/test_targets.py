"""The container: construction, indexing, tables."""

from pathlib import Path

import numpy as np
import pytest

from csist.checks import InputError
from csist.targets import COLUMNS, Flag, Targets

THREE = Targets(
    x=[1.0, 2.5, 3.0], y=[4.0, 5.0, 6.5], intensity=[10.0, 20.0, 30.0], score=[0.9, 0.8, 0.7], x_std=[0.1, np.nan, 0.2],
    flags=[0, int(Flag.AT_BOUND | Flag.SATURATED), 0], group=[0, 0, 1],
)  # fmt: skip


def test_what_is_not_given_is_not_estimated() -> None:
    targets = Targets(x=[1], y=[2], intensity=[3])
    assert np.isnan(targets.score).all()
    assert targets.flags.tolist() == [0]
    assert targets.group.tolist() == [-1]


def test_printed_as_a_table_of_what_is_known() -> None:
    lines = repr(THREE).splitlines()
    assert lines[0] == "3 targets"
    assert lines[1].split() == ["x", "y", "intensity", "score", "x_std", "flags", "group"]
    assert lines[3].split() == ["1", "2.500", "5.000", "20", "0.800", "NaN", "AT_BOUND|SATURATED", "0"]
    assert repr(Targets.empty()) == "0 targets"
    assert repr(THREE[0]).startswith("1 target\n")
    long = Targets(x=np.arange(1000.0), y=np.zeros(1000), intensity=np.full(1000, 1e-18))
    assert len(repr(long).splitlines()) < 30
    assert "1e-18" in repr(long)
    assert THREE._repr_html_().count("<tr") == 4


def test_frozen() -> None:
    with pytest.raises(AttributeError):
        THREE.x = np.zeros(3)  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        THREE.x[0] = 5.0


def test_input_is_copied() -> None:
    x = np.array([1.0])
    targets = Targets(x=x, y=[1.0], intensity=[1.0])
    x[0] = 9.0
    assert targets.x[0] == 1.0


def test_index_slice_mask_concatenate() -> None:
    assert THREE[1].x.tolist() == [2.5]
    assert THREE[:2].x.tolist() == [1.0, 2.5]
    assert THREE[THREE.score > 0.75].y.tolist() == [4.0, 5.0]
    assert Targets.concatenate(list(THREE)) == THREE
    assert Targets.concatenate([]) == Targets.empty()
    assert len(Targets.concatenate([Targets.empty(), THREE])) == 3
    for part in (THREE[1], THREE[:2], THREE[THREE.score > 0.75], Targets.concatenate([THREE, THREE])):
        with pytest.raises(ValueError, match="read-only"):
            part.x[0] = 9.0
    with pytest.raises(InputError, match="one-dimensional"):
        THREE[np.array([[0, 1], [1, 2]])]


@pytest.mark.parametrize("targets", [THREE, Targets.empty(), THREE[:1]], ids=["three", "empty", "one"])
def test_table_round_trips(targets: Targets, tmp_path: Path) -> None:
    targets.to_csv(tmp_path / "t.csv")
    targets.to_parquet(tmp_path / "t.parquet")
    assert Targets.from_csv(tmp_path / "t.csv") == targets
    assert Targets.from_parquet(tmp_path / "t.parquet") == targets
    assert Targets.from_pandas(targets.to_pandas()) == targets


def test_csv_is_blank_where_not_estimated(tmp_path: Path) -> None:
    Targets(x=[1], y=[2], intensity=[3]).to_csv(tmp_path / "t.csv")
    header, row = (tmp_path / "t.csv").read_text().splitlines()
    assert header == ",".join(COLUMNS)
    assert row == "1.0,2.0,3.0,,,,,0,-1"


def test_astropy_round_trip() -> None:
    pytest.importorskip("astropy")
    table = THREE.to_astropy()
    assert str(table["x"].unit) == "pix"
    assert Targets.from_astropy(table) == THREE


def test_bad_input() -> None:
    with pytest.raises(InputError, match="y must be one-dimensional with 2 values"):
        Targets(x=[1, 2], y=[1], intensity=[1, 2])
    with pytest.raises(InputError, match="x must be finite"):
        Targets(x=[np.nan], y=[1], intensity=[1])
    with pytest.raises(InputError, match="missing: intensity"):
        Targets.from_pandas(THREE.to_pandas()[["x", "y"]])
