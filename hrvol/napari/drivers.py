"""Find the process of this machine that drives a run that was started elsewhere."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any

import psutil


def local_driver(status: Mapping[str, Any]) -> psutil.Process | None:
    """Return the process that computes an output, if it is one of this user on this machine.

    The number is from the output, which may be hostile: only a process that is hrvol, by its command
    line, and names the output counts.

    Parameters
    ----------
    status
        Values of :func:`hrvol.run_status`.
    """
    name = os.path.basename(str(status["path"]).rstrip("/"))
    for driver in status["drivers"]:
        if driver["state"] != "running" or driver["host"] != socket.gethostname():
            continue
        try:
            process = psutil.Process(int(driver["pid"]))
            line = process.cmdline()
            own = process.uids().real == os.getuid()
        except (psutil.Error, ValueError, OverflowError):
            continue
        if own and any("hrvol" in part for part in line) and any(name in part for part in line):
            return process
    return None
