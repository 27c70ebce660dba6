"""The continuous method: likelihood, search, posterior."""

from csist.methods.continuous.diagnostics import Diagnostics
from csist.methods.continuous.group import Group
from csist.methods.continuous.method import Continuous

__all__ = ["Continuous", "Diagnostics", "Group"]
