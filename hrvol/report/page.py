"""Write a report as one HTML page that loads nothing from elsewhere, and works without scripts, too."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from hrvol.files import SOFTWARE

BEGINNING = "<!doctype html>\n"

GENERATOR = '<meta name="generator" content="hrvol '
"""What a report of any version holds in its head."""

_PAGE = files("hrvol.report") / "page"


def html_page(values: Mapping[str, Any]) -> str:
    """Return the page.

    Parameters
    ----------
    values
        What the template ``page/page.html.jinja`` names; all texts are escaped, as they may come from files.
    """
    style, script = (_file(name).strip() for name in ("style.css", "slider.js"))
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, auto_reload=False
    )
    template = environment.from_string(_file("page.html.jinja"))
    own = {
        "style": style,
        "script": script,
        "style_hash": _hash(style),
        "script_hash": _hash(script),
        "software": SOFTWARE,
    }
    return template.render(**values, **own)


def _file(name: str) -> str:
    return (_PAGE / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return the hash by which a policy of a page allows a style or a script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
