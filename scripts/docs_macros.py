"""MkDocs hook: replaces `{{ name("argument") }}` in a page by the return value of the function of that name.

Figures and tables come from docs/results; lists of methods, commands and classes come from the package. A page can
therefore not go out of date. An unknown name, file or key stops the build.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Any

from docs_api import api, grid_methods
from docs_cli import command_line
from docs_gallery import gallery
from docs_networks import (
    budgets,
    published,
    published_beside,
    recipes,
    short_trainings,
    training_steps,
    weights_size,
    yolo,
    yolo_budget,
)
from docs_real import aims, crowded_stars, dense, extended, frames, infrared_stars, injected, injected_limit
from docs_sequences import (
    clip_tracks,
    clips_measured,
    sequence_calibration,
    sequence_goal,
    sequence_trajectories,
    sequences,
    shaking_camera,
    stream_memory,
)
from docs_tables import (
    card,
    figure,
    flags,
    flat_prior,
    injection,
    ista_settings,
    methods,
    metric_example,
    parts,
    pulls,
    results,
    speed,
    speeds,
    summary,
    table,
    weights,
    wrong_model,
)

MACROS: dict[str, Callable[..., str]] = {
    each.__name__: each
    for each in (
        aims, api, budgets, card, clip_tracks, clips_measured, command_line, crowded_stars, dense, extended, figure,
        flags, flat_prior, frames, gallery, grid_methods, infrared_stars, injected, injected_limit, injection,
        ista_settings, methods, metric_example, parts, published, published_beside, pulls, recipes, results,
        sequence_calibration, sequence_goal, sequence_trajectories, sequences, shaking_camera, short_trainings, speed,
        speeds, stream_memory, summary, table, training_steps, weights, weights_size, wrong_model, yolo, yolo_budget,
    )
}  # fmt: skip
CALL = re.compile(r"\{\{ (\w+)\((.*?)\) \}\}")


def expanded(markdown: str) -> str:
    """The page with every call replaced by its result.

    Raises:
        ValueError: if a function does not exist or an argument is not a literal.
    """

    def answer(call: re.Match[str]) -> str:
        name, arguments = call.groups()
        if name not in MACROS:
            raise ValueError(f"unknown macro {name!r}; choose one of: {', '.join(MACROS)}")
        return MACROS[name](*ast.literal_eval(f"({arguments},)" if arguments else "()"))

    return CALL.sub(answer, markdown)


def on_page_markdown(markdown: str, **_kwargs: Any) -> str:
    """Called by MkDocs with the source of each page."""
    return expanded(markdown)
