"""Call functions in threads, and take their results back into the thread of the window."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from qtpy.compat import isalive
from qtpy.QtCore import QObject, Signal

from hrvol.napari.notify import report


class Background(QObject):
    """Calls functions in threads on behalf of a widget; nothing arrives once the widget is deleted.

    Parameters
    ----------
    owner
        The widget. Errors are shown as notifications unless the caller takes them.
    """

    _ended = Signal(object)

    def __init__(self, owner: QObject) -> None:
        super().__init__(owner)
        self._ended.connect(self._deliver)
        self._pending = 0

    @property
    def busy(self) -> bool:
        """Whether a function is running."""
        return self._pending > 0

    def call(
        self,
        function: Callable[[], Any],
        done: Callable[[Any], None],
        failed: Callable[[Exception], None] = report,
    ) -> None:
        """Call a function in a thread, and then ``done`` with its result, or ``failed`` with its error."""
        self._pending += 1

        def run() -> None:
            try:
                ending: tuple[Callable[[Any], None], Any] = done, function()
            except Exception as error:
                ending = failed, error
            if isalive(self):
                self._ended.emit(ending)

        threading.Thread(target=run, name="hrvol-background", daemon=True).start()

    def _deliver(self, ending: tuple[Callable[[Any], None], Any]) -> None:
        self._pending -= 1
        receive, value = ending
        try:
            receive(value)
        except Exception as error:
            report(error)
