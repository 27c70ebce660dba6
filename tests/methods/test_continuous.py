"""The continuous method: its parts against numeric references, the whole against known scenes."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from csist._compiled import compiled
from csist.checks import InputError
from csist.methods.continuous import Continuous
from csist.methods.continuous.annealing import CHAINS_A_BLOCK, Start, anneal, pose_in_pixel
from csist.methods.continuous.chain_likelihood import Kernels
from csist.methods.continuous.cooling import Cloud, Outcome, Plan
from csist.methods.continuous.diagnostics import Diagnostics, compare_chains
from csist.methods.continuous.evidence import log_evidence
from csist.methods.continuous.kernels import kernels
from csist.methods.continuous.likelihood import (
    chi_squared,
    log_likelihood,
    pixel_terms,
    render,
    render_with_jacobian,
)
from csist.methods.continuous.model import AT_CEILING, AT_FLOOR, IGNORED, MEASURED, Bounds, Noise, Stack, Window
from csist.methods.continuous.optics import profile_polynomials, profile_tables
from csist.methods.continuous.optimise import Stop, maximise
from csist.methods.continuous.population import Posterior
from csist.methods.continuous.posterior import Draws, Summary, empty_draws, summarise_stack
from csist.methods.continuous.rounding import NOT_EXACT
from csist.methods.continuous.solvers import less_sure
from csist.methods.continuous.tempering import Groups, Ladder, Laws, temper_stack
from csist.methods.continuous.templates import draw_templates
from csist.metrics import count_accuracy, cso_map, expected_calibration_error, match_detections
from csist.physics.psf import AiryPSF, GaussianPSF, SampledPSF, lone_significance
from csist.physics.sensor import Sensor
from csist.scenes import ScenePrior, sample_scenes
from csist.targets import Flag, Targets

BENCHMARK = ScenePrior.csist_100k()
SHAPE = (9, 8)
THETA = np.array([3.2, 4.1, 230.0, 3.9, 4.6, 180.0, 2.5])
BASIS = np.ones((1, *SHAPE))
EMPTY = np.zeros((0, 5, 5))


@compiled
def climb(
    theta: np.ndarray, bounds: Bounds, window: Window, noise: Noise, tables: np.ndarray, stop: Stop
) -> tuple[float, bool]:
    return maximise(theta, bounds, window, noise, tables, stop)


@compiled
def weigh(theta: np.ndarray, bounds: Bounds, window: Window, noise: Noise, tables: np.ndarray) -> float:
    return log_evidence(theta, bounds, window, noise, tables, False)


@compiled
def pose_window(bounds: Bounds, polynomials: np.ndarray, window: Window, noise: Noise) -> Posterior:
    return pose_in_pixel(bounds, polynomials, window, noise)


@compiled
def anneal_window(call: Kernels, posterior: Posterior, start: Start, plan: Plan, cloud: Cloud) -> Outcome:
    return anneal(call, posterior, start, plan, cloud)


def window_of(data: np.ndarray, code: np.ndarray | None = None, basis: np.ndarray | None = None) -> Window:
    """A whole window; all pixels measured and no background terms unless given."""
    if code is None:
        code = np.full(data.shape, MEASURED, np.int8)
    return Window(data, code, np.ones(data.shape), 0, 0, np.zeros((0, *data.shape)) if basis is None else basis)


def noise_of(variance: float, inverse_gain: float = 0.0) -> Noise:
    return Noise(variance, inverse_gain, NOT_EXACT)


def rendered(theta: np.ndarray, psf: object, row: int = 0, column: int = 0) -> np.ndarray:
    image = np.empty(SHAPE)
    window = Window(image, np.zeros(SHAPE, np.int8), np.ones(SHAPE), row, column, BASIS)
    render(theta, window, profile_tables(psf), np.empty((4, 9)), image)
    return image


def measured(psf: object, noise: float = 2.0, seed: int = 0) -> np.ndarray:
    return rendered(THETA, psf) + np.random.default_rng(seed).normal(0, noise, SHAPE)


def airy_table() -> SampledPSF:
    offset = np.arange(-20, 21) / 4
    return SampledPSF(AiryPSF(1.4).response(offset[None, :], offset[:, None]), 4)


@pytest.mark.parametrize(
    ("psf", "tolerance"),
    [(GaussianPSF(0.5), 1e-7), (GaussianPSF(1.8), 1e-7), (airy_table(), 2e-5)],
    ids=["0.5", "1.8", "sampled"],
)
def test_render_equals_the_sensor(psf: GaussianPSF, tolerance: float) -> None:
    scene = Targets(x=THETA[[0, 3]], y=THETA[[1, 4]], intensity=THETA[[2, 5]])
    expected = Sensor(psf=psf, shape=SHAPE, background=THETA[6]).render(scene)
    # where the tables end the solver sees nothing, the sensor a last faint tail
    assert rendered(THETA, psf) == pytest.approx(expected, abs=tolerance * 410 + 1e-3)


def test_window_offset() -> None:
    whole, part = rendered(THETA, GaussianPSF(0.6)), np.empty((4, 5))
    window = Window(part, np.zeros((4, 5), np.int8), np.ones((4, 5)), 2, 1, np.ones((1, 4, 5)))
    render(THETA, window, profile_tables(GaussianPSF(0.6)), np.empty((4, 9)), part)
    assert part == pytest.approx(whole[2:6, 1:6], abs=1e-12)


@pytest.mark.parametrize("psf", [GaussianPSF(0.5), airy_table()], ids=["gaussian", "sampled"])
def test_jacobian_equals_numeric(psf: GaussianPSF) -> None:
    image, jacobian = np.empty(SHAPE), np.empty((7, *SHAPE))
    window = window_of(image, basis=BASIS)
    render_with_jacobian(THETA, window, profile_tables(psf), np.empty((4, 9)), image, jacobian)
    assert image == pytest.approx(rendered(THETA, psf), abs=1e-10)
    for p in range(7):
        step = np.zeros(7)
        step[p] = 1e-4
        numeric = (rendered(THETA + step, psf) - rendered(THETA - step, psf)) / 2e-4
        assert jacobian[p] == pytest.approx(numeric, abs=2e-3)


@pytest.mark.parametrize("inverse_gain", [0.0, 0.3])
def test_pixel_terms_equal_numeric(inverse_gain: float) -> None:
    rng = np.random.default_rng(0)
    mu = rng.uniform(5, 60, SHAPE)
    data = mu + rng.normal(0, 3, SHAPE)
    code = np.full(SHAPE, MEASURED, np.int8)
    code[0], code[1], code[2] = AT_CEILING, AT_FLOOR, IGNORED
    slope, curvature = np.empty(SHAPE), np.empty(SHAPE)
    window, noise = window_of(data, code), noise_of(4.0, inverse_gain)
    total = pixel_terms(mu, window, noise, slope, curvature)
    assert total == pytest.approx(log_likelihood(mu, window, noise))
    for i, j in ((0, 0), (1, 3), (2, 2), (5, 5), (8, 7)):
        values = []
        for step in (1e-4, -1e-4):
            shifted = mu.copy()
            shifted[i, j] += step
            values.append(log_likelihood(shifted, window, noise))
        if inverse_gain == 0.0 or code[i, j] == MEASURED:
            assert slope[i, j] == pytest.approx((values[0] - values[1]) / 2e-4, abs=1e-4)
    assert (curvature >= 0).all()
    assert (curvature[2] == 0).all()


def test_censored_pixel_far_below_its_bound_stays_finite() -> None:
    code = np.full((3, 3), AT_CEILING, np.int8)
    value = log_likelihood(np.zeros((3, 3)), window_of(np.full((3, 3), 254.5), code), noise_of(1 / 12))
    # the normal tail at -a is phi(a) / a to first order
    a = 254.5 * np.sqrt(12)
    assert value == pytest.approx(9 * (-0.5 * a * a - np.log(a) - 0.5 * np.log(2 * np.pi)), rel=1e-9)


def test_maximise_finds_the_truth_and_respects_bounds() -> None:
    window, tables = window_of(rendered(THETA, GaussianPSF(0.5)), basis=BASIS), profile_tables(GaussianPSF(0.5))
    low = np.array([0, 0, 1.0, 0, 0, 1.0, -10])
    high = np.array([7, 8, 500.0, 7, 8, 500.0, 10])
    start = np.array([3.0, 4.0, 200.0, 4.1, 4.8, 200.0, 0.0])
    theta = start.copy()
    value, converged = climb(theta, Bounds(low, high, False, 0.1), window, noise_of(1.0), tables, Stop(100, 1e-9))
    assert converged
    assert value == pytest.approx(0.0, abs=1e-6)
    assert theta == pytest.approx(THETA, abs=1e-3)
    high[2] = 210.0
    theta = start.copy()
    climb(theta, Bounds(low, high, False, 0.1), window, noise_of(1.0), tables, Stop(100, 1e-9))
    assert theta[2] == 210.0


def single_target_posterior() -> tuple:
    """One target, 3 parameters, integrated on a fine grid: log evidence, means and standard deviations."""
    psf, variance = GaussianPSF(0.5), 25.0
    data = np.empty((5, 5))
    truth = np.array([2.2, 1.9, 234.0])
    tables = profile_tables(psf)
    render(truth, window_of(data), tables, np.empty((4, 5)), data)
    data += np.random.default_rng(4).normal(0, 5.0, data.shape)
    low, high = np.array([1.5, 1.5, 220.0]), np.array([2.5, 2.5, 250.0])
    axes = [np.linspace(a, b, n) for a, b, n in zip(low, high, (81, 81, 41), strict=True)]
    x, y, f = np.meshgrid(*axes, indexing="ij")
    model = Sensor(psf=psf, shape=(5, 5)).responses(x.ravel(), y.ravel()) * f.ravel()[:, None, None]
    value = -0.5 * ((data - model) ** 2).sum(axis=(1, 2)) / variance
    weight = np.exp(value - value.max()).reshape(x.shape)
    for axis in range(3):  # trapezoidal rule
        ends = [slice(None)] * 3
        for end in (0, -1):
            ends[axis] = end
            weight[tuple(ends)] *= 0.5
    cells = np.prod([n - 1 for n in (81, 81, 41)])
    evidence = value.max() + np.log(weight.sum() / cells)
    means = [(weight * g).sum() / weight.sum() for g in (x, y, f)]
    stds = [np.sqrt((weight * (g - m) ** 2).sum() / weight.sum()) for g, m in zip((x, y, f), means, strict=True)]
    return data, tables, variance, low, high, truth, evidence, np.array(means), np.array(stds)


def test_laplace_evidence_equals_integration() -> None:
    data, tables, variance, low, high, mode, evidence, _, _ = single_target_posterior()
    theta, bounds = mode.copy(), Bounds(low, high, False, 0.0)
    climb(theta, bounds, window_of(data), noise_of(variance), tables, Stop(100, 1e-9))
    value = weigh(theta, bounds, window_of(data), noise_of(variance), tables)
    assert value == pytest.approx(evidence, abs=0.3)


def test_annealed_samples_and_their_evidence_equal_integration() -> None:
    data, tables, variance, low, high, _, evidence, means, stds = single_target_posterior()
    start = Start(np.random.default_rng(1).random((4000, 1, 2)) - 0.5, 2, 2, np.ones(4000), 1e9)
    bounds, polynomials = Bounds(low, high, False, 0.0), profile_polynomials(tables)
    cloud = Cloud(np.empty((20 * CHAINS_A_BLOCK, 3)), np.empty(20 * CHAINS_A_BLOCK))
    noise, plan = noise_of(variance), Plan(10, 20, 100, 2, 1)
    posterior = pose_window(bounds, polynomials, window_of(data), noise)
    outcome = anneal_window(kernels(noise), posterior, start, plan, cloud)
    samples, found = cloud.theta, outcome.log_evidence
    assert (np.abs(samples.mean(axis=0) - means) < 0.12 * stds).all()
    assert samples.std(axis=0) == pytest.approx(stds, rel=0.08)
    assert found == pytest.approx(evidence, abs=0.2)


def test_tempered_samples_equal_integration() -> None:
    data, tables, variance, low, high, start, _, means, stds = single_target_posterior()
    groups = Groups(
        np.array([1]), np.array([[0, 5, 0, 5]]), start.reshape(1, 1, 3), np.array([1]), low[None], high[None],
        np.array([variance]), np.array([0.0]),
    )  # fmt: skip
    ladder = Ladder(np.array([1.0, 4.0]), 2, 32, np.array([2500]), 0.2, 1, is_scattered=False, turns=1)
    draws, laws = empty_draws(1, 4000, 3), Laws(profile_polynomials(tables), False, 0.0, NOT_EXACT)
    stack = Stack(data[None], np.zeros((1, 5, 5), np.int8), np.ones((1, 5, 5)), EMPTY)
    temper_stack(kernels(noise_of(variance)), stack, groups, laws, ladder, draws)
    kept, samples = draws.kept[0], draws.theta[0]
    assert kept == 4000
    assert (np.abs(samples.mean(axis=0) - means) < 0.12 * stds).all()
    assert samples.std(axis=0) == pytest.approx(stds, rel=0.08)


def test_annealing_equals_weighing_many_draws_of_the_prior() -> None:
    """Three targets inside a pixel at sigma = 5: importance sampling of 400,000 draws is the reference."""
    sensor = Sensor(read_noise=5.0, shape=(7, 7))
    scene = Targets(x=[2.7, 3.3, 3.2], y=[3.2, 3.3, 2.6], intensity=[230.0, 240.0, 225.0])
    image = sensor.observe(scene, 3)
    rng = np.random.default_rng(4)
    x, y = (rng.uniform(2.5, 3.5, (2_000_000, 3)) for _ in range(2))
    apart = [
        np.hypot(x[:, a] - x[:, b], y[:, a] - y[:, b]) >= BENCHMARK.min_separation_px
        for a, b in ((0, 1), (0, 2), (1, 2))
    ]
    keep = np.all(apart, axis=0).nonzero()[0][:400_000]
    x, y, flux = x[keep], y[keep], rng.uniform(*BENCHMARK.intensity_range, (len(keep), 3))
    misfit = np.concatenate(
        [
            ((sensor.render_stack(x[n], y[n], flux[n]) - image) ** 2).sum(axis=(1, 2))
            for n in np.array_split(np.arange(len(keep)), 40)
        ]
    )
    weight = np.exp(-0.5 * (misfit - misfit.min()) / (25.0 + 1 / 12))
    assert weight.sum() ** 2 / (weight**2).sum() > 150  # the reference itself must be worth something
    moments = {}
    _, groups = Continuous(sensor=sensor, prior=BENCHMARK, noise_std=5.0).solve(image[None], keep_samples=True)
    cloud = groups[0].samples
    assert cloud.shape[1:] == (3, 3)
    # symmetric functions of the targets do not depend on their order
    for name, function in {
        "flux": lambda x, y, f: f.sum(axis=1),
        "spread": lambda x, y, f: x.var(axis=1) + y.var(axis=1),
        "rightmost": lambda x, y, f: x.max(axis=1),
        "lowest": lambda x, y, f: y.max(axis=1),
    }.items():
        values = function(x, y, flux)
        mean = np.average(values, weights=weight)
        moments[name] = mean, np.sqrt(np.average((values - mean) ** 2, weights=weight))
        mine = function(*np.moveaxis(cloud, 2, 0))
        assert mine.mean() == pytest.approx(moments[name][0], abs=0.3 * moments[name][1]), name
        assert mine.std() == pytest.approx(moments[name][1], rel=0.25), name


NO_BOUNDS = np.full(6, -np.inf), np.full(6, np.inf)


def summarised(samples: np.ndarray, widening: float, low: np.ndarray, high: np.ndarray) -> Summary:
    """Estimate, deviation and score of two targets from samples (m, 6), which are put in order."""
    number = len(samples)
    draws = Draws(samples[None], np.zeros((1, number)), np.array([number]), np.zeros((1, 4)))
    summary = Summary(np.empty((1, 2, 3)), np.empty((1, 2, 3)), np.empty((1, 2)))
    summarise_stack(draws, np.array([2]), np.array([widening]), low[None], high[None], summary)
    return Summary(*(field[0] for field in summary))


def test_summary_undoes_label_switches() -> None:
    rng = np.random.default_rng(0)
    samples = np.tile([1.0, 1.0, 100.0, 2.0, 1.5, 200.0], (500, 1)) + rng.normal(0, 0.02, (500, 6))
    swapped = rng.random(500) < 0.5
    samples[swapped] = samples[swapped][:, [3, 4, 5, 0, 1, 2]]
    estimate, deviation, score = summarised(samples, 1.0, *NO_BOUNDS)
    order = estimate[:, 0].argsort()
    assert estimate[order] == pytest.approx(np.array([[1, 1, 100], [2, 1.5, 200]]), abs=0.01)
    assert deviation == pytest.approx(np.full((2, 3), 0.02), rel=0.15)
    assert (score > 0.97).all()


def test_widening_changes_the_spread_alone_and_keeps_the_bounds() -> None:
    samples = np.tile([1.0, 1.0, 100.0, 2.0, 1.5, 200.0], (500, 1))
    samples += np.random.default_rng(0).normal(0, 0.1, (500, 6))
    high = np.array([np.inf, np.inf, np.inf, np.inf, 1.51, np.inf])
    results = []
    for widening, most in ((1.0, NO_BOUNDS[1]), (2.5, NO_BOUNDS[1]), (2.5, high)):
        cloud = samples.copy()
        results.append((*summarised(cloud, widening, NO_BOUNDS[0], most), cloud))
    plain, wide, bounded = results
    for result in (wide, bounded):
        assert np.array_equal(result[0], plain[0]) and np.array_equal(result[2], plain[2])
    assert wide[1] == pytest.approx(2.5 * plain[1], rel=1e-9)
    assert bounded[3][:, 4].max() == 1.51
    assert bounded[1][1, 1] < 0.8 * wide[1][1, 1]


def test_less_sure_scores_keep_their_order_and_never_reach_certainty() -> None:
    scores = np.linspace(0.0, 1.0, 101)
    np.testing.assert_array_equal(less_sure(scores, 160, 1.0), scores)
    shrunk = less_sure(scores, 160, 0.6)
    assert (np.diff(shrunk) > 0.0).all()
    assert 0.0 < shrunk[0] < 0.05
    assert 0.95 < shrunk[-1] < 1.0
    assert shrunk[50] == pytest.approx(0.5)


@pytest.mark.parametrize("mode", ["accurate", "fast"])
def test_scores_of_crowded_noisy_groups_are_probabilities(mode: str) -> None:
    prior, sensor = replace(ScenePrior.csist_100k(), count_range=(4, 5)), Sensor(read_noise=5.0)
    rng = np.random.default_rng(8)
    truths = sample_scenes(prior, sensor, 300 if mode == "fast" else 60, rng)
    images = np.stack([sensor.observe(truth, rng) for truth in truths])
    found = Continuous(sensor=sensor, prior=prior, mode=mode, noise_std=5.0).predict(images)
    matches = match_detections(found, truths)
    # Chains of few steps were sure by 0.96 where 0.89 are right.
    assert matches.key.mean() == pytest.approx((matches.distance_px <= 0.25).mean(), abs=0.045)


def test_templates_share_no_scene_with_a_dataset_of_any_small_seed() -> None:
    templates = draw_templates(GaussianPSF(0.5), BENCHMARK, 2, 64)
    mine = {float(v) for v in templates.positions[5, :, :5].ravel()}
    for seed in range(8):
        drawn = np.random.default_rng(seed).random(200_000)
        assert not mine & set((drawn - 0.5).tolist())


@pytest.fixture(scope="module")
def benchmark() -> tuple[np.ndarray, list[Targets]]:
    sensor = Sensor()
    truth = sample_scenes(BENCHMARK, sensor, 60, 21)
    return np.stack([sensor.observe(t, i) for i, t in enumerate(truth)]), truth


@pytest.mark.parametrize(("mode", "floor"), [("accurate", 88.0), ("fast", 82.0)])
def test_benchmark_windows(benchmark: tuple, mode: str, floor: float) -> None:
    images, truth = benchmark
    found = Continuous(prior=BENCHMARK, mode=mode).predict(images)
    assert count_accuracy(found, truth) >= 0.97
    assert cso_map(found, truth)["CSO-mAP"] > floor
    assert all(((t.score >= 0) & (t.score <= 1)).all() for t in found)


def test_same_answer_in_any_batch_order_and_thread_count(benchmark: tuple) -> None:
    images = benchmark[0][:40]
    method = Continuous(prior=BENCHMARK, mode="fast", noise_std=0.0, workers=2)
    together = method.predict(images)
    assert method.predict(images[::-1])[::-1] == together
    assert Continuous(prior=BENCHMARK, mode="fast", noise_std=0.0, workers=1).predict(images) == together
    assert method.predict(images[7:8]) == together[7:8]


def test_intervals_hold_what_they_promise(benchmark: tuple) -> None:
    images, truth = benchmark
    found, groups = Continuous(prior=BENCHMARK, noise_std=0.0).solve(images, keep_samples=True)
    assert found == Continuous(prior=BENCHMARK, noise_std=0.0).predict(images)
    inside = []
    for detections, group, scene in zip(found, groups, truth, strict=True):
        if len(detections) != len(scene):
            continue
        distance = np.hypot(detections.x[:, None] - scene.x, detections.y[:, None] - scene.y)
        mine, theirs = linear_sum_assignment(distance)
        low, high = group.interval(0.68)[:, mine]
        true = np.stack([scene.x, scene.y, scene.intensity], axis=1)[theirs]
        inside.append((low <= true) & (true <= high))
        assert group.covariance().shape == (3 * group.count, 3 * group.count)
    assert np.concatenate(inside).mean() == pytest.approx(0.68, abs=0.09)


def test_samples_are_kept_only_on_demand(benchmark: tuple) -> None:
    group = Continuous(prior=BENCHMARK, mode="fast").solve(benchmark[0][:1])[1][0]
    with pytest.raises(InputError, match="keep_samples"):
        group.interval()


def test_input_is_left_alone(benchmark: tuple) -> None:
    images = benchmark[0][:3].copy()
    Continuous(prior=BENCHMARK, mode="fast").predict(images)
    assert (images == benchmark[0][:3]).all()


def test_flat_prior_resolves_a_pair_and_its_errors_are_honest() -> None:
    sensor = Sensor(read_noise=1.0)
    truth = [Targets(x=[4.8, 5.75], y=[5.2, 5.2], intensity=[300.0, 200.0])] * 60
    images = np.stack([sensor.observe(t, i) for i, t in enumerate(truth)])
    found, groups = Continuous(sensor=sensor).solve(images)
    right = [t for t in found if len(t) == 2]
    assert len(right) >= 54
    pulls = np.concatenate([(np.sort(t.x) - [4.8, 5.75]) / t.x_std[t.x.argsort()] for t in right])
    assert 0.75 < pulls.std() < 1.3
    assert all(g.count_probability.sum() == pytest.approx(1.0) for g in groups)


def test_flat_prior_gives_up_after_two_counts_that_explain_nothing_more() -> None:
    sensor, rng = Sensor(GaussianPSF(1.1), shape=(13, 13), background=50.0, read_noise=2.0), np.random.default_rng(3)
    pair = Targets(x=[5.2, 6.9], y=[6.1, 6.4], intensity=[2000.0, 2500.0])
    images = np.stack([sensor.observe(pair, rng) for _ in range(60)])
    _, groups = Continuous(sensor=sensor, noise_std=2.0, mode="fast").solve(images)
    chances = np.stack([group.count_probability for group in groups])
    assert (chances.argmax(axis=1) == 2).mean() > 0.95
    fruitless = (chances[:, 3:5] < np.exp(-3.0) * chances[:, 2:3]).all(axis=1)
    assert fruitless.sum() > 20 and not chances[fruitless, 5:].any()


def test_flat_prior_takes_faint_and_bright() -> None:
    sensor = Sensor(read_noise=1.0, shape=(14, 14), background=100.0)
    scene = Targets(x=[3.0, 9.6], y=[4.0, 10.3], intensity=[25.0, 40_000.0])
    found = Continuous(sensor=sensor, noise_std=1.0).predict(sensor.observe(scene, 1)[None])[0]
    assert len(found) == 2
    order = found.intensity.argsort()
    assert found.x[order] == pytest.approx(scene.x, abs=0.25)
    assert found.intensity[order][1] == pytest.approx(40_000, rel=1e-3)


@pytest.mark.parametrize("mode", ["fast", "accurate"])
@pytest.mark.parametrize("snr", [8.0, 12.0])
def test_faint_fluxes_do_not_remember_where_the_chains_started(snr: float, mode: str) -> None:
    """Starts were kept 1e-4 of the flux range from its lower bound: 10 standard errors with the flat prior."""
    sensor, rng = Sensor(GaussianPSF(1.3), shape=(15, 15), read_noise=3.0, quantised=False), np.random.default_rng(5)
    flux = snr * 3.0 / lone_significance(sensor.psf)
    scenes = [Targets(x=[x], y=[y], intensity=[flux]) for x, y in rng.uniform(6.5, 7.5, (100, 2))]
    images = np.stack([sensor.observe(scene, rng) for scene in scenes])
    found = Continuous(sensor=sensor, noise_std=3.0, background="surface", mode=mode).predict(images)
    one = [each for each in found if len(each) == 1]
    assert len(one) > 90
    pulls = np.array([(each.intensity[0] - flux) / each.intensity_std[0] for each in one])
    assert abs(pulls.mean()) < 0.35
    assert 0.7 < np.sqrt((pulls**2).mean()) < 1.3


def test_errors_do_not_come_from_chains_that_cannot_move() -> None:
    """A star fitted by two targets at their smallest separation, or with one in a corner, had an error near or at 0."""
    sensor = Sensor(GaussianPSF(1.3), shape=(13, 13), read_noise=1.0, quantised=False)
    images = np.stack([sensor.observe(Targets([5.7 + 0.01 * n], [5.8], [60.0]), n) for n in range(40)])
    prior, errors = replace(ScenePrior.flat(), count_range=(1, 2)), {}
    for mode in ("fast", "accurate"):
        found = Continuous(sensor=sensor, prior=prior, noise_std=1.0, mode=mode).predict(images)
        assert any(len(each) == 2 for each in found)
        brightest = [each[each.intensity == each.intensity.max()] for each in found]
        errors[mode] = np.array([[*each.x_std, *each.y_std, *each.intensity_std] for each in brightest])
    ratio = errors["fast"] / errors["accurate"]
    assert ratio.min() > 0.6
    assert np.median(ratio, axis=0) == pytest.approx(1.0, abs=0.1)


def test_a_faint_target_in_a_corner_does_not_hold_the_others_in_place() -> None:
    """Nearly all draws around a mode in a corner are outside: they are reflected, so that the star's own move."""
    sensor = Sensor(GaussianPSF(1.3), shape=(13, 13), read_noise=1.0, quantised=False)
    alone = Targets([5.8], [5.7], [400.0])
    scene = Targets.concatenate([alone, Targets([-0.45], [12.45], [45.0])])
    method = Continuous(sensor=sensor, noise_std=1.0, mode="fast", background="surface")
    images = np.stack([sensor.observe(scene, seed) for seed in range(30)])
    both = [found for found in method.predict(images) if len(found) == 2]
    assert len(both) > 10
    (bound,) = method.predict(sensor.observe(alone, 0)[None])
    for found in both:
        star = int(found.intensity.argmax())
        assert 0.5 < found.x_std[star] / bound.x_std[0] < 2.0
        assert 0.5 < found.y_std[star] / bound.y_std[0] < 2.0


def test_unknown_background_is_fitted() -> None:
    sensor = Sensor(read_noise=1.0, background=0.0)
    image = sensor.observe(Targets(x=[5.2], y=[4.7], intensity=[150.0]), 0) + 6.0
    found = Continuous(sensor=sensor, noise_std=1.0, background="constant").predict(image[None])[0]
    assert len(found) == 1
    assert found.intensity[0] == pytest.approx(150.0, abs=4 * found.intensity_std[0])


@pytest.mark.parametrize("prior", [BENCHMARK, ScenePrior.flat()], ids=["csist-100k", "flat"])
def test_edges(prior: ScenePrior) -> None:
    method = Continuous(prior=prior, mode="fast")
    assert method.predict(np.zeros((0, 11, 11))) == []
    assert [len(t) for t in method.predict(np.zeros((2, 11, 11)))] == [0, 0]
    float_sensor = Sensor(quantised=False)
    scene = Targets(x=[5.1], y=[5.2], intensity=[230.0])
    found = Continuous(sensor=float_sensor, prior=prior, noise_std=0.0).predict(float_sensor.render(scene)[None])[0]
    assert found.x[0] == pytest.approx(5.1, abs=0.01)
    corner = Targets(x=[-0.2], y=[0.1], intensity=[240.0])
    found = method.predict(Sensor().observe(corner, 0)[None])[0]
    assert len(found) == 1
    assert (found.x[0], found.y[0]) == pytest.approx((-0.2, 0.1), abs=0.05)


def test_nan_is_refused_or_masked() -> None:
    image = Sensor().observe(Targets(x=[5.1], y=[5.2], intensity=[230.0]), 0)
    image[5, 6] = np.nan
    with pytest.raises(InputError, match="image 0 holds NaN"):
        Continuous(prior=BENCHMARK).predict(image[None])
    found = Continuous(prior=BENCHMARK, mask_nan=True).predict(image[None])[0]
    assert len(found) == 1
    assert found.x[0] == pytest.approx(5.1, abs=0.05)
    assert Flag.MASKED in Flag(int(found.flags[0]))


def test_saturated_pixels_are_only_bounds() -> None:
    sensor = Sensor(bits=8)
    truth = [t for t in sample_scenes(BENCHMARK, sensor, 60, 5) if len(t) in (3, 4)][:12]
    images = np.stack([sensor.observe(t, 0) for t in truth])
    assert (images == 255).any()
    found = Continuous(sensor=sensor, prior=BENCHMARK).predict(images)
    assert count_accuracy(found, truth) >= 0.8
    # the saturation unknown, clipped pixels are believed and the fit must say that it fails
    blind = Continuous(prior=BENCHMARK).predict(images[[(im == 255).sum() > 1 for im in images]])
    assert all(Flag.POOR_FIT in Flag(int(t.flags[0])) for t in blind if len(t))
    assert all(
        Flag.SATURATED in Flag(int(t.flags[0])) for t, im in zip(found, images, strict=True) if (im == 255).any()
    )


def test_censored_pixels_do_not_make_a_good_fit_look_poor() -> None:
    sensor = Sensor(bits=8)  # every dark pixel lies at the floor
    truth = sample_scenes(BENCHMARK, sensor, 60, 8)
    images = np.stack([sensor.observe(t, 0) for t in truth])
    found, groups = Continuous(sensor=sensor, prior=BENCHMARK, mode="fast").solve(images)
    assert np.mean([Flag.POOR_FIT in group.flags for group in groups]) <= 0.02
    assert expected_calibration_error(found, truth) < 0.1


@pytest.mark.parametrize("inverse_gain", [0.0, 0.5])
def test_chi_squared_is_the_residual_in_units_of_the_noise(inverse_gain: float) -> None:
    image = np.array([[1.0, 10.0], [4.0, 7.0]])
    data = np.array([[2.0, 9.5], [3.0, 100.0]])
    code = np.array([[MEASURED, AT_CEILING], [AT_CEILING, IGNORED]], np.int8)
    expected = 1.0 / (2.0 + 1.0 * inverse_gain)  # a ceiling of 9.5 agrees with 10; one of 3 with 4; masked: nothing
    assert chi_squared(image, window_of(data, code), noise_of(2.0, inverse_gain)) == pytest.approx(expected)
    code[:] = AT_FLOOR  # now the image must not be above
    expected = 0.5**2 / (2.0 + 10.0 * inverse_gain) + 1.0 / (2.0 + 4.0 * inverse_gain)
    assert chi_squared(image, window_of(data, code), noise_of(2.0, inverse_gain)) == pytest.approx(expected)


def test_what_the_model_cannot_explain_gets_a_flag_and_a_low_score() -> None:
    image = np.zeros((11, 11))
    image[5, :] = 200.0
    for found in Continuous(prior=BENCHMARK, noise_std=1.0).predict(image[None]):
        assert len(found) == 0 or (Flag.POOR_FIT in Flag(int(found.flags[0])) and found.score.max() < 0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "slow"}, "mode must be one of accurate, fast, got 'slow'"),
        ({"noise_std": -1.0}, "noise_std must be"),
        ({"background": "wavy"}, "background must be one of known, constant, plane"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Continuous(**arguments)


def test_measured_psf_with_a_single_pixel_prior() -> None:
    sensor = Sensor(psf=airy_table(), shape=(11, 11), read_noise=0.5)
    scene = Targets(x=[5.2, 4.7], y=[5.3, 4.8], intensity=[240.0, 225.0])
    found = Continuous(sensor=sensor, prior=BENCHMARK, mode="fast").predict(sensor.observe(scene, 0)[None])[0]
    assert len(found) == 2
    assert np.sort(found.x) == pytest.approx([4.7, 5.2], abs=0.1)


@pytest.mark.parametrize("mode", ["fast", "accurate"])
@pytest.mark.parametrize("level", [20.0, 1e4])
def test_light_that_no_group_can_give_is_a_poor_fit(level: float, mode: str) -> None:
    """An unknown background once left no hypothesis at all, and the search went on with none."""
    sensor, prior = Sensor(read_noise=1.0), ScenePrior.csist_100k()
    scenes = sample_scenes(prior, sensor, 6, seed=3)
    images = np.stack([sensor.observe(scene, n) for n, scene in enumerate(scenes)]) + level
    method = Continuous(sensor=sensor, prior=prior, noise_std=1.0, mode=mode)
    for found, group in zip(*method.solve(images), strict=True):
        assert Flag.POOR_FIT in group.flags
        assert (found.score <= 0.1).all() and np.isfinite(found.x).all()


@pytest.fixture(scope="module")
def mixed_counts() -> np.ndarray:
    """Windows of no target to five."""
    sensor = Sensor(read_noise=1.0)
    scenes = [Targets.empty()] * 2 + sample_scenes(BENCHMARK, sensor, 18, 13)
    return np.stack([sensor.observe(scene, n) for n, scene in enumerate(scenes)])


@pytest.mark.parametrize("mode", ["fast", "accurate"])
@pytest.mark.parametrize(
    "prior",
    [BENCHMARK, replace(BENCHMARK, count_range=(0, 5)), ScenePrior.flat()],
    ids=["csist-100k", "csist-100k or none", "flat"],
)
def test_a_group_carries_everything_whatever_its_count(mixed_counts: np.ndarray, prior: ScenePrior, mode: str) -> None:
    """A window without targets once failed as soon as samples were to be kept."""
    method = Continuous(Sensor(read_noise=1.0), prior=prior, mode=mode, noise_std=1.0)
    targets, groups = method.solve(mixed_counts, keep_samples=True)
    assert 0 in [group.count for group in groups]
    assert len({group.count for group in groups}) >= 3
    for found, group in zip(targets, groups, strict=True):
        count = group.count
        assert len(found) == count
        assert group.count_probability.shape == (prior.count_range[1] + 1,)
        assert group.count_probability.sum() == pytest.approx(1.0)
        assert group.count_probability.argmax() == count
        assert np.isfinite(group.chi_squared) and group.degrees_of_freedom >= 1
        samples, (low, high) = group.samples, group.interval(0.68)
        assert samples is not None and samples.shape[1:] == (count, 3) and len(samples) > 1
        assert low.shape == high.shape == (count, 3) and (low <= high).all()
        covariance = group.covariance()
        assert covariance.shape == (3 * count, 3 * count)
        if count:
            assert covariance == pytest.approx(np.atleast_2d(np.cov(samples.reshape(len(samples), -1).T)), abs=1e-9)
        said = group.diagnostics
        assert said.sampler == ("none" if not count else "annealing" if mode == "accurate" and prior.single_pixel
                                else "tempering")  # fmt: skip
        assert 0.0 <= said.effective_sample_size <= len(samples) + 1e-9
        if count:
            assert said.effective_sample_size >= 1.0 and 0.0 <= said.acceptance <= 1.0 and said.stages >= 1
            assert said.scale_reduction > 0.0
        else:
            assert said == Diagnostics() and said.converged


def test_diagnostics_know_good_chains_from_bad_ones() -> None:
    rng = np.random.default_rng(0)
    chains, records = 16, 100
    good = rng.normal(0.0, 1.0, (records, chains, 3))
    stuck = good * 0.1 + rng.normal(0.0, 1.0, (chains, 3))
    results = [
        compare_chains(kind.reshape(-1, 3), np.ascontiguousarray(kind.reshape(-1, 3)[:, 0]), 1, chains)
        for kind in (good, stuck)
    ]
    (effective, reduction), (few, much) = results
    assert effective > 0.4 * chains * records and reduction < 1.05
    assert few < 3 * chains and much > 2.0
    assert Diagnostics("tempering", effective, 0.3, 1, reduction).converged
    assert not Diagnostics("tempering", few, 0.3, 1, much).converged
    assert compare_chains(np.ones((chains * records, 3)), np.ones(chains * records), 1, chains) == (1.0, np.inf)


def test_errors_of_crowded_windows_are_hardly_ever_zero() -> None:
    """Chains that stayed at their modes gave one in twenty windows with five targets errors of exactly 0 in fast."""
    prior, sensor = replace(ScenePrior.csist_100k(), count_range=(5, 5)), Sensor()
    truths = sample_scenes(prior, sensor, 300, 3)
    images = np.stack([sensor.observe(truth, n) for n, truth in enumerate(truths)])
    found = Continuous(sensor=sensor, prior=prior, mode="fast", noise_std=0.0).predict(images)
    errors = [min(each.x_std.min(), each.y_std.min(), each.intensity_std.min()) for each in found]
    assert np.mean(np.array(errors) < 1e-6) < 0.02
