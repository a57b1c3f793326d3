"""Attempts of another account of the machine to get into a run."""

import asyncio
import contextlib
import json
import os
import socket
import ssl

import psutil
from distributed import Client, Security
from distributed.core import connect
from fault_data import FORK

NOBODY = 65534
PATIENCE = 3


def processes(*roots):
    """Return the processes with all that they have started."""
    found = {}
    for root in roots:
        with contextlib.suppress(psutil.Error):
            top = psutil.Process(root)
            found |= {process.pid: process for process in (top, *top.children(recursive=True))}
    return list(found.values())


def listening(*roots):
    """Return the addresses at which processes and their children listen, as sorted (host, port)."""
    found = set()
    for process in processes(*roots):
        with contextlib.suppress(psutil.Error):
            connections = process.net_connections("tcp")
            found |= {tuple(one.laddr) for one in connections if one.status == psutil.CONN_LISTEN}
    return sorted(found)


def intrusions(addresses, folder):
    """Return what another account reaches at these addresses, one text for each success."""
    report = folder / "intrusions.json"
    report.touch()
    report.chmod(0o666)
    handle = os.open(report, os.O_WRONLY)
    process = FORK.Process(target=_attempt_all, args=(list(addresses), str(report)))
    process.start()
    os.close(handle)
    process.join(60)
    assert process.exitcode == 0
    return json.loads(report.read_text())


def _attempt_all(addresses, report):
    # What is imported later would have to be readable for the other account.
    security = Security.temporary()
    mine = security.get_connection_args("client")
    without = dict(mine, ssl_context=_no_certificate())
    with open(report, "w") as stream:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        assert os.getuid() == NOBODY
        stream.write(json.dumps(asyncio.run(_attempts(addresses, security, mine, without))))


def _no_certificate():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _attempts(addresses, security, mine, without):
    tries = []
    for host, port in addresses:
        place = f"{host}:{port}"
        tries += [
            (f"{place} serves HTTP", asyncio.to_thread(_http, host, port)),
            (f"{place} answers without TLS", _identity(f"tcp://{place}", {})),
            (f"{place} answers with other keys", _identity(f"tls://{place}", mine)),
            (f"{place} answers without a certificate", _identity(f"tls://{place}", without)),
            (f"{place} runs code without TLS", _run(f"tcp://{place}", None)),
            (f"{place} runs code with other keys", _run(f"tls://{place}", security)),
        ]
    results = await asyncio.gather(*(task for _, task in tries), return_exceptions=True)
    return [
        text
        for (text, _), result in zip(tries, results, strict=True)
        if not isinstance(result, BaseException) and result
    ]


def _http(host, port):
    with socket.create_connection((host, port), timeout=PATIENCE) as connection:
        connection.settimeout(PATIENCE)
        connection.sendall(b"GET /info/main/workers.html HTTP/1.0\r\n\r\n")
        return connection.recv(100).startswith(b"HTTP")


async def _identity(address, arguments):
    async with asyncio.timeout(PATIENCE):
        comm = await connect(address, timeout=PATIENCE, **arguments)
        await comm.write({"op": "identity", "reply": True})
        return isinstance(await comm.read(), dict)


async def _run(address, security):
    async with asyncio.timeout(2 * PATIENCE):
        client = Client(address, security=security, timeout=PATIENCE, asynchronous=True, set_as_default=False)
        async with client:
            return await client.run_on_scheduler(os.getpid) > 0
