"""Command line reference, generated from the signatures of the commands."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo

from csist.cli.entry import app

WORDS = {int: "N", float: "X", str: "TEXT", bool: ""}
"""Placeholder for a value of each type; a path is a FILE."""


class _Parameter(NamedTuple):
    name: str
    kind: type
    many: bool
    info: Any
    default: Any


def command_line() -> str:
    """Markdown with one section per command: usage, description, arguments and options."""
    return "\n\n".join(_section(each.callback) for each in app.registered_commands if each.callback is not None)


def _section(command: Callable[..., Any]) -> str:
    parameters = _parameters(command)
    arguments = [each for each in parameters if isinstance(each.info, ArgumentInfo)]
    options = [each for each in parameters if not isinstance(each.info, ArgumentInfo) and not each.info.hidden]
    name = command.__name__.replace("_", "-")
    usage = " ".join(["csist", name, *map(_placeholder, arguments), "[OPTIONS]"])
    parts = [f"## csist {name}", f"```text\n{usage}\n```", inspect.getdoc(command) or ""]
    if arguments:
        rows = [(f"`{_placeholder(each)}`", each.info.help or "") for each in arguments]
        parts.append(_table(("argument", "meaning"), rows))
    if options:
        parts.append(_table(("option", "meaning", "default"), [_option(each) for each in options]))
    return "\n\n".join(parts)


def _parameters(command: Callable[..., Any]) -> list[_Parameter]:
    hints = get_type_hints(command, include_extras=True)
    found = []
    for name, parameter in inspect.signature(command).parameters.items():
        if get_origin(hints[name]) is not Annotated:
            continue  # the context, which no user gives
        kind, info = get_args(hints[name])
        if get_origin(kind) in (Union, types.UnionType):
            kind = next(each for each in get_args(kind) if each is not type(None))
        many = get_origin(kind) is list
        found.append(_Parameter(name, get_args(kind)[0] if many else kind, many, info, parameter.default))
    return found


def _placeholder(argument: _Parameter) -> str:
    return f"{argument.info.metavar or argument.name.upper()}{'...' if argument.many else ''}"


def _option(option: _Parameter) -> tuple[str, str, str]:
    # For an option in Annotated, Typer stores the first spelling as the default.
    names = [each for each in (option.info.default, *(option.info.param_decls or ())) if isinstance(each, str)]
    switch = option.kind is bool and not names
    if switch:
        spelled = option.name.replace("_", "-")
        names = [f"--{spelled}", f"--no-{spelled}"]
    value = option.info.metavar or WORDS.get(option.kind, "FILE")
    shown = option.info.show_default if isinstance(option.info.show_default, str) else option.default
    if switch:
        shown = names[0 if option.default else 1]
    default = "" if shown in (None, False, inspect.Parameter.empty) else f"`{shown}`"
    many = " Repeatable." if option.many and "several" not in (option.info.help or "") else ""
    return f"`{', '.join(sorted(names, key=len))}{' ' * bool(value)}{value}`", f"{option.info.help}{many}", default


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join(map(_escaped, row)) + " |" for row in rows]
    return "\n".join(lines)


def _escaped(cell: str) -> str:
    """The cell with a backslash before each bar, but not in code, where Markdown would show the backslash."""
    return re.sub(r"(`[^`]*`)|\|", lambda found: found[1] or "\\|", cell)
