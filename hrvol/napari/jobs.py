"""Keep the processes that napari started, and ask what becomes of them when it closes."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QMessageBox, QWidget

from hrvol.napari.process import Process

STOP, KEEP, STAY = "stop", "keep", "stay"
"""Stop the processes in order, keep them running, or leave napari open."""


class Jobs(QObject):
    """The processes of a window.

    Lasting ones (a segmentation, a distillation) may outlive napari; the others are ended with it.

    Parameters
    ----------
    parent
        The dock.
    """

    closing = Signal()
    """The window closes, or the dock."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._lasting: dict[str, Process] = {}
        self._short: list[Process] = []
        self._savers: list[Callable[[], bool]] = []

    def window(self) -> QWidget:
        """Return the window of the dock."""
        return cast(QWidget, cast(QWidget, self.parent()).window())

    def save_first(self, function: Callable[[], bool]) -> None:
        """Call a function before the window closes, which stays open if it returns ``False``."""
        self._savers.append(function)

    def add(self, process: Process, name: str = "") -> None:
        """Keep a process; a lasting one has a name, such as its output."""
        if name:
            self._lasting[name] = process
        else:
            self._short = [*(other for other in self._short if other.running), process]

    def of(self, name: str) -> Process | None:
        """Return the lasting process of a name."""
        return self._lasting.get(name)

    def running(self) -> dict[str, Process]:
        """Return the lasting processes that run."""
        return {name: process for name, process in self._lasting.items() if process.running}

    def ask(self, names: list[str]) -> str:
        """Ask what becomes of running processes."""
        box = QMessageBox(self.window())
        box.setIcon(QMessageBox.Icon.Question)
        box.setWindowTitle("hrvol")
        box.setText("hrvol is still working on\n" + "\n".join(names))
        box.setInformativeText(
            "A stopped run finishes its blocks in progress, and can be resumed at any time."
        )
        keep = box.addButton("Keep running", QMessageBox.ButtonRole.AcceptRole)
        stop = box.addButton("Stop", QMessageBox.ButtonRole.DestructiveRole)
        box.addButton(QMessageBox.StandardButton.Cancel)
        box.setDefaultButton(keep)
        box.exec_() if hasattr(box, "exec_") else box.exec()
        clicked = box.clickedButton()
        return KEEP if clicked is keep else STOP if clicked is stop else STAY

    def may_close(self) -> str | None:
        """Ask whether the window may close: return what becomes of processes; ``None``: it stays open."""
        running = self.running()
        choice = self.ask(sorted(running)) if running else KEEP
        return None if choice == STAY or not all(save() for save in self._savers) else choice

    def close(self, choice: str) -> None:
        """End what ends with the window."""
        if choice == STOP:
            for process in self.running().values():
                process.stop()
        for process in self._short:
            process.kill()
        self.closing.emit()
