"""Signals end the program in order at any time: while it is imported, while it works, while workers start."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import click
import psutil
import pytest
from click.testing import CliRunner

from hrvol.cli import _Program
from hrvol.engine.dask_engine import DaskEngine
from hrvol.engine.spec import EngineSpec
from hrvol.engine.stop import Abandoned, stop_signals

SIGNALS = [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT]


def handled(pid, number):
    """Whether a process has a handler for a signal."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())[1]
    return bool(int(caught, 16) >> (number - 1) & 1)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_the_program_is_imported_is_one_line(number):
    words = [sys.executable, "-m", "hrvol", "weights", "list"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        # SIGHUP is the last to be handled that Python itself does not handle.
        while not handled(process.pid, signal.SIGUSR1):
            assert process.poll() is None
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == (130 if number == signal.SIGINT else 75)
    resume = f"stopped by {number.name}; run the same command to resume"
    line = "interrupted" if number == signal.SIGINT else resume
    assert (output, errors) == ("", f"hrvol: {line}\n")


END = """
import atexit, os, signal, sys, hrvol.__main__ as program
class Late:
    def __del__(self):  # while Python finalises modules, after it has reset handlers of signals
        os.kill(os.getpid(), signal.{name})
program.late = Late()
sys.argv = ["hrvol", "weights", "list"]
program.main()
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_python_exits_changes_no_exit_code(number):
    words = [sys.executable, "-c", END.format(name=number.name)]
    assert subprocess.run(words, stdout=subprocess.DEVNULL, timeout=60).returncode == 0


@click.group(cls=_Program)
def program():
    """A program with a command that is signalled."""


@program.command()
@click.argument("number", type=int)
def work(number):
    """Get a signal."""
    os.kill(os.getpid(), number)
    time.sleep(10)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_to_a_command_without_blocks_is_one_line(number):
    result = CliRunner().invoke(program, ["work", str(int(number))])
    assert result.exit_code == (130 if number == signal.SIGINT else 75)
    assert result.output.startswith("hrvol: ")
    assert len(result.output.splitlines()) == 1


@pytest.mark.parametrize(
    ("number", "seconds"), [(signal.SIGTERM, 0.1), (signal.SIGINT, 0.6), (signal.SIGHUP, 1.2)]
)
def test_a_signal_while_workers_start_ends_them_at_once(number, seconds, own_forkserver, capfd):
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    timer = threading.Timer(seconds, os.kill, (os.getpid(), number))

    def start():
        with stop_signals():
            timer.start()
            with DaskEngine(EngineSpec("local", 2)):
                time.sleep(10)

    with pytest.raises(Abandoned, match=number.name):
        start()
    began = time.monotonic()
    while time.monotonic() - began < 10:
        left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
        left = [child for child in left if "resource_tracker" not in " ".join(child.cmdline())]
        if not left:
            break
        time.sleep(0.05)
    assert [child.cmdline() for child in left] == []
    assert time.monotonic() - began < 5
    assert capfd.readouterr().err == ""
