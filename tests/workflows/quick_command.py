"""hrvol and Python for programs that call them often: forked from a process that has imported everything.

Starting Python and importing PyTorch, scikit-learn and Dask takes five seconds, and tests of workflows call
the command dozens of times. What is put on their PATH are clients of a few lines. A client hands its
arguments, folder, environment and standard streams to the process of the tests, which forks the command, or
runs a script; it passes signals on, and ends as the command does. If the client is killed, so is the command.
"""

import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
from contextlib import contextmanager, suppress
from multiprocessing.reduction import DupFd

from fault_data import FORK, fork_the_forkserver, not_waited

CLIENT = """#!{python} -IS
import json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
request = json.dumps([{name!r}, sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(request).to_bytes(8, "big")], [0, 1, 2])
server.sendall(request)

def number():
    data = server.recv(8, socket.MSG_WAITALL)
    if len(data) < 8:
        sys.exit("the process that forks commands has failed")
    return int.from_bytes(data, "big", signed=True)

pid = number()
for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(kind, lambda kind, frame: os.kill(pid, kind))
server.sendall(b"1")
code = number()
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@contextmanager
def quick_command(folder):
    """Write the programs ``hrvol`` and ``script`` into a folder and serve them in the ``with`` statement.

    ``script`` runs a script of Python. Yields the folder.
    """
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "socket"))
    listener.listen()
    for name in ("hrvol", "script"):
        program = folder / name
        program.write_text(CLIENT.format(python=sys.executable, address=str(folder / "socket"), name=name))
        program.chmod(0o755)

    def accept():
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield folder
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def serve(client):
    """Fork one command; its exit code, or its end, is the client's."""
    with client, suppress(OSError):
        head, streams, *_ = socket.recv_fds(client, 8, 3)
        try:
            request = read(client, int.from_bytes(head, "big"))
            process = FORK.Process(target=command, args=(request, [DupFd(stream) for stream in streams]))
            process.start()
        finally:
            for stream in streams:
                os.close(stream)
        client.sendall(process.pid.to_bytes(8, "big", signed=True))
        # The client says that it passes signals on; after that it says nothing until it has the exit code.
        read(client, 1)
        ended = threading.Thread(target=process.join)
        ended.start()
        while ended.is_alive():
            if select.select([client], [], [], 0.05)[0]:  # it was killed
                process.kill()
                break
        ended.join()
        client.sendall(process.exitcode.to_bytes(8, "big", signed=True))


def read(client, size):
    """Return bytes that a client sends; an ``OSError`` if it was killed before."""
    data = b""
    while len(data) < size:
        if not (part := client.recv(size - len(data))):
            raise ConnectionError("the client has ended")
        data += part
    return data


def command(request, streams):
    """Do in a forked process what the command does."""
    os.setsid()
    os.fsync = not_waited
    name, words, folder, variables = json.loads(request)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    for number, stream in enumerate(streams):
        os.dup2(stream.detach(), number)
    # Dask starts the process that this one is forked from in a thread that blocks the signal.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if "serial" not in words:
        fork_the_forkserver()
    if name == "script":
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")
        return
    from hrvol.cli import main

    sys.argv = ["hrvol", *words]
    main()
