"""The kernels that both samplers call, compiled."""

from __future__ import annotations

from csist._compiled import address_of
from csist.methods.continuous import beside
from csist.methods.continuous.chain_likelihood import Kernels, log_likelihoods, render_chains
from csist.methods.continuous.metropolis import move, shape_proposals
from csist.methods.continuous.model import Noise
from csist.methods.continuous.rounding import weigh_by_rounding


def kernels(noise: Noise) -> Kernels:
    """Their addresses; without that of `weigh_by_rounding` where the noise does not ask for it."""
    beside.wait()
    return Kernels(
        address_of(render_chains),
        address_of(log_likelihoods),
        address_of(shape_proposals),
        address_of(move),
        address_of(weigh_by_rounding) if noise.before_rounding >= 0.0 else 0,
    )
