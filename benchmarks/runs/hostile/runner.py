"""Run commands in processes that are forked from one that has imported everything, and measure them."""

from __future__ import annotations

import gc
import importlib
import os
import pty
import resource
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LIMIT = 30.0
"""Seconds after which a command counts as hanging."""

_ADDRESS_SPACE = 6 * 2**30  # more than at the start: a bomb ends its process, not the machine

_TEXT = 200_000  # bytes of a stream that are read


@dataclass(frozen=True)
class Ending:
    """How a command ended.

    Attributes
    ----------
    code
        Exit code; negative for a signal, ``None`` for a command that was ended because it hung.
    out, err
        Standard output and error.
    seconds
        Wall time.
    peak
        Largest resident memory in MB, that of the process it was forked from included.
    """

    code: int | None
    out: str
    err: str
    seconds: float
    peak: float


def warm_up(tree: Path, prepare: Callable[[], object], log: Path) -> None:
    """Import all modules that some work uses, from the package in another folder.

    The work is done in a child: its threads must not be here.
    """
    sys.path.insert(0, str(tree))
    importlib.import_module("hrvol.cli")
    names = log.with_suffix(".modules")

    def work() -> None:
        stream = os.open(log, os.O_WRONLY | os.O_CREAT)
        for number in (1, 2):
            os.dup2(stream, number)
        prepare()
        names.write_text("\n".join(sys.modules))

    if not in_child(work, log.with_suffix(".error")):
        raise RuntimeError(log.with_suffix(".error").read_text() + log.read_text())
    for name in names.read_text().splitlines():
        with suppress(BaseException):  # such as parts of a package that are no modules
            importlib.import_module(name)
    if threading.active_count() > 1:
        raise RuntimeError(f"imports started threads: {threading.enumerate()}")
    gc.freeze()  # collecting would copy what processes share


def call(words: Sequence[str]) -> int:
    """Run a command in this process and return its exit code."""
    from hrvol.cli import main

    sys.argv = ["hrvol", *words]
    try:
        main(list(words))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def in_child(work: Callable[[], object], log: Path) -> bool:
    """Do something in a child, so that threads and memory end with it; return whether it succeeded."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            log.write_text(traceback.format_exc())
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


def run(words: Sequence[str], folder: Path, limit: float = LIMIT, terminal: bool = False) -> Ending:
    """Run a command in a folder."""
    # Beside the folder, where no command finds them.
    logs = Path(tempfile.mkdtemp(prefix="streams-", dir=folder.parent))
    began = time.monotonic()
    if terminal:
        pid, handle = pty.fork()
    else:
        pid, handle = os.fork(), -1
    if pid == 0:
        _command(words, folder, None if terminal else logs)
    text = bytearray()
    code, peak = _wait(pid, began + limit, handle, text)
    seconds = time.monotonic() - began
    if terminal:
        os.close(handle)
        out, err = bytes(text[:_TEXT]), b""
    else:
        out, err = (_head(logs / name) for name in ("out", "err"))
    shutil.rmtree(logs, ignore_errors=True)
    return Ending(code, *(each.decode(errors="backslashreplace") for each in (out, err)), seconds, peak)


def _command(words: Sequence[str], folder: Path, logs: Path | None) -> None:
    """Become the command; does not return."""
    code = 1
    try:
        if logs is not None:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(logs / name, os.O_WRONLY | os.O_CREAT), number)
        os.chdir(folder)
        _environment(folder)
        size = _virtual_size() + _ADDRESS_SPACE
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        code = call(words)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _environment(folder: Path) -> None:
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    for name in [name for name in os.environ if name.startswith(("HRVOL", "AWS_", "DASK_"))]:
        del os.environ[name]
    # A terminal that is dumb gets no escapes from rich itself.
    os.environ |= {"HOME": str(home), "TERM": "dumb", "COLUMNS": "200", "XDG_CACHE_HOME": str(home / "cache")}


def _wait(pid: int, deadline: float, handle: int, text: bytearray) -> tuple[int | None, float]:
    """Wait for a child; return its exit code and peak memory in MB. Reads its terminal meanwhile."""
    watch = os.pidfd_open(pid)
    handles, hung = [watch] + ([handle] if handle >= 0 else []), False
    try:
        while True:
            ready, _, _ = select.select(handles, [], [], max(0.0, deadline - time.monotonic()))
            if handle in ready and not _read(handle, text):
                handles.remove(handle)
            if watch in ready:
                break
            if not ready:
                hung = True
                break
        if hung:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)  # processes that it left behind
        while handle in handles and select.select([handle], [], [], 0)[0] and _read(handle, text):
            pass
    finally:
        os.close(watch)
    return None if hung else os.waitstatus_to_exitcode(status), usage.ru_maxrss / 1024


def _read(handle: int, text: bytearray) -> bool:
    try:
        data = os.read(handle, 65536)
    except OSError:  # the terminal has no writer any more
        return False
    text += data[: max(0, _TEXT - len(text))]
    return bool(data)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_TEXT)
    except OSError:
        return b""


def _virtual_size() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
