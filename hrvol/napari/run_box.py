"""Show a segmentation by its ledger: state, progress, time left; stop, resume and open it.

The run may have been started here, earlier, or on another machine: its output is all that is needed.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from os.path import basename
from typing import Any

import psutil
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QCheckBox, QFileDialog, QGroupBox, QProgressBar, QVBoxLayout

from hrvol.errors import InputError, UsageError
from hrvol.napari.background import Background
from hrvol.napari.drivers import local_driver
from hrvol.napari.jobs import Jobs
from hrvol.napari.measure_table import MeasureTable
from hrvol.napari.notify import inform, report, reported
from hrvol.napari.process import STOPPED, Process
from hrvol.napari.texts import failure_text, state_text
from hrvol.napari.widgets import button, row, text_label

POLL = 1000
"""Milliseconds between looks at the ledger."""


_IDLE = 5000


@dataclass(frozen=True)
class _Look:
    """What the ledger of an output held, and how long it took to read it."""

    output: str
    status: dict[str, Any]
    driver: psutil.Process | None
    seconds: float


class RunBox(QGroupBox):
    """The run that is watched.

    Parameters
    ----------
    jobs
        Processes of the window.
    resume
        Called to start the present request again.
    open_output
        Called with the path of an output to show it.
    """

    watched = Signal(str)

    def __init__(self, jobs: Jobs, resume: Callable[[], Any], open_output: Callable[[str], Any]) -> None:
        super().__init__("Run")
        self._jobs, self._open_output = jobs, open_output
        self._background = Background(self)
        self.output = ""
        self.status: Mapping[str, Any] | None = None
        self._driver: psutil.Process | None = None
        self._expected = False  # whether a run from elsewhere was seen running, and is opened when complete
        self._reported: Process | None = None  # started here, and its end was reported
        self._error = ""  # that the process ended with
        self._stopping = False
        self._place, self.state, self._failures = text_label("No run is watched."), text_label(), text_label()
        self._bar = QProgressBar()
        self._bar.setRange(0, 1000)
        self._stop = button("Stop", self.stop, "Finish the blocks in progress, then stop; again: at once")
        self._resume = button(
            "Resume", reported(resume), "Start the same request again: it computes the rest"
        )
        self._open = button("Open result", self.open_result, "Show the labels as far as they are computed")
        self._watch = button("Watch …", self.choose, "Show a run that was started elsewhere, by its output")
        self.measures = MeasureTable()
        self._opens = QCheckBox("open the result when it is complete")
        self._opens.setChecked(True)
        layout = QVBoxLayout(self)
        for widget in (self._place, self._bar, self.state, self._failures, self.measures):
            layout.addWidget(widget)
        layout.addLayout(row(self._stop, self._resume, self._open, self._watch))
        layout.addWidget(self._opens)
        self._timer = QTimer(self)
        self._timer.setInterval(POLL)
        self._timer.timeout.connect(self._look)
        self._show()

    def choose(self) -> None:
        """Choose the output of a run to watch."""
        path = QFileDialog.getExistingDirectory(
            self, "Choose the output of a run (OUT.ome.zarr)", self.output
        )
        if path:
            self.watch(path)
            self.watched.emit(path)

    def watch(self, output: str) -> None:
        """Watch the run of an output."""
        self.output, self.status, self._driver = output, None, None
        self._expected = False
        self._reported = None if self._own_runs() else self._jobs.of(output)
        self._stopping, self._error = False, ""
        self.measures.clear()
        self._place.setText(output)
        self.state.setText("looking at its ledger")
        self._timer.start(POLL)
        self._show()
        self._look()

    def start(self, arguments: tuple[str, ...], output: str) -> Process:
        """Start a run in a process of its own, and watch it.

        Raises
        ------
        UsageError
            This output is being computed by a process that was started here.
        """
        known = self._jobs.of(output)
        if known is not None and known.running:
            raise UsageError(f"{output}: is being computed already, expected to wait or to stop it")
        process = Process.start(arguments)
        self._jobs.add(process, output)
        self.watch(output)
        return process

    def stop(self) -> None:
        """Stop the run in order: blocks in progress are finished."""
        process = self._jobs.of(self.output)
        if process is not None and process.running:
            process.stop()
        elif self._driver is not None:
            with suppress(psutil.Error):
                self._driver.send_signal(signal.SIGUSR1)
        else:
            return
        self._stopping = True
        self._show()

    def open_result(self) -> None:
        """Show the output."""
        if self.output:
            self._open_output(self.output)

    def _own_runs(self) -> bool:
        process = self._jobs.of(self.output)
        return process is not None and process.running

    def _look(self) -> None:
        """Read the ledger in a thread; a slow file system is not read again before it has answered."""
        if self._background.busy or not self.output:
            return
        output = self.output

        def read() -> _Look:
            from hrvol.run.status import run_status

            began = time.monotonic()
            status = run_status(output)
            return _Look(output, status, local_driver(status), time.monotonic() - began)

        self._background.call(read, self._found, lambda error: self._missing(output, error))

    def _found(self, look: _Look) -> None:
        if look.output != self.output:
            return
        self.status, self._driver = look.status, look.driver
        self._after_look(look.status["state"])
        state, own = look.status["state"], self._own_runs()
        # The ledger of a large run takes longer to read, and one that nothing writes to is read rarely.
        pause = max(POLL if own or state == "running" else _IDLE, round(10_000 * look.seconds))
        self._timer.setInterval(pause)
        if state == "complete" and not own:
            self._timer.stop()
            self.measures.measure(self.output)

    def _missing(self, output: str, error: Exception) -> None:
        """There is no ledger yet, or no run at all."""
        if output != self.output:
            return
        self.status = None
        if not self._own_runs() and self._jobs.of(output) is None:
            self._timer.stop()
            self.state.setText("")
            self._place.setText(str(error) if isinstance(error, InputError) else f"{output}: cannot be read")
            report(error)
            self._show()
            return
        self._after_look("starting")

    def _after_look(self, state: str) -> None:
        process = self._jobs.of(self.output)
        running = process is not None and process.running
        own = process is not None and process is not self._reported  # its end is reported below
        if state == "running":
            self._expected = not own
        elif state == "complete" and self._expected:
            self._expected = False
            self._completed()
        if self.status is not None:
            text = state_text(self.status)
            if running and state in ("stopped", "lost", "failed"):
                text = text.replace(state, "starting", 1)  # the ledger is of the run before
            self.state.setText(f"stopping; {text}" if self._stopping and (running or self._driver) else text)
        elif process is not None and running:
            self.state.setText(process.progress().text)
        if process is not None and own and not running:
            self._reported = process
            self._report_end(process)
        self._show()

    def _report_end(self, process: Process) -> None:
        code = process.poll()
        self._stopping = False
        if code == 0:
            self._completed()
        elif code in STOPPED:
            self.state.setText("stopped, can be resumed")
            inform(f"{basename(self.output)}: stopped, can be resumed")
        else:
            self._error = process.error()
            report(self._error)

    def _completed(self) -> None:
        inform(f"{basename(self.output)}: complete")
        if self._opens.isChecked():
            self.open_result()

    def _show(self) -> None:
        """Show the share, and enable what can be done."""
        status, own = self.status, self._own_runs()
        self._bar.setValue(0 if status is None else 1000 * status["done"] // max(1, status["total"]))
        self._bar.setFormat("" if status is None else f"{100 * status['done'] // max(1, status['total'])} %")
        active = own or self._driver is not None
        elsewhere = status is not None and status["state"] == "running"
        self._stop.setEnabled(active)
        self._resume.setEnabled(bool(self.output) and not active and not elsewhere and self._unfinished())
        self._open.setEnabled(status is not None)
        failures = "" if status is None else failure_text(status)
        self._failures.setText("\n".join(filter(None, (self._error, failures))))
        self._failures.setVisible(bool(self._failures.text()))
        self._bar.setVisible(bool(self.output))
        self.state.setVisible(bool(self.state.text()))

    def _unfinished(self) -> bool:
        return self.status is None or self.status["state"] != "complete"
