"""What a link says is what was chosen, and nothing else is let in."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import pytest

from csist.app.settings import LABELS, SECTIONS, Settings, example_names, from_query, in_words, working_methods
from csist.checks import InputError
from csist.create import create_method
from csist.frames.options import FALSE_ALARM_RATE
from csist.io import read_image, sample_frames
from csist.methods.table import METHODS
from csist.physics.psf import EllipticalGaussianPSF
from csist.physics.sensor import Sensor

CHOSEN = Settings(
    source="build", count=4, separation_px=0.85, intensity=120.0, scene_noise=2.5, seed=77, ratio=5, mode="fast",
    methods=("continuous", "ista+refine"), prior="csist-100k", psf_sigma=0.7, noise_std=0.0, background=-3.5,
    psf="elliptical", psf_sigma_y=0.9, psf_angle=-30.0, gain=2.5, read_noise=1.5, saturation=250.0, frames=4,
    alarm_exponent=-6.5, min_score=0.25,
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
        ("psf", "psf.npy"),
        ("min_score", "1.5"),
        ("alarm_exponent", "0"),
        ("frames", "1000"),
        ("gain", "0"),
        ("methods", "no-such"),
        ("methods", "ista ista ista ista ista"),
    ],
)
def test_a_link_with_a_bad_value_is_answered_by_its_label(name: str, value: str) -> None:
    with pytest.raises(InputError, match="method" if name == "methods" else f"^{LABELS[name]}") as caught:
        from_query({name: value})
    assert "_" not in str(caught.value).partition(", got")[0].partition(":")[0] or name in ("example", "methods")


def test_every_setting_has_a_label_and_messages_of_the_solver_use_it() -> None:
    assert set(LABELS) == set(Settings.__dataclass_fields__)
    for name in LABELS:
        assert "_" not in in_words(f"{name} must be > 0, got -1")


def test_a_section_is_open_where_a_value_is_not_the_default() -> None:
    for name, fields in SECTIONS.items():
        assert not Settings().changed(fields)
        assert CHOSEN.changed(fields), name
    assert {field for fields in SECTIONS.values() for field in fields} <= set(Settings.__dataclass_fields__)


def test_an_elliptical_psf_needs_both_widths() -> None:
    with pytest.raises(InputError, match="both sigmas"):
        Settings(psf="elliptical", psf_sigma=1.0)
    psf = Settings(psf="elliptical", psf_sigma=1.0, psf_sigma_y=1.5, psf_angle=20.0).stated_psf
    assert psf == EllipticalGaussianPSF(1.0, 1.5, 20.0)
    assert Settings().stated_psf is None and Settings(psf="auto", psf_sigma=1.0).stated_psf is None


def test_the_default_threshold_is_that_of_the_command_line() -> None:
    assert Settings().false_alarm_rate == FALSE_ALARM_RATE
    assert Settings(alarm_exponent=-6.0).false_alarm_rate == pytest.approx(1e-6)


@pytest.mark.parametrize("change", [{"count": 2.5}, {"seed": None}, {"methods": ()}])
def test_controls_cannot_say_more_than_a_link(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Settings(**change)


def test_methods_that_are_offered_work() -> None:
    names = working_methods()
    assert {"continuous", "ista", "ista+refine", "fista+centroid"} <= set(names)

    assert all(create_method(name, Sensor(read_noise=1.0)) for name in names if not METHODS[name.split("+")[0]].trained)


def test_examples_are_the_frames_of_the_package() -> None:
    assert Settings.example in example_names()
    for name, path in sample_frames().items():
        assert name in example_names() and len(read_image(path)) == 1
