"""Rewrite docstrings for the site: Sphinx roles become links, ``a, b`` an entry for each parameter."""

import re
from typing import Any

import griffe

_SEVERAL = re.compile(r"^(\w+(?:, \w+)+)\n((?: {4}.*\n?)+)", re.MULTILINE)

_ROLE = re.compile(r":(?:py:)?(?:func|class|meth|data|attr|mod|exc|obj):`~?([\w.]+)`")


def _link(match: re.Match[str]) -> str:
    """Return a link that stays plain code where the name has no page."""
    name = match.group(1)
    return f'<autoref identifier="{name}" optional><code>{name.rpartition(".")[2]}</code></autoref>'


def _split(match: re.Match[str]) -> str:
    """Return an entry for each name of ``a, b, c``; the first keeps the description."""
    first, *others = match.group(1).split(", ")
    return f"{first}\n{match.group(2)}" + "".join(f"{name}\n    See ``{first}``.\n" for name in others)


class Roles(griffe.Extension):
    """Rewrite roles and literal blocks of every docstring as Markdown."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is None:
            return
        text = _SEVERAL.sub(_split, obj.docstring.value + "\n")
        text = _ROLE.sub(_link, text)
        obj.docstring.value = re.sub(r"^::\n", "", re.sub(r"(\S)::$", r"\1:", text, flags=re.M), flags=re.M)
