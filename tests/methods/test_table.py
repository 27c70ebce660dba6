"""The table of methods says what the classes can do."""

from __future__ import annotations

import inspect

import pytest

from csist.checks import InputError
from csist.create import create_method
from csist.methods.continuous.method import MODES
from csist.methods.table import METHODS, SUFFIXES, abilities, methods_that
from csist.physics.sensor import Sensor

GRID = methods_that("grid")


@pytest.mark.parametrize("name", GRID)
def test_a_line_says_whether_one_graph_computes_the_maps(name: str) -> None:
    assert create_method(name, Sensor(), pretrained=False).exportable == METHODS[name].export


@pytest.mark.parametrize("name", [*METHODS, "ista+refine", "ista+centroid"])
def test_a_method_takes_the_arguments_that_its_line_announces(name: str) -> None:
    method, can = create_method(name, Sensor(), pretrained=False), abilities(name)
    taken = inspect.signature(type(method).__init__).parameters
    announced = {"prior": can.prior, "workers": can.threads, "mode": bool(can.modes), "mask_nan": can.masks}
    assert {argument: argument in taken for argument in announced} == announced
    assert method.block_size >= 1


def test_the_continuous_method_has_the_modes_of_its_line() -> None:
    assert abilities("continuous").modes == MODES
    assert methods_that("frames") == ["continuous"]


def test_a_suffix_changes_what_the_pair_can_do() -> None:
    assert not abilities("dista-net").prior
    assert abilities("dista-net+refine").prior
    assert not abilities("dista-net+refine").export
    assert not abilities("dista-net+centroid").threads
    assert "yolo" not in SUFFIXES or abilities("ista+yolo").trained
    with pytest.raises(InputError, match="unknown method"):
        abilities("istaa")
