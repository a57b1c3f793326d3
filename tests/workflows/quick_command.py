"""The command hrvol for programs that call it often: forked from a process that has imported everything.

Starting Python and importing PyTorch, scikit-learn and Dask takes five seconds, and tests of workflows call
the command dozens of times. What is put on their PATH is a client of a few lines. It hands its arguments,
folder, environment and standard streams to the process of the tests, which forks the command; it passes
signals on, and ends as the command does. If the client is killed, so is the command.
"""

import json
import os
import select
import signal
import socket
import sys
import threading
from contextlib import contextmanager, suppress
from multiprocessing.reduction import DupFd

from fault_data import FORK, fork_the_forkserver

CLIENT = """#!{python} -IS
import json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
request = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(request).to_bytes(8, "big")], [0, 1, 2])
server.sendall(request)
pid = int.from_bytes(server.recv(8), "big")
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, lambda number, frame: os.kill(pid, number))
server.sendall(b"1")
code = int.from_bytes(server.recv(8), "big", signed=True)
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@contextmanager
def quick_command(folder):
    """Write the program ``hrvol`` into a folder and serve it until the ``with`` statement ends."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "socket"))
    listener.listen()
    program = folder / "hrvol"
    program.write_text(CLIENT.format(python=sys.executable, address=str(folder / "socket")))
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
        yield program
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def serve(client):
    """Fork one command; its exit code, or its end, is the client's."""
    with client, suppress(OSError):
        head, streams, *_ = socket.recv_fds(client, 8, 3)
        request = read(client, int.from_bytes(head, "big"))
        process = FORK.Process(target=command, args=(request, [DupFd(stream) for stream in streams]))
        process.start()
        for stream in streams:
            os.close(stream)
        client.sendall(process.pid.to_bytes(8, "big"))
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
    words, folder, variables = json.loads(request)
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
    from hrvol.cli import main

    sys.argv = ["hrvol", *words]
    main()
