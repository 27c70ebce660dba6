"""What a link says is what was chosen, and nothing else is let in."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import pytest

from csist.app.settings import Settings, example_names, from_query, working_methods
from csist.checks import InputError
from csist.create import create_method
from csist.io import read_image
from csist.methods.table import METHODS
from csist.physics.sensor import Sensor

CHOSEN = Settings(
    source="build", count=4, separation_px=0.85, intensity=120.0, scene_noise=2.5, seed=77, ratio=5, mode="fast",
    methods=("continuous", "ista+refine"), prior="csist-100k", psf_sigma=0.7, noise_std=0.0, background=-3.5,
)  # fmt: skip


@pytest.mark.parametrize("settings", [Settings(), CHOSEN, Settings(source="upload", frame=3)])
def test_a_link_restores_what_was_chosen(settings: Settings) -> None:
    assert from_query(dict(parse_qsl(settings.query()))) == settings


def test_a_link_leaves_out_what_is_as_by_default() -> None:
    assert Settings().query() == ""
    assert Settings(seed=3).query() == "seed=3"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("source", "elsewhere"),
        ("example", "../secret"),
        ("count", "0"),
        ("count", "two"),
        ("seed", "-1"),
        ("intensity", "nan"),
        ("psf_sigma", "0"),
        ("noise_std", "inf"),
        ("prior", "/etc/passwd"),
        ("mode", "slow"),
        ("ratio", "4"),
        ("methods", "no-such"),
        ("methods", "ista ista ista ista ista"),
    ],
)
def test_a_link_with_a_bad_value_is_answered_by_name(name: str, value: str) -> None:
    with pytest.raises(InputError, match=name.removesuffix("s")):
        from_query({name: value})


@pytest.mark.parametrize("change", [{"count": 2.5}, {"seed": None}, {"methods": ()}])
def test_controls_cannot_say_more_than_a_link(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Settings(**change)


def test_methods_that_are_offered_work() -> None:
    names = working_methods()
    assert {"continuous", "ista", "ista+refine", "fista+centroid"} <= set(names)

    assert all(create_method(name, Sensor(read_noise=1.0)) for name in names if not METHODS[name.split("+")[0]].trained)


def test_examples_are_the_frames_of_the_package() -> None:
    from importlib.resources import as_file, files

    assert Settings.example in example_names()
    for name in example_names():
        with as_file(files("csist") / "data" / f"{name}.png") as path:
            assert len(read_image(path)) == 1
