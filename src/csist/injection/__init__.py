"""Completeness and accuracy on the user's own frame, from simulated groups of targets that are put into it.

This is the artificial-star test of stellar photometry (Stetson, PASP 99, 191, 1987, section IV): targets of known
position and flux are added to a real frame, which is then unmixed with the same options. Clutter, blending, bad pixels
and an inexact background act on them as on the real ones. The groups of a pass are far apart, so that they do not
disturb one another; further groups take further passes over the same frame.
"""

from csist.injection.groups import APART_PX, BORDER_PX, InjectedGroup, draw_group, of_group, place_group
from csist.injection.plan import InjectionPlan, Spread
from csist.injection.result import InjectionResult
from csist.injection.run import inject_groups, inject_into

__all__ = [
    "APART_PX",
    "BORDER_PX",
    "InjectedGroup",
    "InjectionPlan",
    "InjectionResult",
    "Spread",
    "draw_group",
    "inject_groups",
    "inject_into",
    "of_group",
    "place_group",
]
