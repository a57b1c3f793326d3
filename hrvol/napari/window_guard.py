"""Ask before a window closes, and act once it does: napari asks, too, and its question may be cancelled."""

from __future__ import annotations

from typing import Any

from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QWidget

from hrvol.napari.jobs import Jobs


def guard(window: QWidget, jobs: Jobs) -> None:
    """Check the processes of a dock before its window closes, and end them once it does."""
    found = window.findChild(WindowGuard)
    watcher = WindowGuard(window) if found is None else found
    watcher.add(jobs)


class WindowGuard(QObject):
    """Watches a window for all docks in it.

    Parameters
    ----------
    window
        The window, a widget that was made in Python.
    """

    def __init__(self, window: QWidget) -> None:
        super().__init__(window)
        self._all: list[Jobs] = []
        window.installEventFilter(self)

    def add(self, jobs: Jobs) -> None:
        """Watch for the processes of one more dock."""
        if jobs not in self._all:
            self._all.append(jobs)

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Pass a close event on if nothing objects, and act if the window accepts it."""
        if event.type() != QEvent.Type.Close:
            return False
        # A dock that floats is in another window.
        self._all = [jobs for jobs in self._all if isalive(jobs) and jobs.window() is watched]
        here = list(self._all)
        choices = []
        for jobs in here:
            choice = jobs.may_close()
            if choice is None:
                event.ignore()
                return True
            choices.append(choice)
        # Its own answer is known only after it: called here, and not a second time by Qt.
        watched.event(event)
        if event.isAccepted():
            for jobs, choice in zip(here, choices, strict=True):
                if isalive(jobs):
                    jobs.close(choice)
        return True
