"""What the docstrings of public names must say: arguments, shapes or units of arrays, errors, sources of methods."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

import csist
from csist.methods.table import METHODS

PACKAGES = ("csist", "csist.datasets", "csist.metrics")

EXPLAINED = ("kwargs", "self", "cls")
"""Parameters that need no word of their own."""

UNIT = re.compile(
    r"\bpx\b|_px\b|counts|\bcells?\b|percent|[Ss]hares?\b|probabilit|standard error|pixels?\b|distance|0 to 1|"
    r"\([A-Za-z0-9 .,+]+\)|arrays?\b"
)
"""What says the unit or shape of an array: px, counts, a share of 1, or axes in brackets."""


def public() -> dict[str, Any]:
    """Classes and functions by their full name: of the public packages, and of every method."""
    found = {}
    for package in map(importlib.import_module, PACKAGES):
        for name in package.__all__:
            value = getattr(package, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                found[f"{value.__module__}.{value.__name__}"] = value
    for entry in METHODS.values():
        module, _, name = entry.target.partition(":")
        value = getattr(importlib.import_module(f"csist.methods.{module}"), name)
        found[f"{value.__module__}.{value.__name__}"] = value
    return found


PUBLIC = public()
CLASSES = {name: value for name, value in PUBLIC.items() if inspect.isclass(value)}


def members(value: type) -> dict[str, Callable[..., Any]]:
    """Methods and properties that a class of this package defines itself and does not hide."""
    return {
        name: member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        for name, member in vars(value).items()
        if not name.startswith("_")
        and (inspect.isfunction(member) or isinstance(member, property | classmethod | staticmethod))
    }


def parameters(value: Any) -> Mapping[str, inspect.Parameter]:
    if inspect.isclass(value) and issubclass(value, BaseException | int):  # an error, a flag
        return {}
    return inspect.signature(value).parameters


def source_of(value: Any) -> str:
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):  # written by a decorator
        return ""


@pytest.mark.parametrize("name", PUBLIC)
def test_first_line_says_in_a_sentence_what_it_is(name: str) -> None:
    text = inspect.getdoc(PUBLIC[name]) or ""
    first = text.split("\n\n")[0].split("\n")
    assert first[0], name
    assert first[-1].endswith((".", ":", ";")), f"{name}: {first}"


@pytest.mark.parametrize("name", PUBLIC)
def test_every_argument_is_mentioned(name: str) -> None:
    value = PUBLIC[name]
    text = inspect.getdoc(value) or ""
    described = text + "".join(inspect.getdoc(each) or "" for each in getattr(value, "__mro__", ()))
    if inspect.isclass(value) and issubclass(value, tuple):  # a named tuple's fields have texts of their own
        described += source_of(value)
    missing = [each for each in parameters(value) if each not in EXPLAINED and not re.search(rf"\b{each}\b", described)]
    assert not missing, f"{name} does not say what {', '.join(missing)} is"


@pytest.mark.parametrize("name", PUBLIC)
def test_what_can_be_raised_is_said(name: str) -> None:
    value = PUBLIC[name]
    if inspect.isclass(value):
        raising = [source_of(getattr(value, each)) for each in ("__init__", "__post_init__") if each in vars(value)]
        if any("raise InputError" in each or "check_" in each for each in raising):
            assert "Raises:" in (inspect.getdoc(value) or ""), name
        for each, member in members(value).items():
            if "raise InputError" in source_of(member):
                assert "Raises:" in (inspect.getdoc(member) or ""), f"{name}.{each}"
    elif "raise InputError" in source_of(value):
        assert "Raises:" in (inspect.getdoc(value) or ""), name


@pytest.mark.parametrize("name", CLASSES)
def test_every_method_and_property_has_a_text(name: str) -> None:
    for each, member in members(CLASSES[name]).items():
        inherited = inspect.getdoc(getattr(CLASSES[name], each))
        assert inspect.getdoc(member) or inherited, f"{name}.{each}"


@pytest.mark.parametrize("name", PUBLIC)
def test_arrays_have_a_shape_or_a_unit(name: str) -> None:
    value = PUBLIC[name]
    arrays = [each for each, given in parameters(value).items() if re.search("Array|Tensor", str(given.annotation))]
    if arrays:
        assert UNIT.search(inspect.getdoc(value) or ""), f"{name}: {', '.join(arrays)}"


@pytest.mark.parametrize("name", METHODS)
def test_a_method_names_its_source(name: str) -> None:
    if METHODS[name].source == "this project":
        return
    module = importlib.import_module(f"csist.methods.{METHODS[name].target.partition(':')[0]}")
    assert re.search(r"\b(19|20)\d\d\b", module.__doc__ or ""), name
    assert re.search(r"arXiv|doi|CPAM|SIAM|IEEE|ICML|AAAI|CVPR|ICCV|ECCV|IJCV", module.__doc__ or ""), name


def test_every_flag_says_what_it_means() -> None:
    assert len(re.findall(r'^ {4}"""', inspect.getsource(csist.Flag), re.MULTILINE)) >= len(csist.Flag)
