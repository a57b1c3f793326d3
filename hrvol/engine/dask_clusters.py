"""Start Dask clusters of processes of this machine, on CPUs or GPUs; connect to clusters that run already."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any

import dask
from distributed import Client, LocalCluster, Security
from distributed.core import connect
from distributed.utils import LoopRunner, get_mp_context, import_term, sync

from hrvol.engine.dask_servers import (
    PrivateNanny,
    PrivateScheduler,
    root_cause,
)
from hrvol.engine.private import prepare_sockets
from hrvol.engine.spec import IN_FLIGHT, EngineSpec
from hrvol.errors import EngineError, HrvolError, MissingExtraError, one_line

_OF_THE_DRIVER = {signal.SIGINT, signal.SIGHUP, signal.SIGUSR1}


def sigint_masked_loop() -> Any:
    """Return a running event loop whose child processes ignore Ctrl-C, SIGHUP and SIGUSR1.

    A terminal, or a job system, sends them to all processes, but only the driver decides about the blocks in
    progress. Child processes inherit the signal mask of the thread that starts them.
    """
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_DRIVER)
    try:
        resource_tracker.ensure_running()  # later it would unblock SIGINT in the thread that starts workers
        signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_DRIVER)
        runner = LoopRunner()
        runner.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
    return runner


class _WithoutHttp:
    """Part of a cluster whose scheduler serves no HTTP."""

    async def _start(self) -> None:
        self.scheduler_spec = {**self.scheduler_spec, "cls": PrivateScheduler}  # type: ignore[has-type]
        await super()._start()  # type: ignore[misc]


class _LocalCluster(_WithoutHttp, LocalCluster):  # type: ignore[misc] # Dask has no types
    """Processes of this machine."""


def local_cluster(spec: EngineSpec, workers: int, loop: Any, security: Security) -> LocalCluster:
    """Return a cluster of worker processes on this machine, all of whose ports are on the loopback interface.

    Parameters
    ----------
    spec, workers
        The engine, and its number of processes.
    loop
        From :func:`sigint_masked_loop`.
    security
        Keys of the run.

    Notes
    -----
    Workers are forked from a process that imports ``spec.imports`` once: with several workers, or when one is
    replaced, the imports are not repeated. That process has a single thread, so that forking is safe.
    """
    prepare_sockets()
    context = get_mp_context()
    if spec.imports:
        context.set_forkserver_preload(list(spec.imports))
    return _LocalCluster(
        loop=loop,
        security=security,
        worker_class=PrivateNanny,
        n_workers=workers,
        threads_per_worker=IN_FLIGHT,
        processes=True,
        dashboard_address=None,
        silence_logs=logging.CRITICAL,
        # A worker holds two blocks at a time and nothing between blocks. Dask's limit would pause it
        # forever if the network alone exceeds it; the system's limit still applies.
        memory_limit=0,
    )


def cuda_cluster(spec: EngineSpec, workers: int, loop: Any, security: Security) -> LocalCluster:
    """Return a cluster of worker processes on this machine with a GPU each, as :func:`local_cluster` does.

    Raises
    ------
    MissingExtraError
        dask-cuda is not installed.
    """
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError as error:
        raise MissingExtraError(
            f"engine: cuda needs dask-cuda ({' '.join(str(error).split())}); pip install 'hrvol[gpu]'"
        ) from None

    class Cluster(_WithoutHttp, LocalCUDACluster):  # type: ignore[misc]
        pass

    cluster: LocalCluster = Cluster(
        CUDA_VISIBLE_DEVICES=list(spec.devices) or None,
        n_workers=workers,
        threads_per_worker=IN_FLIGHT,  # one uses the GPU at a time: see hrvol.engine.task.computing
        memory_limit=0,
        device_memory_limit=None,  # results are never on a GPU: nothing to spill
        protocol="tls",
        security=security,
        rmm_async=True,
        loop=loop,
        worker_class=PrivateNanny,
        dashboard_address=None,
        silence_logs=logging.CRITICAL,
    )
    return cluster


def connect_running(address: str, timeout: float, loop: Any) -> Client:
    """Return a client of a cluster that runs already, with the keys in Dask's configuration if there are any.

    Parameters
    ----------
    address
        Of the scheduler.
    timeout
        Seconds for an answer.
    loop
        From :func:`sigint_masked_loop`.

    Raises
    ------
    EngineError
        No scheduler answers, or its keys are missing.
    """
    security = identify_scheduler(address, timeout, loop)
    with _as_engine_error(address, timeout):
        return Client(address, set_as_default=False, timeout=timeout, loop=loop, security=security)


def identify_scheduler(address: str, timeout: float, loop: Any) -> Security:
    """Return the keys for a scheduler that answers; parameters as in :func:`connect_running`.

    Raises
    ------
    EngineError
        No scheduler answers, or its keys are missing.
    """
    with _as_engine_error(address, timeout):
        security = _security(address)
        arguments = security.get_connection_args("client")
        if address.startswith("tls://") and arguments["ssl_context"] is None:
            raise EngineError(
                f"{address}: found no keys in Dask's configuration, expected distributed.comm.tls.ca-file,"
                " distributed.comm.tls.client.cert and distributed.comm.tls.client.key"
            )
        # Dask's client would wait forever for a port that accepts connections and never answers.
        sync(loop, _identify, address, timeout, arguments, callback_timeout=timeout)
        return security


@contextmanager
def _as_engine_error(address: str, timeout: float) -> Iterator[None]:
    try:
        yield
    except HrvolError:
        raise
    except Exception as error:  # each protocol raises its own types
        silent = isinstance(error, TimeoutError)
        reason = f"nothing in {timeout:.0f} s" if silent else root_cause(error)
        raise EngineError(f"{address}: no Dask scheduler answers ({reason})") from None


def _security(address: str) -> Security:
    """Return the keys that Dask's own client would use: of a function that is configured, or configured."""
    name = dask.config.get("distributed.client.security-loader", None)
    try:
        loaded = import_term(name)({"address": address}) if name else None
    except Exception as error:  # anything: it is not ours
        raise EngineError(f"distributed.client.security-loader: {name}: {one_line(error)}") from None
    return loaded or Security()


async def _identify(address: str, timeout: float, arguments: dict[str, Any]) -> None:
    """Raise unless a scheduler answers."""
    comm = await connect(address, timeout=timeout, **arguments)
    try:
        await comm.write({"op": "identity", "reply": True})
        answer = await comm.read()
    finally:
        comm.abort()
    if not isinstance(answer, dict) or "workers" not in answer:
        raise ValueError("something else listens there")
