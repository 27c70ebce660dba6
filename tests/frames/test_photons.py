"""The gain of a frame, measured on the scatter of its bright sources."""

import numpy as np
import pytest
from scipy.spatial import KDTree
from scipy.special import erf

from csist import GaussianPSF, Sensor, unmix_frame
from csist.frames.masks.mask import check_frame
from csist.frames.measured import FrameRules, measure_frame
from csist.frames.photons import gain_of_spots, scatter_of
from csist.frames.psf.measure import spots_of
from csist.photometry import forced_photometry

SIGMA_PX, SIDE_PX = 1.3, 35
PSF = GaussianPSF(SIGMA_PX)


def night(gain, seed, *, pairs=0, fluxes=(2e3, 2e5), number=5, bias=500.0, misfit=0.0):
    """A frame of stars of a camera, and their (x, y, flux), without csist's own simulator.

    Args:
        gain: electrons per count; None for no photon noise.
        seed: of the random numbers.
        pairs: number of stars with a companion that is not resolved.
        fluxes: range in counts.
        number: of stars on a side.
        bias: in counts.
        misfit: share of the light in a second, wider Gaussian.
    """
    rng = np.random.default_rng(seed)
    side = number * SIDE_PX
    place = (np.indices((number, number)).reshape(2, -1) + 0.5) * SIDE_PX + rng.uniform(-4.0, 4.0, (2, number**2))
    flux = np.exp(rng.uniform(*np.log(fluxes), number**2))
    angle, apart = rng.uniform(0.0, 2.0 * np.pi, pairs), rng.uniform(1.2, 2.5, pairs) * SIGMA_PX
    beside = place[:, :pairs] + apart * np.stack([np.cos(angle), np.sin(angle)])
    (y, x), flux = np.concatenate([place, beside], axis=1), np.append(flux, 0.7 * flux[:pairs])
    edges = np.arange(side + 1) - 0.5

    def light(sigma):
        along = [np.diff(0.5 * erf((edges[:, None] - each) / (sigma * 2.0**0.5)), axis=0) for each in (y, x)]
        return np.einsum("ik,jk,k->ij", *along, flux)

    clean = (1.0 - misfit) * light(SIGMA_PX) + misfit * light(2.0 * SIGMA_PX) + 150.0
    noise = rng.normal(0.0, 6.0, clean.shape)
    seen = clean if gain is None else rng.poisson(clean * gain) / gain
    return seen + noise + bias, np.stack([x, y, flux], axis=1)


def measured(image, psf=PSF):
    return gain_of_spots(spots_of(measure_frame(check_frame(image), FrameRules())), psf)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("gain", [None, 20.0])
def test_pairs_alone_are_no_photons(gain, seed):
    # Every star has a close companion, and what the fits of single points leave of them grows with the light.
    found = measured(night(gain, seed, pairs=25)[0])
    assert found is None or (gain is not None and found == pytest.approx(gain, rel=0.45))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("gain", [0.1, 1.0, 20.0])
@pytest.mark.parametrize("pairs", [0, 12])
def test_the_gain_is_that_of_the_camera(gain, seed, pairs):
    assert measured(night(gain, seed, pairs=pairs)[0]) == pytest.approx(gain, rel=0.45)


def test_the_gain_does_not_depend_on_the_unit():
    image = night(2.0, 0)[0]
    assert measured(1e12 * image) == pytest.approx(measured(image) / 1e12, rel=1e-3)


def test_sources_of_one_brightness_show_the_gain_too():
    found = [measured(night(3.0, seed, fluxes=(4e4, 5e4))[0]) for seed in range(4)]
    assert found == pytest.approx([3.0] * 4, rel=0.4)


@pytest.mark.parametrize(
    "image",
    [
        night(None, 0)[0],  # no photon noise
        night(None, 0, misfit=0.1)[0],  # another PSF: scatter that grows with the light
        night(2.0, 0, fluxes=(200.0, 600.0))[0],  # photons that do not matter
        night(2.0, 0, number=2)[0],  # too few sources
        np.random.default_rng(0).normal(50.0, 2.0, (80, 80)),
    ],
    ids=["no photons", "other psf", "faint", "few", "empty"],
)
def test_a_frame_that_does_not_show_photons_has_no_gain(image):
    assert measured(image) is None


def test_what_a_fit_takes_of_the_scatter_is_given_back():
    """The scatter per light is 1 / gain on average, whatever the source."""
    found = []
    for seed in range(12):
        for spot in spots_of(measure_frame(check_frame(night(5.0, seed, fluxes=(1e5, 2e5))[0]), FrameRules())):
            scatter = scatter_of(spot, PSF)
            found.append(scatter.total - scatter.dark)
    assert len(found) > 250
    assert np.mean(found) == pytest.approx(0.2, rel=4.0 * np.std(found) / np.mean(found) / len(found) ** 0.5 + 0.01)


def pulls(found, true):
    """Errors in standard errors (3, n) of the true targets that have one detection alone."""
    distance, place = KDTree(true[:, :2]).query(np.stack([found.x, found.y], axis=1))
    assert set(place.tolist()) == set(range(len(true)))
    alone = (np.bincount(place) == 1)[place]
    assert distance[alone].max() < 1.0
    own, found = true[place[alone]], found[alone]
    errors = np.stack([found.x - own[:, 0], found.y - own[:, 1], found.intensity - own[:, 2]])
    return errors / np.stack([found.x_std, found.y_std, found.intensity_std])


@pytest.mark.parametrize("options", [{"psf": PSF}, {}], ids=["psf", "nothing"])
@pytest.mark.parametrize("gain", [0.3, 3.0])
def test_bright_stars_of_an_unknown_camera_are_single_and_their_errors_true(gain, options):
    found = []
    for seed in range(3):
        image, true = night(gain, seed, fluxes=(1e4, 3e5))
        result = unmix_frame(image, mode="fast", **options)
        assert result.gain == pytest.approx(gain, rel=0.4)
        assert len(result.targets) <= len(true) + 1  # some 13 without photons
        found.append(pulls(result.targets, true))
    rms = np.sqrt((np.concatenate(found, axis=1) ** 2).mean(axis=1))
    assert (rms > 0.75).all()
    assert (rms < 1.4).all()


def test_fluxes_at_known_positions_have_the_noise_of_photons():
    image, true = night(0.5, 0, fluxes=(3e4, 3e5))
    found = forced_photometry(image, true[:, 0], true[:, 1], psf=PSF)
    pull = (found.intensity - true[:, 2]) / found.intensity_std
    assert 0.6 < np.sqrt((pull**2).mean()) < 1.4


def test_a_stated_noise_or_gain_is_not_measured():
    image = night(0.5, 0)[0]
    assert unmix_frame(image, Sensor(PSF, read_noise=18.0), mode="fast").gain is None
    assert unmix_frame(image, psf=PSF, noise_std=18.0, mode="fast").gain is None
    assert unmix_frame(image, psf=PSF, error=np.full(image.shape, 18.0), mode="fast").gain is None
    assert unmix_frame(image, Sensor(PSF, gain=0.7), mode="fast").gain == 0.7
