"""Check whether an engine can start, before anything is written; find the scheduler of a running cluster."""

from __future__ import annotations

import errno
import shutil
import socket
import time

from pydantic import Field

from hrvol.engine.spec import EngineSpec, check_address
from hrvol.errors import EngineError, InputError, UsageError
from hrvol.reading.bounded import parse_mapping, read_file
from hrvol.reading.schema import Schema, validated
from hrvol.text import printable

PATIENCE = 8.0
"""Seconds to wait for a scheduler that was started at the same time: for its file, and for its port."""

CONNECT = 10.0
"""Seconds for a connection to be accepted, and for the scheduler's answer."""

_FILE_BYTES = 16 * 2**20

_PAUSE = 0.2


class _SchedulerFile(Schema):
    """What is read of the file that a scheduler writes."""

    address: str = Field(min_length=1, max_length=300)


def check_engine(spec: EngineSpec) -> None:
    """Check that an engine can be started, as far as this is known at once; start nothing.

    Raises
    ------
    EngineError
        SLURM's commands are missing, it calls an option invalid, or no scheduler answers.
    InputError
        The scheduler file is missing or damaged.
    MissingExtraError
        dask-jobqueue is not installed.
    UsageError
        SLURM jobs have no such options.
    """
    if spec.running_cluster:
        from hrvol.engine.dask_clusters import identify_scheduler, sigint_masked_loop

        address = find_scheduler(spec)
        runner = sigint_masked_loop()
        try:
            identify_scheduler(address, CONNECT, runner.loop)
        finally:
            runner.stop(timeout=2)
    elif spec.name == "slurm":
        from hrvol.engine.slurm import check_jobs

        find_sbatch()
        check_jobs(spec)


def find_sbatch() -> None:
    """Raise an :class:`EngineError` if there is no command ``sbatch``."""
    if shutil.which("sbatch") is None:
        raise EngineError("engine: slurm: found no command sbatch, expected SLURM's commands on PATH")


def find_scheduler(spec: EngineSpec) -> str:
    """Return the address of the scheduler of a running cluster, once its port accepts connections.

    Raises
    ------
    EngineError
        No scheduler listens at the address.
    InputError
        The scheduler file is missing or damaged.
    """
    deadline = time.monotonic() + PATIENCE
    address = _address_of(spec, deadline)
    scheme, _, place = address.partition("://")
    if scheme in ("tcp", "tls"):
        host, _, port = place.rstrip("/").rpartition(":")
        _reach(address, host.strip("[]"), int(port), deadline)
    return address


def _address_of(spec: EngineSpec, deadline: float) -> str:
    if spec.scheduler_file is None:
        return spec.name
    while True:
        try:
            return _read_address(spec.scheduler_file)
        except InputError:  # not written yet, or not to its end
            if time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE)


def _read_address(file: str) -> str:
    expected = "the file of a Dask scheduler (dask scheduler --scheduler-file FILE)"
    name = printable(file, 1000)
    values = parse_mapping(read_file(file, _FILE_BYTES, expected), name)
    address = validated(_SchedulerFile, values, name).address
    try:
        check_address(address)
    except UsageError as error:
        raise InputError(f"{name}: {error}") from None
    return address


def _reach(address: str, host: str, port: int, deadline: float) -> None:
    """Wait until a port accepts connections."""
    while True:
        try:
            socket.create_connection((host, port), timeout=CONNECT).close()
            return
        except OSError as error:
            if error.errno != errno.ECONNREFUSED or time.monotonic() > deadline:
                reason = error.strerror or str(error)
                raise EngineError(f"{address}: no Dask scheduler answers ({reason})") from None
        time.sleep(_PAUSE)
