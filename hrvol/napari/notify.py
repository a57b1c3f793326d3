"""Show errors and news as napari notifications of one line; tracebacks go to the log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from hrvol.errors import HrvolError, one_line
from hrvol.text import printable

LOG = logging.getLogger("hrvol.napari")


def line_of(error: BaseException) -> str:
    """Return an error as one line for people."""
    if isinstance(error, HrvolError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:  # a full disk, a read-only folder
        name = f"{error.filename}: " if error.filename else ""
        return printable(f"{name}{error.strerror}", 1000)
    LOG.debug("unexpected error", exc_info=error)
    return f"unexpected {one_line(error)} (a fault in hrvol)"


def report(error: BaseException | str) -> None:
    """Show an error, or a line that a process ended with."""
    from napari.utils.notifications import show_error

    show_error(f"hrvol: {error if isinstance(error, str) else line_of(error)}")


def inform(text: str) -> None:
    """Show news."""
    from napari.utils.notifications import show_info

    show_info(f"hrvol: {text}")


def reported(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose errors are shown; it returns ``None`` then."""

    @wraps(function)
    def safe(*arguments: Any, **values: Any) -> Any:
        try:
            return function(*arguments, **values)
        except Exception as error:
            report(error)
            return None

    return safe
