"""Griffe extension: the doctests of a docstring are its section of examples."""

from __future__ import annotations

import re
from typing import Any

import griffe

DOCTEST = re.compile(r"^>>> .*?(?=\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)


class Doctests(griffe.Extension):
    """Puts every paragraph of a docstring that begins with `>>>` under the heading "Examples"."""

    def on_object(self, *, obj: griffe.Object, **_kwargs: Any) -> None:
        """Called with each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = DOCTEST.sub(
                lambda found: "Examples:\n" + re.sub(r"^", "    ", found[0], flags=re.MULTILINE), obj.docstring.value
            )
