"""Start the program: standard streams and signals first, then the command line.

Importing the command line takes seconds on a slow disk. A signal that arrives meanwhile ends the program with
one line and the exit code of a stopped run.
"""

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path and sys.path:
    # ``python -m`` puts the current folder first, where a file called like a module would run instead of it.
    _package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.path[:1] = [sys.path[0]] if os.path.abspath(sys.path[0] or ".") == _package else []

import atexit
import signal
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT)


def main() -> None:
    """Run the command line."""
    _open_streams()
    # Registered first, so it runs last: afterwards Python gives signals with a handler their default, to end
    # the process, whose outcome is known.
    atexit.register(_handle, signal.SIG_IGN)
    _handle(_stop)
    os.environ["PYTHONSAFEPATH"] = "1"  # for all child processes: no module is the current folder's
    from hrvol.cli import main as program

    code: object = 1
    try:
        program()
    except SystemExit as end:
        code = end.code
        raise
    finally:
        # Python takes a while to exit; a signal cannot change the outcome any more.
        status = code if isinstance(code, int) else 1 if code else 0
        _handle(lambda number, frame: os._exit(status))


def _stop(number: int, frame: FrameType | None) -> None:
    """End a program that has not begun yet."""
    interrupted = number == signal.SIGINT
    name = signal.Signals(number).name
    line = "interrupted" if interrupted else f"stopped by {name}; run the same command to resume"
    try:
        os.write(2, f"hrvol: {line}\n".encode())
    finally:
        os._exit(130 if interrupted else 75)


def _handle(handle: object) -> None:
    for number in _SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, handle)  # type: ignore[arg-type]


def _open_streams() -> None:
    """Open closed standard streams, so that no file of the run gets the number of one, and is written to."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            handle = os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
            os.set_inheritable(handle, True)
            mode = "w" if number else "r"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


if __name__ == "__main__":
    main()
