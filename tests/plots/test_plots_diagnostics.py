"""Pictures of training, PSF and limits show the values that they are given."""

from __future__ import annotations

import numpy as np
import pytest

from csist.checks import InputError
from csist.physics.psf import GaussianPSF
from csist.plots import limits_by_noise, psf_fit, training_curves

NAN = float("nan")


def drawn(axis: object) -> list[np.ndarray]:
    return [np.asarray(line.get_xydata()) for line in axis.get_lines()]  # type: ignore[attr-defined]


def test_training_curves_part_steps_and_validations() -> None:
    log = {
        "samples": np.array([64.0, 128.0, 128.0, 192.0]),
        "discrepancy": np.array([9.0, 5.0, NAN, 4.0]),
        "cso_map": np.array([NAN, NAN, 12.0, NAN]),
    }
    left, right = training_curves({"a": log}).axes
    assert np.array_equal(drawn(left)[0], [[0.064, 9], [0.128, 5], [0.192, 4]])
    assert np.array_equal(drawn(right)[0], [[0.128, 12]])
    with pytest.raises(InputError, match="got none"):
        training_curves({"a": {name: np.zeros(0) for name in log}})


def test_training_curves_show_the_exact_map_as_a_line() -> None:
    log = {
        "samples": np.array([64.0, 128.0, 192.0]),
        "discrepancy": np.array([9.0, NAN, 4.0]),
        "cso_map": np.array([NAN, 12.0, NAN]),
        "exact_cso_map": np.array([NAN, 46.7, NAN]),
        "exact_squared_error": np.array([NAN, 10.5, NAN]),
    }
    left, right = training_curves({"a": log}).axes
    assert set(drawn(left)[1][:, 1]) == {10.5} and set(drawn(right)[1][:, 1]) == {46.7}
    assert [text.get_text() for axis in (left, right) for text in axis.texts] == ["exact map"] * 2


def test_psf_fit_shows_what_the_gaussian_leaves() -> None:
    dx, dy = (axis.ravel() for axis in np.meshgrid(np.arange(-3.0, 4.0), np.arange(-3.0, 4.0)))
    share = GaussianPSF(0.9).response(dx, dy)
    share[24] += 0.01  # the middle
    left, right = psf_fit(np.stack([dx, dy, share], axis=1), 0.9, 0.002).axes
    assert left.get_title() == "sigma 0.900 ± 0.002 px"
    rest = drawn(right)[0]
    assert rest[24] == pytest.approx([0.0, 0.01]) and np.abs(np.delete(rest[:, 1], 24)).max() < 1e-12
    with pytest.raises(InputError, match="needs pixels"):
        psf_fit(np.zeros((0, 3)), 0.9)


def test_limits_are_drawn_in_the_order_of_the_noise() -> None:
    rows = [
        {"noise_std": 5.0, "limit": (67.0, 70.0), "methods": {"ours": 66.0}},
        {"noise_std": 0.0, "limit": (93.0, 95.0), "methods": {"ours": 94.0, "other": 45.0}},
    ]
    ours, other = drawn(limits_by_noise(rows).axes[0])
    assert np.array_equal(ours, [[0, 94], [5, 66]])
    assert np.array_equal(other, [[0, 45], [5, NAN]], equal_nan=True)
    with pytest.raises(InputError, match="at least one"):
        limits_by_noise([])


def test_the_loss_has_plain_numbers_on_its_axis() -> None:
    log = {
        "samples": np.array([64.0, 128.0]),
        "discrepancy": np.array([27.0, 12.0]),  # less than a decade, where every minor tick has a label
        "cso_map": np.array([NAN, NAN]),
    }
    figure = training_curves({"a": log})
    figure.draw_without_rendering()
    labels = [each.get_text() for each in figure.axes[0].yaxis.get_ticklabels(which="both") if each.get_text()]
    assert len(labels) > 2 and all(label.replace(".", "").isdigit() for label in labels), labels
