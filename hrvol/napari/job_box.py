"""Show a process: what it does, how far it is, and a button that stops it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QProgressBar, QVBoxLayout, QWidget

from hrvol.errors import UsageError
from hrvol.napari.jobs import Jobs
from hrvol.napari.notify import report
from hrvol.napari.process import STOPPED, Process
from hrvol.napari.widgets import button, row, text_label

_POLL = 200  # milliseconds


class JobBox(QWidget):
    """The state of one process at a time.

    Parameters
    ----------
    jobs
        Processes of the window.
    what
        What runs, for messages: ``"plan"``.
    """

    changed = Signal()

    def __init__(self, jobs: Jobs, what: str) -> None:
        super().__init__()
        self._jobs, self._what = jobs, what
        self._process: Process | None = None
        self._done: Callable[[Process], Any] = lambda process: None
        self._failed: Callable[[Process], Any] = self._done
        self._stopping = self._lasting = False
        self._bar = QProgressBar()
        self._bar.setTextVisible(False)
        self._bar.setFixedHeight(8)
        self._stop = button("Cancel", self.stop, "Stop it")
        self.message = text_label()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        layout.addLayout(row(self._bar, self._stop, stretch=0))
        layout.addWidget(self.message)
        self._timer = QTimer(self)
        self._timer.setInterval(_POLL)
        self._timer.timeout.connect(self._poll)
        self._show_busy(False)
        self.message.hide()

    @property
    def running(self) -> bool:
        """Whether a process runs."""
        return self._process is not None

    def start(
        self,
        arguments: tuple[str, ...],
        done: Callable[[Process], Any],
        *,
        module: str = "hrvol",
        name: str = "",
        failed: Callable[[Process], Any] = lambda process: None,
    ) -> Process:
        """Start a process, and call ``done`` with it when it has succeeded.

        Parameters
        ----------
        arguments, module
            As of :meth:`Process.start`.
        done
            Receives the process; its files are deleted then, unless it has a name.
        name
            Of a lasting process, which napari may leave running.
        failed
            Receives the process if it ended with an error, which is shown in any case.

        Raises
        ------
        UsageError
            One is running.
        """
        if self.running:
            raise UsageError(f"{self._what}: is running, expected to wait for its end, or to cancel it")
        self._process = Process.start(arguments, module)
        self._jobs.add(self._process, name)
        self._done, self._failed = done, failed
        self._lasting, self._stopping = bool(name), False
        self.say("starting")
        self._show_busy(True)
        self._timer.start()
        self.changed.emit()
        return self._process

    def stop(self) -> None:
        """Stop the process in order; a second call ends it at once."""
        if self._process is None:
            return
        if self._stopping:
            self._process.kill()
        elif self._lasting:
            self._process.stop()
        else:
            self._process.terminate()
        self._stopping = True
        self.say("stopping (press again to end it at once)")

    def say(self, text: str) -> None:
        """Show a line."""
        self.message.setText(text)
        self.message.setVisible(bool(text))

    def _poll(self) -> None:
        process = self._process
        if process is None:
            return
        code = process.poll()
        if code is None:
            progress = process.progress()
            if not self._stopping:
                self.say(progress.text)
            self._bar.setRange(0, 0 if progress.percent is None else 100)
            self._bar.setValue(progress.percent or 0)
            return
        self._timer.stop()
        self._process = None
        self._show_busy(False)
        self.changed.emit()
        if code == 0:
            self.say("")
            try:
                self._done(process)
            except Exception as error:
                report(error)
        elif code in STOPPED or self._stopping:
            self.say(f"{self._what}: stopped" + (", can be resumed" if self._lasting else ""))
        else:
            line = process.error()
            self.say(line)
            report(line)
            self._failed(process)
        if not self._lasting and code == 0:
            process.discard()

    def _show_busy(self, busy: bool) -> None:
        self._bar.setVisible(busy)
        self._stop.setVisible(busy)
        self._bar.setRange(0, 0)
