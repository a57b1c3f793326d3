"""Dask's scheduler, workers and nannies, as hrvol starts them: without HTTP, on one network interface."""

from __future__ import annotations

import os
from typing import Any

from distributed import Nanny, Scheduler, Worker
from distributed.comm import get_address_host
from distributed.http.routing import RoutingApplication
from distributed.utils import get_ip
from tornado.httpserver import HTTPServer

from hrvol.engine.safe_path import SAFE_PATH
from hrvol.errors import one_line

ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20)}
"""How much freed memory glibc keeps in a worker.

By default Dask makes it return all but 64 KiB at once; then the pages of every array of more than 128 KiB are
mapped and cleared again, which takes longer than the work on blocks. These settings keep at most 256 MiB, of
arrays of up to 32 MiB.
"""

GPU_MEMORY = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
"""How torch keeps GPU memory: otherwise free memory is fragmented once batches of another size come."""


class _NoHttp:
    """Part of a server that opens no port for HTTP.

    Dask opens one even without a dashboard. It has no TLS: every account can read ``/info`` and ``/json``.
    """

    def start_http_server(self, routes: Any, *_: Any, **__: Any) -> None:
        """Create the server that Dask expects, which listens nowhere."""
        self.http_application = RoutingApplication(routes)
        self.http_server = HTTPServer(self.http_application)


class PrivateScheduler(_NoHttp, Scheduler):  # type: ignore[misc] # Dask has no types
    """A scheduler without HTTP."""


class PrivateWorker(_NoHttp, Worker):  # type: ignore[misc]
    """A worker without HTTP that listens where the scheduler reaches it, not on all interfaces."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        scheduler = str(arguments[0] if arguments else options.get("scheduler_ip") or "")
        if "://" in scheduler and not any(options.get(name) for name in ("host", "interface")):
            options["host"] = get_ip(get_address_host(scheduler))
        super().__init__(*arguments, **options)


class PrivateNanny(Nanny):  # type: ignore[misc]
    """Starts a :class:`PrivateWorker` in a process with :data:`ALLOCATOR`, which the environment overrides.

    The process has the environment variables of the driver at this moment, not those at the start of the
    process that it is forked from.

    Attributes
    ----------
    reason
        Why the process did not start; Dask only logs it, and its log is silenced.
    """

    reason = ""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"worker_class": PrivateWorker, **options})
        defaults = ALLOCATOR | GPU_MEMORY
        self.pre_spawn_env |= {name: os.environ.get(name, value) for name, value in defaults.items()}

    async def instantiate(self) -> Any:
        """Start the process."""
        self.env = {**os.environ, **self.env, SAFE_PATH: "1"}  # type: ignore[has-type]
        try:
            return await super().instantiate()
        except Exception as error:
            self.reason = root_cause(error)
            raise


def root_cause(error: BaseException) -> str:
    """Return in one line the first exception of a chain of causes."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(error)
