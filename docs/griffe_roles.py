"""Turn the Sphinx roles of docstrings (``:func:`x` ``) into links, or code where there is no page."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:py:)?(?:func|class|meth|data|attr|mod|exc|obj):`~?([\w.]+)`")


def _link(match: re.Match[str]) -> str:
    """Return a link that stays plain code where the name has no page."""
    name = match.group(1)
    return f'<autoref identifier="{name}" optional><code>{name.rpartition(".")[2]}</code></autoref>'


class Roles(griffe.Extension):
    """Rewrite roles and literal blocks of every docstring as Markdown."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is None:
            return
        text = _ROLE.sub(_link, obj.docstring.value)
        obj.docstring.value = re.sub(r"^::\n", "", re.sub(r"(\S)::$", r"\1:", text, flags=re.M), flags=re.M)
