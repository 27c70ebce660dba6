"""The posterior of one group: tempered sampling, and what to report from the samples.

With four or five targets inside a pixel the likelihood has a curved, nearly flat valley (fluxes trade
against positions), so one mode and its curvature say little. Several chains at rising temperatures explore
it and exchange states (parallel tempering: Geyer 1991; Earl & Deem 2005); each chain moves by random-walk
Metropolis steps scaled by the local Fisher information, renewed as the chain moves.

Chains run in coordinates in which the prior is uniform: x, y, and the flux or its logarithm.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csist.methods.continuous.likelihood import (
    cholesky,
    compiled,
    information_matrix,
    log_likelihood,
    pixel_terms,
    render,
    render_with_jacobian,
)

FloatArray = NDArray[np.float64]

TOLERANCES_PX = np.array([0.05, 0.10, 0.15, 0.20, 0.25])
"""The distances at which CSO-mAP counts a detection as right."""

TIE_BREAK = 0.02
"""Share of the score that ranks targets which are all certain to 0.25 px by how well they hold tighter tolerances."""

SHIFT_WIDTH_PX = 0.25
"""Width of the kernel whose mode is reported: between the posterior mean (wide) and mode (narrow)."""

REFRESH_SWEEPS = 40
TARGET_ACCEPTANCE = 0.25


@compiled
def _uniform(state: Any) -> float:
    """A number in [0, 1) from SplitMix64 (Steele, Lea & Flood 2014); `state` (1,) uint64 advances."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return float(z >> np.uint64(11)) * 1.1102230246251565e-16


@compiled
def _to_theta(v: FloatArray, count: int, log_flux: bool, theta: FloatArray) -> None:
    theta[:] = v
    if log_flux:
        for k in range(count):
            theta[3 * k + 2] = math.exp(v[3 * k + 2])


@compiled
def _keeps_separation(theta: FloatArray, count: int, min_separation: float) -> bool:
    limit = min_separation * min_separation
    for a in range(count):
        for b in range(a):
            dx, dy = theta[3 * a] - theta[3 * b], theta[3 * a + 1] - theta[3 * b + 1]
            if dx * dx + dy * dy < limit:
                return False
    return True


@compiled
def push_apart(theta: FloatArray, count: int, low: FloatArray, high: FloatArray, min_separation: float) -> None:
    """Move targets that are too close, or sit on a bound, just inside what the prior allows."""
    for _ in range(60):
        clear = True
        for a in range(count):
            for b in range(a):
                dx, dy = theta[3 * a] - theta[3 * b], theta[3 * a + 1] - theta[3 * b + 1]
                d = math.sqrt(dx * dx + dy * dy)
                if d < min_separation * 1.0001:
                    clear = False
                    ux, uy = (dx / d, dy / d) if d > 1e-9 else (1.0, 0.0)
                    shift = 0.5 * (min_separation * 1.002 - d)
                    theta[3 * a] += shift * ux
                    theta[3 * a + 1] += shift * uy
                    theta[3 * b] -= shift * ux
                    theta[3 * b + 1] -= shift * uy
        for p in range(theta.shape[0]):
            margin = 1e-4 * (high[p] - low[p])
            theta[p] = min(max(theta[p], low[p] + margin), high[p] - margin)
        if clear:
            break


@compiled
def _smallest_separation(theta: FloatArray, count: int) -> float:
    smallest = np.inf
    for a in range(count):
        for b in range(a):
            smallest = min(smallest, math.hypot(theta[3 * a] - theta[3 * b], theta[3 * a + 1] - theta[3 * b + 1]))
    return smallest


@compiled
def _accumulate(term: float, peak: FloatArray, mass: FloatArray, index: int) -> None:
    """Add exp(term) to a sum kept as mass[index] * exp(peak[index])."""
    if term > peak[index]:
        mass[index] = mass[index] * math.exp(peak[index] - term) + 1.0
        peak[index] = term
    else:
        mass[index] += math.exp(term - peak[index])


@compiled
def temper(
    starts: FloatArray,
    count: int,
    low: FloatArray,
    high: FloatArray,
    log_flux: bool,
    min_separation: float,
    tables: FloatArray,
    row: int,
    column: int,
    basis: FloatArray,
    data: FloatArray,
    code: Any,
    variance: float,
    inverse_gain: float,
    temperatures: FloatArray,
    reservoir: FloatArray,
    reservoir_share: FloatArray,
    sweeps: int,
    burn: int,
    samples: FloatArray,
    values: FloatArray,
    seed: int,
) -> tuple[int, float]:
    """Fill `samples` (m, parameters) and their log likelihoods `values` (m,) from the posterior.

    Chain i starts at starts[i % len(starts)] and sees the likelihood to the power 1 / temperatures[i]; the
    first temperature is 1 and only its states are kept, evenly spaced after `burn` sweeps. Separated targets
    block each other's way at any temperature, so beyond the last chain stands a reservoir: positions
    (m, 2 count) drawn from the prior, with the running sum of their shares (m,) at the last of `temperatures`
    (one more than there are chains). Each sweep draws one of them, with fluxes from the prior, and offers it
    to the last chain in exchange; an empty reservoir switches that off.

    Returns:
        how many samples were filled, and the log evidence (NaN without a reservoir): importance sampling from
        the reservoir for the last chain, then stepping stones from chain to chain (Xie et al. 2011).
    """
    h, w = data.shape
    size = starts.shape[1]
    chains = temperatures.shape[0] - 1 if reservoir.shape[0] > 0 else temperatures.shape[0]
    work = np.empty((4, max(h, w)))
    image, slope, curvature = np.empty((h, w)), np.empty((h, w)), np.empty((h, w))
    jacobian = np.empty((size, h, w))
    weighted, information, base = np.empty(h * w), np.empty((size, size)), np.empty((size, size))
    root = np.zeros((chains, size, size))
    state, trial, theta, _xi = np.empty((chains, size)), np.empty(size), np.empty(size), np.empty(size)
    value = np.empty(chains)
    scale = np.full(chains, 1.8 / math.sqrt(size))
    low_v, high_v = low.copy(), high.copy()
    if log_flux:
        for k in range(count):
            low_v[3 * k + 2], high_v[3 * k + 2] = math.log(low[3 * k + 2]), math.log(high[3 * k + 2])
    random = np.empty(1, np.uint64)
    random[0] = np.uint64(seed)
    separation = min_separation
    for chain in range(chains):
        theta[:] = starts[chain % starts.shape[0]]
        push_apart(theta, count, low, high, min_separation)
        separation = min(separation, _smallest_separation(theta, count))
        state[chain] = theta
        if log_flux:
            for k in range(count):
                state[chain, 3 * k + 2] = math.log(theta[3 * k + 2])
    kept = 0
    # running maximum and sum of exp(. - maximum), one a stepping stone
    peak, mass, terms = np.full(chains, -np.inf), np.zeros(chains), 0
    for sweep in range(sweeps):
        if sweep % REFRESH_SWEEPS == 0:
            for chain in range(chains):
                _to_theta(state[chain], count, log_flux, theta)
                render_with_jacobian(theta, count, tables, row, column, basis, work, image, jacobian)
                value[chain] = pixel_terms(image, data, code, variance, inverse_gain, slope, curvature)
                information_matrix(jacobian, curvature, size, weighted, base)
                for a in range(size):
                    da = theta[a] if log_flux and a < 3 * count and a % 3 == 2 else 1.0
                    for b in range(a + 1):
                        db = theta[b] if log_flux and b < 3 * count and b % 3 == 2 else 1.0
                        information[a, b] = base[a, b] * da * db / temperatures[chain]
                    information[a, a] += 12.0 / (high_v[a] - low_v[a]) ** 2
                cholesky(information, size)
                for c in range(size):  # rows of the inverse factor: a step is xi^T L^-1
                    for i in range(c, size):
                        total = 1.0 if i == c else 0.0
                        for j in range(c, i):
                            total -= information[i, j] * root[chain, j, c]
                        root[chain, i, c] = total / information[i, i]
        for chain in range(chains):
            width = 3.4641016151377544 * scale[chain]
            trial[:] = state[chain]
            for i in range(size):
                step = (_uniform(random) - 0.5) * width
                for c in range(i + 1):
                    trial[c] += step * root[chain, i, c]
            inside = True
            for a in range(size):
                if trial[a] < low_v[a] or trial[a] > high_v[a]:
                    inside = False
                    break
            accepted = 0.0
            if inside:
                _to_theta(trial, count, log_flux, theta)
                if _keeps_separation(theta, count, separation):
                    render(theta, count, tables, row, column, basis, work, image)
                    trial_value = log_likelihood(image, data, code, variance, inverse_gain)
                    if math.log(_uniform(random) + 1e-300) < (trial_value - value[chain]) / temperatures[chain]:
                        value[chain] = trial_value
                        state[chain] = trial
                        accepted = 1.0
            if sweep < burn:
                scale[chain] = min(scale[chain] * math.exp(0.1 * (accepted - TARGET_ACCEPTANCE)), 2.0)
        if sweep >= burn:
            terms += 1
            for chain in range(chains - 1):
                _accumulate(
                    (1.0 / temperatures[chain] - 1.0 / temperatures[chain + 1]) * value[chain + 1],
                    peak,
                    mass,
                    chain,
                )
        for chain in range(chains - 1):
            gain = (1.0 / temperatures[chain] - 1.0 / temperatures[chain + 1]) * (value[chain + 1] - value[chain])
            if math.log(_uniform(random) + 1e-300) < gain:
                value[chain], value[chain + 1] = value[chain + 1], value[chain]
                for a in range(size):
                    state[chain, a], state[chain + 1, a] = state[chain + 1, a], state[chain, a]
        if reservoir.shape[0] > 0:
            drawn = min(
                np.searchsorted(reservoir_share, _uniform(random) * reservoir_share[-1]),
                reservoir.shape[0] - 1,
            )
            trial[:] = state[chains - 1]
            for k in range(count):
                trial[3 * k], trial[3 * k + 1] = reservoir[drawn, 2 * k], reservoir[drawn, 2 * k + 1]
                trial[3 * k + 2] = low_v[3 * k + 2] + _uniform(random) * (high_v[3 * k + 2] - low_v[3 * k + 2])
            _to_theta(trial, count, log_flux, theta)
            render(theta, count, tables, row, column, basis, work, image)
            trial_value = log_likelihood(image, data, code, variance, inverse_gain)
            if sweep >= burn:
                share = reservoir_share[drawn] - (reservoir_share[drawn - 1] if drawn > 0 else 0.0)
                stone = trial_value / temperatures[chains - 1] - math.log(share / reservoir_share[-1] + 1e-300)
                _accumulate(stone - math.log(reservoir.shape[0]), peak, mass, chains - 1)
            gain = (1.0 / temperatures[chains - 1] - 1.0 / temperatures[chains]) * (trial_value - value[chains - 1])
            if math.log(_uniform(random) + 1e-300) < gain:
                value[chains - 1] = trial_value
                state[chains - 1] = trial
        if sweep >= burn and (sweep - burn + 1) * samples.shape[0] // (sweeps - burn) > kept:
            _to_theta(state[0], count, log_flux, samples[kept])
            values[kept] = value[0]
            kept += 1
    log_evidence = np.nan
    if reservoir.shape[0] > 0:
        log_evidence = 0.0
        for chain in range(chains):
            log_evidence += peak[chain] + math.log(mass[chain] / max(terms, 1))
    return kept, log_evidence


@compiled
def _align(sample: FloatArray, count: int, reference: FloatArray, distance: FloatArray, scratch: FloatArray) -> None:
    """Reorder the targets of `sample` to those of `reference`, closest pairs first."""
    for a in range(count):
        for b in range(count):
            dx, dy = sample[3 * a] - reference[3 * b], sample[3 * a + 1] - reference[3 * b + 1]
            distance[a, b] = dx * dx + dy * dy
    for _ in range(count):
        best, best_a, best_b = np.inf, 0, 0
        for a in range(count):
            for b in range(count):
                if distance[a, b] < best:
                    best, best_a, best_b = distance[a, b], a, b
        for c in range(count):
            distance[best_a, c] = np.inf
            distance[c, best_b] = np.inf
        for p in range(3):
            scratch[3 * best_b + p] = sample[3 * best_a + p]
    for p in range(3 * count):
        sample[p] = scratch[p]


@compiled
def summarise(
    samples: FloatArray,
    values: FloatArray,
    kept: int,
    count: int,
    estimate: FloatArray,
    deviation: FloatArray,
    score: FloatArray,
) -> None:
    """Fill what is reported, (count, 3) estimate and deviation and (count,) score, from `kept` samples.

    The samples' targets are put into one order (in place). The position is the mode of the posterior smoothed
    to the metric's tolerance, the flux its mean; the score is the share of samples with a target within
    0.25 px of the position, but for TIE_BREAK, which goes by the mean over all five tolerances.
    """
    reference = samples[np.argmax(values[:kept])].copy()
    distance, scratch = np.empty((count, count)), np.empty(3 * count)
    for _ in range(3):
        for m in range(kept):
            _align(samples[m], count, reference, distance, scratch)
        for p in range(3 * count):
            reference[p] = samples[:kept, p].mean()
    for k in range(count):
        x, y = reference[3 * k], reference[3 * k + 1]
        for _ in range(6):
            total, sum_x, sum_y = 1e-300, 0.0, 0.0
            for m in range(kept):
                dx, dy = samples[m, 3 * k] - x, samples[m, 3 * k + 1] - y
                weight = math.exp(-0.5 * (dx * dx + dy * dy) / SHIFT_WIDTH_PX**2)
                total += weight
                sum_x += weight * samples[m, 3 * k]
                sum_y += weight * samples[m, 3 * k + 1]
            if total < 0.02 * kept:
                break
            x, y = sum_x / total, sum_y / total
        estimate[k, 0], estimate[k, 1], estimate[k, 2] = x, y, reference[3 * k + 2]
        for p in range(3):
            total = 0.0
            for m in range(kept):
                total += (samples[m, 3 * k + p] - reference[3 * k + p]) ** 2
            deviation[k, p] = math.sqrt(total / max(kept - 1, 1))
        within, tight = 0.0, 0.0
        for m in range(kept):
            nearest = np.inf
            for other in range(count):
                dx, dy = samples[m, 3 * other] - x, samples[m, 3 * other + 1] - y
                nearest = min(nearest, dx * dx + dy * dy)
            for tolerance in TOLERANCES_PX:
                if nearest <= tolerance * tolerance:
                    tight += 1.0 / TOLERANCES_PX.shape[0]
            if nearest <= TOLERANCES_PX[-1] ** 2:
                within += 1.0
        score[k] = min(((1.0 - TIE_BREAK) * within + TIE_BREAK * tight) / max(kept, 1), 1.0)
