"""``hrvol serve`` in another process, and a network between that is slow and is cut."""

import os
import queue
import socket
import sys
import threading
import time
from contextlib import suppress

from fault_data import FORK

TOKEN = "test-token-of-more-than-32-characters"
START = 60


def run_server(arguments, log):
    """Call ``hrvol serve`` with its output in a file."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    from hrvol.cli import main

    main(["serve", *arguments])


class ServerProcess:
    """A server that is started, killed and started again on the same port."""

    def __init__(self, folder, volume, *arguments):
        self._log, token = folder / "serve.log", folder / "token"
        if not token.exists():
            token.write_text(f"{TOKEN}\n")
            token.chmod(0o600)
        self.token_file = token
        self._arguments = [str(volume), "--token-file", str(token), *map(str, arguments)]
        self.port = 0
        self.start()

    def start(self):
        self._log.unlink(missing_ok=True)
        self._process = FORK.Process(
            target=run_server,
            args=([*self._arguments, "--port", str(self.port)], str(self._log)),
            daemon=True,
        )
        self._process.start()
        end = time.monotonic() + START
        while "tunnel" not in self.output():
            assert time.monotonic() < end, self.output()
            assert self._process.is_alive(), self.output()
            time.sleep(0.02)
        (line,) = [line for line in self.output().splitlines() if line.startswith("url")]
        self.port = int(line.rpartition(":")[2])

    def output(self):
        return self._log.read_text() if self._log.exists() else ""

    def kill(self):
        self._process.kill()
        self._process.join()

    def stop(self):
        """End it as Ctrl-C does, and return the exit code."""
        if self._process.is_alive():
            self._process.terminate()
        self._process.join(20)
        return self._process.exitcode

    def close(self):
        if self._process.is_alive():
            self.kill()


class Proxy:
    """Passes bytes on to a port, late; cuts connections when it has passed on so many requests."""

    def __init__(self, port, delay=0.05, cuts=()):
        self.target, self._delay, self._cuts = port, delay, list(cuts)
        self._passed = self.cut_count = 0
        self._lock = threading.Lock()
        self._open = set()
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def cut(self):
        """Cut all connections."""
        with self._lock:
            held, self._open = self._open, set()
        for one in held:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self.cut_count += 1

    def close(self):
        self._closed = True
        self._listener.close()
        self.cut()

    def _accept(self):
        while not self._closed:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                if self._closed:
                    return
                client.close()
                continue
            with self._lock:
                self._open |= {client, server}
            for source, target, delay in ((client, server, self._delay), (server, client, 0.0)):
                line = queue.Queue()
                threading.Thread(target=self._receive, args=(source, line, delay), daemon=True).start()
                threading.Thread(target=self._send, args=(line, target, delay > 0), daemon=True).start()

    def _receive(self, source, line, delay):
        with suppress(OSError):
            while data := source.recv(2**16):
                line.put((time.monotonic() + delay, data))
        line.put((0.0, b""))

    def _send(self, line, target, counts):
        while True:
            at, data = line.get()
            if not data:
                break
            time.sleep(max(0.0, at - time.monotonic()))
            try:
                target.sendall(data)
            except OSError:
                break
            if counts:
                self._count()
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
        target.close()

    def _count(self):
        with self._lock:
            self._passed += 1
            due = bool(self._cuts) and self._passed >= self._cuts[0]
            if due:
                self._cuts.pop(0)
        if due:  # the server has the request, and its answer is lost
            time.sleep(0.005)
            self.cut()
