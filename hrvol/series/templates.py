"""Fill placeholders of templates: ``{name}``, ``{stem}``, ``{folder}``, and columns of a table."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter


class TemplateError(ValueError):
    """A template has a wrong placeholder; the message is ``found ..., expected ...``."""


def placeholders(template: str) -> tuple[str, ...]:
    """Return the names of a template's placeholders; ``{{`` and ``}}`` are braces.

    Raises
    ------
    TemplateError
        A brace is not closed, or a placeholder is more than a name.
    """
    try:
        parts = list(Formatter().parse(template))
    except ValueError:
        raise TemplateError(f"found {template!r}, expected a brace closed, or doubled to be text") from None
    names = []
    for _, name, form, conversion in parts:
        if name is None:
            continue
        if form or conversion or not name.isidentifier():
            shown = "{" + name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "") + "}"
            raise TemplateError(f"found {shown}, expected a name in braces, such as {{name}}")
        names.append(name)
    return tuple(dict.fromkeys(names))


def filled(template: str, values: Mapping[str, str]) -> str:
    """Return a template with its placeholders replaced.

    Raises
    ------
    TemplateError
        There is no value of a placeholder, or the template is not valid.
    """
    for name in placeholders(template):
        if name not in values:
            known = ", ".join("{" + key + "}" for key in values)
            raise TemplateError(f"found {{{name}}}, expected one of {known}")
    return "".join(
        text + ("" if name is None else values[name]) for text, name, _, _ in Formatter().parse(template)
    )
