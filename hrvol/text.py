"""Make text that was read from files safe to print."""

from __future__ import annotations

from collections.abc import Iterable


def printable(text: str, limit: int = 400) -> str:
    r"""Return a text in which a terminal finds no commands, on one line.

    Line breaks, terminal escapes, invisible and text-reversing characters are written as Python writes them
    (``\x1b``, ``\u202e``); letters of all scripts stay.

    Parameters
    ----------
    text
        Any text.
    limit
        Most characters of the text that are shown; the middle of a longer one is left out.
    """
    if len(text) > limit:  # first, so that a huge text costs nothing
        text = f"{text[: limit - 24]} ... {text[-18:]}"
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def is_name(text: str) -> bool:
    """Whether a text can be shown as it is: on one line, and no character that a terminal obeys or hides."""
    return text == printable(text, max(24, len(text)))


def listed(names: Iterable[object], most: int = 10) -> str:
    """Return names for a message, separated by commas: the first ones, and the number of the others.

    Parameters
    ----------
    names
        Names or values, of any origin.
    most
        Most names that are shown.
    """
    every = list(names)
    text = ", ".join(printable(str(name), 100) for name in every[:most])
    return text if len(every) <= most else f"{text} and {len(every) - most} more"
