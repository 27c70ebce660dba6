"""MkDocs hook that replaces `{{ name("argument") }}` in a page by the result of the function of that name.

Figures and tables come from docs/results, lists of methods, commands and classes from the package, so that pages never
go out of date. A name, file or key that does not exist stops the build.
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
    yolo,
    yolo_budget,
)
from docs_tables import (
    aims,
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
    results,
    speed,
    speeds,
    table,
    weights,
    wrong_model,
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
    """Return the page with every call replaced by its result.

    Raises:
        ValueError: if a function does not exist or its arguments are not literals.
    """

    def answer(call: re.Match[str]) -> str:
        name, arguments = call.groups()
        if name not in MACROS:
            raise ValueError(f"unknown macro {name!r}: use one of {', '.join(MACROS)}")
        return MACROS[name](*ast.literal_eval(f"({arguments},)" if arguments else "()"))

    return CALL.sub(answer, markdown)


def on_page_markdown(markdown: str, **_kwargs: Any) -> str:
    """Expand the source of a page; called by MkDocs."""
    return expanded(markdown)
