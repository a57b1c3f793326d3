"""Run commands of hrvol in processes of their own, which outlive napari if they are let.

A process leads a session of its own: neither Ctrl-C in napari's terminal nor the end of napari stops it. What
it prints goes to files, so that it never waits for a reader.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hrvol.napari.folders import new_log
from hrvol.text import printable

_TAIL = 16 * 1024  # bytes at the end of a log that are read

_OUTPUT = 64 * 2**20  # most bytes of a command's output that are read

_ERROR = "hrvol: error: "

_PROGRESS = re.compile(r"(?P<stage>.+): (?P<percent>\d{1,3}) % \((?P<of>.+)\), (?P<rate>.+)")

STOPPED = (75, 130, -signal.SIGUSR1, -signal.SIGTERM, -signal.SIGINT)
"""Exit codes of a command that was stopped, also before it handled signals."""


@dataclass(frozen=True)
class Progress:
    """What a process has printed last.

    Attributes
    ----------
    text
        A line for people.
    percent
        0 to 100; ``None`` if the line has no share.
    """

    text: str
    percent: int | None = None


@dataclass(frozen=True, eq=False)
class Process:
    """A running or ended command.

    Attributes
    ----------
    arguments
        Arguments of ``hrvol``, or of the module.
    log, output
        Files of its standard error and standard output.
    began
        Time of its start, in seconds of the monotonic clock.
    """

    arguments: tuple[str, ...]
    log: Path
    output: Path
    began: float
    _popen: subprocess.Popen[bytes] = field(repr=False)

    @classmethod
    def start(cls, arguments: Sequence[str], module: str = "hrvol") -> Process:
        """Start ``python -m hrvol`` (or another module) with arguments.

        Raises
        ------
        OSError
            The log cannot be written, or no process can be started.
        """
        log = new_log(arguments[0] if module == "hrvol" else module.rpartition(".")[2])
        output = log.with_suffix(".out")
        command = [sys.executable, "-P", "-m", module, *arguments]
        with log.open("wb") as errors, output.open("wb") as results:
            popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=results,
                stderr=errors,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        return cls(tuple(arguments), log, output, time.monotonic(), popen)

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._popen.pid

    def poll(self) -> int | None:
        """Return the exit code; ``None`` while it runs."""
        return self._popen.poll()

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.poll() is None

    def stop(self) -> None:
        """Stop it in order: what is in progress is finished. A second call, after a second, abandons that."""
        if self.running:
            with suppress(ProcessLookupError):
                self._popen.send_signal(signal.SIGUSR1)

    def terminate(self) -> None:
        """Ask a command that keeps no state to end."""
        if self.running:
            with suppress(ProcessLookupError):
                self._popen.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it, and the processes that it started, at once."""
        if self.running:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, signal.SIGKILL)
            self._popen.wait()

    def wait(self, timeout: float) -> int | None:
        """Return the exit code; ``None`` if it runs for longer than ``timeout`` seconds."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def lines(self) -> list[str]:
        """Return the last lines of the log."""
        try:
            with self.log.open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - _TAIL))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return []
        return [printable(line, 1000) for line in text.splitlines() if line.strip()]

    def progress(self) -> Progress:
        """Return what it printed last."""
        lines = self.lines()
        if not lines:
            return Progress("starting")
        return progress_of(lines[-1])

    def error(self) -> str:
        """Return in one line why it ended."""
        lines = self.lines()
        errors = [line.removeprefix(_ERROR) for line in lines if line.startswith(_ERROR)]
        if errors:
            return errors[-1]
        last = f"; its last line: {lines[-1]}" if lines else ""
        code = self.poll()
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return f"{self.arguments[0]} ended with {how}{last} (see {self.log})"

    def result(self) -> bytes:
        """Return what it printed to standard output, at most 64 MiB."""
        with self.output.open("rb") as file:
            return file.read(_OUTPUT)

    def discard(self) -> None:
        """Delete the files of an ended process."""
        self.log.unlink(missing_ok=True)
        self.output.unlink(missing_ok=True)


def progress_of(line: str) -> Progress:
    """Return a line of a log as progress, with its share if it has one."""
    text = line.removeprefix("hrvol: ")
    match = _PROGRESS.fullmatch(text)
    if match is None:
        return Progress(text)
    return Progress(f"{match['stage']}: {match['rate']}", min(100, int(match["percent"])))
