"""The machine that a benchmark runs on, and messages about its progress."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import TextIO

from hrvol.segment.model.model import current_versions

_STARTED = time.monotonic()


def describe_machine(threads: int) -> str:
    """Return a sentence with processor, cores, threads used and versions of the packages."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # not Linux: keep the name that platform gives
    versions = ", ".join(f"{name} {version}" for name, version in current_versions().items())
    return f"{model}, {os.cpu_count()} cores, {threads} threads used; {platform.system()}; {versions}."


def log(message: str, stream: TextIO | None = None) -> None:
    """Print a message and the seconds since the start, on standard output by default."""
    print(f"{time.monotonic() - _STARTED:7.0f} s  {message}", file=stream, flush=True)
