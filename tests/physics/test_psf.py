"""PSFs against quadrature and numeric derivatives."""

import numpy as np
import pytest
from scipy.integrate import dblquad

from csist.checks import InputError
from csist.physics.psf import (
    KINDS,
    AiryPSF,
    EllipticalGaussianPSF,
    FieldPSF,
    GaussianPSF,
    MoffatPSF,
    SampledPSF,
    by_place,
    equivalent_sigma,
    outer_response,
    psf_from_card,
    spread_px,
)


def sampled(sigma_px: float = 0.8, oversampling: int = 5, half: int = 30) -> SampledPSF:
    offset = np.arange(-half, half + 1) / oversampling
    return SampledPSF(GaussianPSF(sigma_px).response(offset[None, :], offset[:, None]), oversampling)


PSFS = [
    GaussianPSF(0.5), GaussianPSF(1.7), AiryPSF(1.3), AiryPSF(3.0), sampled(), EllipticalGaussianPSF(0.4, 0.9, 35.0),
    EllipticalGaussianPSF(1.7, 1.0), MoffatPSF(1.2, 2.5), MoffatPSF(3.0, 4.765),
    FieldPSF(np.array([0.0, 90.0]), np.array([10.0]), np.array([[sampled(0.8).array, sampled(1.0).array]]), 5),
]  # fmt: skip
IDS = [
    "gaussian-0.5", "gaussian-1.7", "airy-1.3", "airy-3", "sampled", "elliptical-tilted", "elliptical", "moffat-1.2",
    "moffat-3", "field",
]  # fmt: skip


@pytest.mark.parametrize("sigma", [0.3, 0.5, 2.0])
@pytest.mark.parametrize(("dx", "dy"), [(0.0, 0.0), (0.37, -1.21), (2.4, 0.5)])
def test_gaussian_equals_quadrature(sigma: float, dx: float, dy: float) -> None:
    def density(y: float, x: float) -> float:
        return float(np.exp(-(x * x + y * y) / (2 * sigma**2)) / (2 * np.pi * sigma**2))

    expected, _ = dblquad(density, dx - 0.5, dx + 0.5, dy - 0.5, dy + 0.5, epsabs=1e-12, epsrel=1e-12)
    assert GaussianPSF(sigma).response(dx, dy) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("dx", "dy"), [(0.0, 0.0), (0.8, -0.3), (3.0, 1.0)])
@pytest.mark.parametrize("radius", [1.3, 3.0])
def test_airy_equals_quadrature(radius: float, dx: float, dy: float) -> None:
    psf = AiryPSF(radius)
    expected, _ = dblquad(
        lambda y, x: float(psf.density(np.array(x), np.array(y))), dx - 0.5, dx + 0.5, dy - 0.5, dy + 0.5, epsabs=1e-12
    )
    assert psf.response(dx, dy) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("dx", "dy"), [(0.0, 0.0), (0.8, -0.3), (-1.0, 2.0)])
@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0, -135.0])
def test_elliptical_gaussian_equals_quadrature(angle: float, dx: float, dy: float) -> None:
    along, across = 1.1, 0.4
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))

    def density(y: float, x: float) -> float:
        first, second = x * cos + y * sin, -x * sin + y * cos
        exponent = (first / along) ** 2 + (second / across) ** 2
        return float(np.exp(-0.5 * exponent) / (2 * np.pi * along * across))

    expected, _ = dblquad(density, dx - 0.5, dx + 0.5, dy - 0.5, dy + 0.5, epsabs=1e-12, epsrel=1e-12)
    assert EllipticalGaussianPSF(along, across, angle).response(dx, dy) == pytest.approx(expected, abs=1e-9)


def test_an_elliptical_gaussian_of_equal_axes_is_the_circular_one() -> None:
    rng = np.random.default_rng(4)
    dx, dy = rng.uniform(-3, 3, (2, 100))
    for angle in (0.0, 20.0):
        round_one = EllipticalGaussianPSF(0.7, 0.7, angle)
        assert round_one.response(dx, dy) == pytest.approx(GaussianPSF(0.7).response(dx, dy), abs=1e-9)
    assert equivalent_sigma(EllipticalGaussianPSF(0.5, 2.0, 10.0)) == pytest.approx(1.0)
    wide = EllipticalGaussianPSF(2.0, 4.0, 60.0)
    assert spread_px(wide) == pytest.approx(wide.sigma_px, rel=0.01)


@pytest.mark.parametrize(("dx", "dy"), [(0.0, 0.0), (0.8, -0.3), (3.0, 1.0)])
def test_moffat_equals_quadrature(dx: float, dy: float) -> None:
    psf = MoffatPSF(1.5, 3.0)

    def density(y: float, x: float) -> float:
        alpha = 1.5 / (2 * np.sqrt(2 ** (1 / 3) - 1))
        return float(2.0 / (np.pi * alpha**2) * (1 + (x * x + y * y) / alpha**2) ** -3)

    expected, _ = dblquad(density, dx - 0.5, dx + 0.5, dy - 0.5, dy + 0.5, epsabs=1e-12)
    assert psf.response(dx, dy) == pytest.approx(expected, abs=1e-9)
    assert psf.density(np.array(0.75), np.array(0.0)) == pytest.approx(0.5 * psf.density(np.array(0.0), np.array(0.0)))


def test_airy_first_dark_ring_and_encircled_energy() -> None:
    psf = AiryPSF(4.0)
    assert psf.density(np.array(4.0), np.array(0.0)) < 1e-12
    radius = np.linspace(0, 4.0, 20001)
    ring = 2 * np.pi * radius * psf.density(radius, np.zeros_like(radius))
    # 83.8 % of the light of a clear aperture lies inside the first dark ring (Born & Wolf, 8.5.2)
    assert np.trapezoid(ring, radius) == pytest.approx(0.8378, abs=1e-4)


@pytest.mark.parametrize("psf", PSFS, ids=IDS)
def test_gradient_equals_numeric(psf: GaussianPSF) -> None:
    rng = np.random.default_rng(1)
    dx, dy = rng.uniform(-2.5, 2.5, (2, 40))
    step = 1e-5
    by_x, by_y = psf.gradient(dx, dy)
    # the target moves by +step, so the offset pixel - target shrinks
    assert by_x == pytest.approx((psf.response(dx - step, dy) - psf.response(dx + step, dy)) / (2 * step), abs=1e-8)
    assert by_y == pytest.approx((psf.response(dx, dy - step) - psf.response(dx, dy + step)) / (2 * step), abs=1e-8)


@pytest.mark.parametrize("sigma", [0.4, 0.5, 1.5])
def test_sigma_gradient_equals_numeric(sigma: float) -> None:
    rng = np.random.default_rng(2)
    dx, dy = rng.uniform(-3, 3, (2, 40))
    step = 1e-6
    numeric = (GaussianPSF(sigma + step).response(dx, dy) - GaussianPSF(sigma - step).response(dx, dy)) / (2 * step)
    assert GaussianPSF(sigma).sigma_gradient(dx, dy) == pytest.approx(numeric, abs=1e-8)


CONSERVED = {
    "0.5": (GaussianPSF(0.5), 1e-9),
    "1.7": (GaussianPSF(1.7), 1e-9),
    "sampled": (sampled(), 1e-4),
    "elliptical": (EllipticalGaussianPSF(0.4, 1.5, 25.0), 1e-8),
    "moffat": (MoffatPSF(1.0, 4.0), 1e-6),
}


@pytest.mark.parametrize("name", CONSERVED)
def test_flux_is_conserved(name: str) -> None:
    psf, tolerance = CONSERVED[name]
    pixels = np.arange(-20, 21)
    total = psf.response(pixels[None, :] - 0.3, pixels[:, None] + 0.45).sum()
    assert total == pytest.approx(1.0, abs=tolerance)


def test_sampled_interpolates_what_it_was_sampled_from() -> None:
    rng = np.random.default_rng(3)
    dx, dy = rng.uniform(-3, 3, (2, 200))
    assert sampled().response(dx, dy) == pytest.approx(GaussianPSF(0.8).response(dx, dy), abs=2e-4)
    assert sampled().response(7.0, 0.0) == 0.0


@pytest.mark.parametrize("psf", PSFS, ids=IDS)
def test_beyond_the_reach_there_is_no_light_to_speak_of(psf: GaussianPSF) -> None:
    along = np.arange(np.ceil(psf.reach_px) + 1.0, np.ceil(psf.reach_px) + 30.0)
    peak = float(psf.response(0.0, 0.0))
    assert np.abs(psf.response(along, 0.0)).max() < 2.5e-4 * peak
    outer = outer_response(psf)
    assert outer[-1] == 0.0 and (np.diff(outer) <= 0.0).all() and outer[0] < peak


def test_the_reach_of_an_airy_pattern_goes_past_its_dark_rings() -> None:
    assert AiryPSF(2.0).reach_px > 4.0 * AiryPSF(2.0).radius_px


def test_a_field_psf_is_interpolated_between_its_nodes_and_the_nearest_beyond() -> None:
    narrow, wide = sampled(0.8), sampled(1.0)
    psf = FieldPSF(np.array([0.0, 160.0]), np.array([32.0]), np.array([[narrow.array, wide.array]]), 5)
    assert psf.at(0.0, 0.0) == narrow and psf.at(-50.0, 900.0) == narrow and psf.at(500.0, 32.0) == wide
    dx = np.linspace(-3.0, 3.0, 13)
    expected = 0.5 * (narrow.response(dx, 0.3) + wide.response(dx, 0.3))
    assert psf.at(80.0, 32.0).response(dx, 0.3) == pytest.approx(expected, abs=1e-9)
    assert psf.moved(64.0, 0.0).at(16.0, 0.0) == psf.at(80.0, 0.0)
    found = {each: members.tolist() for each, members in by_place(psf, np.array([0.0, 160.0, 1.0]), np.zeros(3))}
    assert found == {narrow: [0, 2], wide: [1]}
    assert [members.tolist() for _, members in by_place(narrow, np.zeros(2), np.zeros(2))] == [[0, 1]]


@pytest.mark.parametrize(
    ("x", "y", "shape", "message"),
    [
        ([0.0, 0.0], [0.0], (1, 2, 5, 5), "must increase"),
        ([0.0, np.nan], [0.0], (1, 2, 5, 5), "must increase"),
        ([0.0], [0.0], (1, 2, 5, 5), "needs arrays"),
        ([0.0], [0.0], (1, 1, 4, 5), "odd sides"),
    ],
)
def test_bad_fields(x: list[float], y: list[float], shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FieldPSF(np.array(x), np.array(y), np.ones(shape), 1)


@pytest.mark.parametrize("psf", PSFS, ids=IDS)
def test_card_round_trip(psf: GaussianPSF) -> None:
    assert psf_from_card(psf.to_card()) == psf


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_bad_widths(value: float) -> None:
    with pytest.raises(InputError, match="sigma_px must be a finite number > 0"):
        GaussianPSF(value)
    with pytest.raises(InputError, match="radius_px must be a finite number > 0"):
        AiryPSF(value)
    with pytest.raises(InputError, match="sigma_y_px must be a finite number > 0"):
        EllipticalGaussianPSF(1.0, value)
    with pytest.raises(InputError, match="fwhm_px must be a finite number > 0"):
        MoffatPSF(value, 3.0)
    with pytest.raises(InputError, match="beta must be"):
        MoffatPSF(2.0, value)


def test_an_angle_is_finite_and_beta_above_one() -> None:
    with pytest.raises(InputError, match="angle_deg must be finite, got inf"):
        EllipticalGaussianPSF(1.0, 2.0, np.inf)
    with pytest.raises(InputError, match="beta must be above 1"):
        MoffatPSF(2.0, 1.0)


@pytest.mark.parametrize(
    ("array", "oversampling", "message"),
    [
        (np.ones((4, 5)), 1, "odd sides"),
        (np.ones(5), 1, "2-D"),
        (np.full((5, 5), np.nan), 1, "finite"),
        (np.zeros((5, 5)), 1, "positive sum"),
        (np.ones((5, 5)), 0, "oversampling"),
    ],
)
def test_bad_samples(array: np.ndarray, oversampling: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SampledPSF(array, oversampling)


def test_bad_cards() -> None:
    with pytest.raises(InputError, match=f"unknown PSF kind 'bessel': use one of {', '.join(KINDS)}"):
        psf_from_card({"kind": "bessel"})
    with pytest.raises(InputError, match="lacks the field 'beta'"):
        psf_from_card({"kind": "moffat", "fwhm_px": 2.0})
    with pytest.raises(InputError, match="lacks the field"):
        psf_from_card({"kind": "gaussian"})
