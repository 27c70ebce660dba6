"""Parts of the chains that step together: their random numbers, the chance of a step, profiles from polynomials."""

import numpy as np
import pytest

from csist import AiryPSF, GaussianPSF
from csist._compiled import compiled
from csist._vectors import WIDTH, put, take
from csist.methods.continuous.chain_likelihood import fill_profile
from csist.methods.continuous.lanes import LEAST_GAIN, adopt, chance_of
from csist.methods.continuous.likelihood import profile, profile_slope
from csist.methods.continuous.optics import optics_of
from csist.methods.continuous.population import seed_chains, uniform
from csist.physics.psf import SampledPSF


@compiled
def draw(seed, blocks, chains, number):
    random, out = seed_chains(seed, blocks, chains), np.empty((number, blocks, chains), np.float32)
    for n in range(number):
        for block in range(blocks):
            uniform(random[block], out[n, block])
    return out


def test_random_numbers_are_uniform_and_independent() -> None:
    numbers = draw(1, 4, 64, 4000).reshape(4000, 256).astype(float)
    assert numbers.min() >= 0.0
    assert numbers.max() < 1.0
    assert np.unique(numbers).size > 0.96 * numbers.size  # of 2^24 values
    counts = np.histogram(numbers, 256, (0.0, 1.0))[0]
    expected = numbers.size / 256
    assert ((counts - expected) ** 2 / expected).sum() < 255 + 5.0 * np.sqrt(2.0 * 255)
    z = (numbers - 0.5) * np.sqrt(12.0)
    for power, moment in ((1, 0.0), (2, 1.0), (4, 1.8)):
        assert (z**power).mean() == pytest.approx(moment, abs=5.0 * (z**power).std() / np.sqrt(z.size))
    for lag in (1, 2, 3, 7, 64):
        assert abs((z[lag:] * z[:-lag]).mean()) < 5.0 / np.sqrt(z.size)
    between = z.T @ z / len(z) - np.diag((z**2).mean(axis=0))
    assert np.abs(between).max() < 6.0 / np.sqrt(len(z))


def test_seeds_and_chains_have_numbers_of_their_own() -> None:
    first, second = draw(1, 2, 64, 50), draw(2, 2, 64, 50)
    assert (draw(1, 2, 64, 50) == first).all()
    assert np.unique(np.concatenate([first[0], second[0]])).size >= 255


@compiled
def step(gain, drawn, state, trial, chances):
    for part in range(0, gain.shape[0], WIDTH):
        at = (part,)
        chance = chance_of(take(gain, at))
        put(chances, at, chance)
        adopt(state, trial, at, chance, take(drawn, at))


def test_steps_are_taken_with_their_chance() -> None:
    gain = np.concatenate([np.linspace(-25.0, 5.0, 3 * WIDTH - 4), [np.nan, np.inf, -np.inf, LEAST_GAIN]])
    gain = gain.astype(np.float32)
    state, trial = np.zeros(gain.size, np.float32), np.arange(1.0, gain.size + 1.0, dtype=np.float32)
    chances, drawn = np.empty(gain.size, np.float32), np.full(gain.size, 0.3, np.float32)
    step(gain, drawn, state, trial, chances)
    exact = np.where(gain > LEAST_GAIN, np.exp(np.minimum(gain, 0.0).astype(float)), 0.0)
    np.testing.assert_allclose(chances, exact, rtol=1.2e-4)
    assert (state == np.where(exact > 0.3, trial, 0.0)).all()
    step(gain, np.zeros(gain.size, np.float32), state, trial, chances)  # zero is drawn now and then
    assert (state == np.where(exact > 0.0, trial, 0.0)).all()


@compiled
def profiles_of(polynomial, place, begin, end, out):
    scattered = np.empty((polynomial.shape[0], WIDTH), np.float32)
    fill_profile(polynomial, take(place, (0,)), (begin, end), 0, scattered, out)


def skewed_psf() -> SampledPSF:
    y, x = np.mgrid[-24:25, -24:25] / 5.0
    return SampledPSF(np.exp(-0.5 * ((x + 0.15 * y**2 - 0.2) ** 2 + (y - 0.1) ** 2) / 1.2**2), oversampling=5)


@pytest.mark.parametrize("psf", [GaussianPSF(0.5), GaussianPSF(1.3), AiryPSF(1.4), skewed_psf()], ids=repr)
@pytest.mark.parametrize("spread_px", [0.4, 3.0])
def test_profiles_of_chains_are_those_of_the_tables(psf: GaussianPSF, spread_px: float) -> None:
    """Halves of mirrored profiles stand for each other, also where a window cuts one of them off."""
    optics = optics_of(psf)
    place = (4.0 + np.random.default_rng(2).uniform(-spread_px, spread_px, WIDTH)).astype(np.float32)
    axes, ranks = optics.polynomials.shape[1:3]
    for axis in range(axes):
        for rank in range(min(ranks, 2)):  # others are noise, and steep at its edge
            for kind, function in enumerate((profile, profile_slope)):
                table, out = optics.tables[axis, rank], np.full((9, 1, WIDTH), np.nan, np.float32)
                for begin, end in ((0, 9), (3, 9), (0, 5)):
                    profiles_of(optics.polynomials[kind, axis, rank], place, begin, end, out)
                    expected = np.empty((9, WIDTH))
                    for lane in range(WIDTH):
                        column = np.empty(9)
                        function(table, float(place[lane]), 0, column)
                        expected[:, lane] = column
                    np.testing.assert_allclose(out[begin:end, 0], expected[begin:end], atol=1e-2 if kind else 1e-4)


def test_profiles_of_one_parity_are_recognised() -> None:
    for psf, mirrored in ((GaussianPSF(0.5), True), (AiryPSF(1.4), True), (skewed_psf(), False)):
        values = optics_of(psf).polynomials[0, 1, 0]
        signs = (-1.0) ** np.arange(values.shape[1])
        assert (values == values[::-1] * signs).all() == mirrored
        assert (values[len(values) // 2, 1] == 0.0) == mirrored
