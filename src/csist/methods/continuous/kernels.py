"""The kernels that both samplers call, compiled."""

from __future__ import annotations

from csist._compiled import address_of
from csist.methods.continuous.chain_likelihood import Kernels, log_likelihoods, render_chains
from csist.methods.continuous.metropolis import move, shape_proposals
from csist.methods.continuous.rounding import weigh_by_rounding


def kernels() -> Kernels:
    """Their addresses."""
    return Kernels(*map(address_of, (render_chains, log_likelihoods, shape_proposals, move, weigh_by_rounding)))
