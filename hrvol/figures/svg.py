"""Turn matplotlib figures into SVG that stands inside of an HTML page.

Such a page may forbid styles in elements, is read on light and on dark ground, and holds several figures
whose names must not meet. So styles become attributes, black becomes the colour of the page's text, and of
the names only those that are referred to are kept, with a prefix.
"""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

_SVG = "http://www.w3.org/2000/svg"

_LINK = "http://www.w3.org/1999/xlink"

_REFERENCE = re.compile(r"url\(#([^)]+)\)")

_BLACK = ("#000000", "black")

_DROPPED = ("metadata", "style")

_FONT = "font-family"  # that of the page


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches, with text as text and no ground."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_visible(False)
    return figure


def inline_svg(figure: Figure, name: str, label: str) -> str:
    """Return a figure as an ``<svg>`` element for HTML.

    Parameters
    ----------
    figure
        Of :func:`new_figure`; what is black in it gets the colour of the page's text.
    name
        Prefix of the names inside; differs between the figures of a page.
    label
        What the figure shows, for readers who do not see it.
    """
    stream = io.StringIO()
    # Equal figures give equal bits; the settings are those of this call only.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(stream.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in {f"{{{_SVG}}}{tag}" for tag in _DROPPED}:
                parent.remove(child)
    elements = list(root.iter())
    for element in elements:
        _plain_attributes(element)
    used = {found for element in elements for value in element.attrib.values() for found in _names_in(value)}
    for element in elements:
        _rename(element, name, used)
    for side in ("width", "height"):  # the page sets them
        root.attrib.pop(side, None)
    root.set("role", "img")
    root.set("aria-label", label)
    root.set("stroke-linejoin", "round")
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _LINK)
    return ElementTree.tostring(root, encoding="unicode")


def _plain_attributes(element: ElementTree.Element) -> None:
    """Turn the style of an element into attributes, and black into the colour of text."""
    for entry in element.attrib.pop("style", "").split(";"):
        key, _, value = (part.strip() for part in entry.partition(":"))
        if key and key != _FONT:
            element.set(key, value)
    for key in ("fill", "stroke"):
        if element.get(key) in _BLACK:
            element.set(key, "currentColor")
    if element.tag == f"{{{_SVG}}}text" and element.get("fill") is None:
        element.set("fill", "currentColor")


def _names_in(value: str) -> list[str]:
    return [value[1:]] if value.startswith("#") else _REFERENCE.findall(value)


def _rename(element: ElementTree.Element, prefix: str, used: set[str]) -> None:
    """Prefix the name of an element and those that it refers to; a name that none refers to is dropped."""
    own = element.attrib.pop("id", None)
    if own in used:
        element.set("id", f"{prefix}-{own}")
    link = f"{{{_LINK}}}href"
    if (target := element.attrib.pop(link, None)) is not None:
        element.set("href", f"#{prefix}-{target[1:]}" if target.startswith("#") else target)
    for key, value in element.attrib.items():
        element.set(key, _REFERENCE.sub(rf"url(#{prefix}-\1)", value))
