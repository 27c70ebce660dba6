"""The continuous method: likelihood, search, posterior."""

from csist.methods.continuous.method import Continuous
from csist.methods.continuous.solvers import Group

__all__ = ["Continuous", "Group"]
