"""MkDocs hook: a line or phrase `{{ name("argument") }}` of a page becomes what the function of that name answers.

Figures and tables come from docs/results, lists of methods, commands and classes from the package itself, so that a
page never says what is no longer true. A name, file or key that does not exist stops the build.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Any

from docs_api import api, grid_methods
from docs_cli import command_line
from docs_gallery import gallery
from docs_tables import (
    aims,
    budgets,
    crowded_stars,
    figure,
    flags,
    flat_prior,
    frames,
    infrared_stars,
    injected,
    injected_limit,
    ista_settings,
    methods,
    metric_example,
    parts,
    published,
    published_beside,
    recipes,
    results,
    short_trainings,
    speed,
    speeds,
    table,
    training_steps,
    weights,
    wrong_model,
    yolo,
    yolo_budget,
)

MACROS: dict[str, Callable[..., str]] = {
    each.__name__: each
    for each in (
        aims, api, budgets, command_line, crowded_stars, figure, flags, flat_prior, frames, gallery,
        grid_methods, infrared_stars, injected, injected_limit, ista_settings, methods, metric_example, parts,
        published, published_beside, recipes, results, short_trainings, speed, speeds, table, training_steps, weights,
        wrong_model, yolo, yolo_budget,
    )
}  # fmt: skip
CALL = re.compile(r"\{\{ (\w+)\((.*?)\) \}\}")


def expanded(markdown: str) -> str:
    """The page with every call replaced by its answer.

    Raises:
        ValueError: if a function does not exist or its arguments are no literals.
    """

    def answer(call: re.Match[str]) -> str:
        name, arguments = call.groups()
        if name not in MACROS:
            raise ValueError(f"unknown macro {name!r}: these exist: {', '.join(MACROS)}")
        return MACROS[name](*ast.literal_eval(f"({arguments},)" if arguments else "()"))

    return CALL.sub(answer, markdown)


def on_page_markdown(markdown: str, **_kwargs: Any) -> str:
    """Called by MkDocs with each page's source."""
    return expanded(markdown)
