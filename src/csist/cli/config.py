"""Configuration files of `csist unmix`: its options in TOML, which the command line overrides.

Commands that share its options take the same files, and leave out what is for `csist unmix` alone.
"""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer

from csist.checks import InputError, suggestion
from csist.cli.output import make_console

COMMAND = "unmix"
"""The command that a configuration file is for."""

WITHOUT = ("config", "help", "inputs")
"""Parameters of the command that a file does not set."""

LARGEST_BYTES = 1_000_000
HEAD = f"""\
# Options of `csist {COMMAND}`: csist {COMMAND} INPUT... --config THIS_FILE
# The command line overrides this file. A line without # is an option that is set, here to its default.
"""


def load_config(context: typer.Context, path: Path | None) -> Path | None:
    """Take a configuration file's values as the defaults of the command's options.

    Args:
        context: of the command.
        path: the file; None for none.

    Raises:
        InputError: if it cannot be read, is not TOML, or sets an option that there is not.
    """
    if path is not None:
        values = read_config(
            path, str(context.info_name), options_of(context), kinds_of(context), _names_of_unmix(context)
        )
        context.default_map = {**(context.default_map or {}), **values}
    return path


def _names_of_unmix(context: typer.Context) -> set[str]:
    """Names of the options of `csist unmix`."""
    command = _unmix_command(context)
    return set() if command is None else set(options_of(type(context)(command, info_name=COMMAND)))


def _unmix_command(context: typer.Context) -> Any:
    """The command `csist unmix`, given the context of any command; None where there is none."""
    parent = context.parent
    return None if parent is None else parent.command.get_command(parent, COMMAND)  # type: ignore[attr-defined]


def read_config(
    path: Path, command: str, options: dict[str, Any], kinds: dict[str, type], others: Collection[str] = ()
) -> dict[str, Any]:
    """Values of the options that a file sets, by parameter.

    Args:
        path: the file.
        command: name of the command.
        options: parameters of the command by the names of its options, without dashes in front.
        kinds: type of each parameter.
        others: options that a file may hold for another command; they are left out.

    Raises:
        InputError: if it cannot be read, is not TOML, or sets an option that there is not.
    """
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise InputError(f"cannot read {path}: a configuration file has at most {LARGEST_BYTES} bytes")
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            f"cannot read the configuration {path}: it is not TOML, {' '.join(str(error).split())}"
        ) from error
    found = {}
    for key, value in table.items():
        name = key.replace("_", "-")
        if name not in options and name in others:
            continue
        if name not in options:
            hint = suggestion(name, options, f"`csist {command} --help` lists the options")
            raise InputError(f"{path} sets {key!r}, which is no option of csist {command}: {hint}")
        if isinstance(value, dict | list) or not _fits(value, kinds[str(options[name].name)]):
            raise InputError(f"{path} sets {key} to {str(value)[:60]!r}: {_kind(options[name], kinds)} is needed")
        if options[name].name in found:
            raise InputError(f"{path} sets {name} twice, with a dash and with an underscore: leave one out")
        text = value if isinstance(value, bool) else str(value)
        found[str(options[name].name)] = [text] if options[name].multiple else text
    return found


def _kind(option: Any, kinds: dict[str, type]) -> str:
    """What a file gives an option, in words."""
    words = {bool: "true or false", int: "a whole number", float: "a number"}
    return words.get(kinds[str(option.name)], "a text in quotation marks")


def _fits(value: Any, kind: type) -> bool:
    """Whether a value of a file has the type of an option."""
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, {int: (int,), float: (int, float)}.get(kind, (str, int, float)))


def kinds_of(context: typer.Context) -> dict[str, type]:
    """Type of each parameter of a command, None left out."""
    hints = get_type_hints(inspect.unwrap(context.command.callback or _nothing))
    return {
        name: next((each for each in get_args(hint) if each is not type(None)), hint) for name, hint in hints.items()
    }


def _nothing() -> None:
    """Command without parameters."""


def options_of(context: typer.Context) -> dict[str, Any]:
    """Parameters of a command by the names of their options, without dashes in front."""
    return {
        option.opts[0].removeprefix("--"): option
        for option in context.command.params
        if option.name not in WITHOUT and option.opts[0].startswith("--")
    }


def config_text(context: typer.Context) -> str:
    """A configuration file with all options of a command: those with a default set to it, the others commented out.

    Args:
        context: of the command.
    """
    lines, kinds = [HEAD], kinds_of(context)
    for name, option in options_of(context).items():
        lines.append(f"# {getattr(option, 'help', None) or ''}".rstrip())
        default = option.get_default(context)
        lines.append(f"# {name} = {_kind(option, kinds)}" if default is None else f"{name} = {_toml(default)}")
        lines.append("")
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def init_config(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Configuration file to be written (.toml).")],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a configuration file with all options of `csist unmix` and their defaults."""
    from csist.files import check_writable, write_text

    check_writable(path, (".toml",))
    if path.exists() and not force:
        raise InputError(f"cannot write {path}: it exists, give another name or --force")
    command = _unmix_command(context)
    if command is None:
        raise InputError(f"csist has no command {COMMAND}")
    write_text(config_text(type(context)(command, info_name=COMMAND)), path)
    make_console().print(f"{path}: options of csist {COMMAND}", soft_wrap=True)


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", help="Options in a TOML file; see `csist init-config`.", callback=load_config, is_eager=True
    ),
]
