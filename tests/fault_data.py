"""A small case for runs that are harmed: real processes, ways to harm them and what they wrote, comparison.

A run's process is forked from one that has imported everything, and then does what the command does: starting
takes half a second instead of six.
"""

import json
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import multiprocessing.util
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import psutil
import zarr
from run_data import draw, make_volume

from hrvol.engine.stop import Stop
from hrvol.errors import StoppedError
from hrvol.recipe.recipe import Recipe
from hrvol.run.ledger import entries
from hrvol.run.segment import segment_volume
from hrvol.run.status import run_status
from hrvol.segment.model.model import save_model
from hrvol.training.train import train_model
from hrvol.volume.grid.tiling import blocks, tiles_of
from hrvol.volume.storage.location import Location

SHAPE = (2, 520, 88)
CHUNKS = (2, 40, 44)
RECIPE = Recipe.from_dict(
    {
        "features": {"kind": "classical", "classical": {"filters": ["gaussian", "sobel"], "sigmas": [1, 2]}},
        "classifier": {"trees": 30, "samples_per_class": 500},
        "tiles": {"core": 64, "overlap": 12, "planes": 1},
    }
)
WANTED = {"probabilities": True, "uncertainty": True}
ARRAYS = ("labels/hrvol/0", "labels/hrvol/1", "labels/hrvol/2", "probabilities/0", "uncertainty/1")
HARMS = ("truncated", "deleted", "flipped", "a directory")

DEEP = json.loads("[" * 400 + "]" * 400)
ODD = [None, True, -1, 1.5, 10**30, "1", "", [], {}, DEEP, "x" * 10**6, "\x1b[2J"]
"""Values that a file may hold where another is expected."""

FORK = multiprocessing.get_context("forkserver")
PRELOAD = ["hrvol.cli", "hrvol.run.segment", "hrvol.engine.dask_engine", "hrvol.features.featuriser"]
FORK.set_forkserver_preload(PRELOAD)


@dataclass(frozen=True)
class Case:
    """A volume and a model on disk, and what an uninterrupted run makes of them; nine blocks per plane."""

    folder: Path
    shape: tuple[int, int, int]

    @classmethod
    def make(cls, folder, shape=SHAPE):
        image, truth = make_volume(shape=shape)
        array = zarr.create_array(folder / "volume.zarr", shape=shape, chunks=CHUNKS, dtype=image.dtype)
        array[:] = image
        pair = image, draw(truth, planes=(0, shape[0] - 1))
        trained = train_model([pair], recipe=RECIPE, classes=["matrix", "disc"])
        save_model(trained, folder / "model.hrvol")
        return cls(folder, shape)

    @property
    def volume(self):
        return self.folder / "volume.zarr"

    @property
    def model(self):
        return self.folder / "model.hrvol"

    @cached_property
    def blocks(self):
        return blocks(self.shape, RECIPE.tiles)

    @cached_property
    def reference(self):
        """A complete output that nothing happened to."""
        out = self.folder / "reference.ome.zarr"
        self.segment(out)
        return out

    @cached_property
    def expected(self):
        return contents(self.reference)

    def segment(self, out, **options):
        """Run in this process; the same command as :meth:`command`."""
        return segment_volume(self.volume, out, self.model, **WANTED, **options)

    def begin(self, out, share=0.4):
        """Make an output that is stopped after a share of its blocks."""
        stop = Stop()

        def progress(stage, done, total):
            if done >= share * total:
                stop.request()

        with suppress(StoppedError):
            self.segment(out, stop=stop, progress=progress)
        return out

    def command(self, out, *options, engine="serial", workers=2):
        """Return the arguments of the command line."""
        kinds = [f"--{name}" for name in WANTED]
        count = ["--workers", workers] if engine == "local" else []
        where = ["segment", self.volume, out, "-m", self.model, "--engine", engine]
        return [str(word) for word in (*where, *count, *kinds, *options)]

    def readers(self, chunk):
        """Return the indices of the blocks that read a chunk of the input, from geometry alone."""
        found = []
        for block in self.blocks:
            for tile in tiles_of(block, self.shape[1:], RECIPE.tiles):
                y0, y1, x0, x1 = tile.window
                read = (block.core[0], slice(y0, y1), slice(x0, x1))
                spans = zip(read, chunk, CHUNKS, strict=True)
                if all(s.start < (i + 1) * side and i * side < s.stop for s, i, side in spans):
                    found.append(block.index)
        return sorted(set(found))


class Run:
    """A process that does a command of the command line; use it in a ``with`` statement, which ends it.

    ``dies_at`` lets it kill itself at the so-many-th call of ``fsync``, before a file gets its name or after,
    or at the first one for a file whose path has this text in it. ``limits`` are those of silent workers.
    """

    def __init__(self, arguments, log, dies_at=None, limits=None):
        self._log = Path(log)
        options = (dies_at, limits, os.fsync is not_waited)
        self._process = FORK.Process(target=_run, args=(list(arguments), str(log), *options), daemon=False)
        self._process.start()
        self._known = {}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.workers()
        self._process.kill()
        for worker in self._known.values():
            with suppress(psutil.Error):
                worker.kill()
        self._process.join()

    @property
    def pid(self):
        return self._process.pid

    @property
    def over(self):
        return not self._process.is_alive()

    @property
    def said(self):
        """What it wrote to standard output and error."""
        return self._log.read_text() if self._log.exists() else ""

    def workers(self):
        """Return its worker processes that live."""
        with suppress(psutil.Error):
            for child in psutil.Process(self.pid).children(recursive=True):
                with suppress(psutil.Error):
                    if child.parent().pid != self.pid and "forkserver" in " ".join(child.cmdline()):
                        self._known[child.pid] = child
        return [worker for worker in self._known.values() if _lives(worker)]

    def kill(self):
        """End it as the system does when memory runs out. Returns workers that outlive it by 15 seconds."""
        workers = self.workers()
        self._process.kill()
        self._process.join()
        wait_for(lambda: not any(map(_lives, workers)), 15, fail=False)
        return [worker for worker in workers if _lives(worker)]

    def send(self, *signals, group=False):
        for number in signals:
            with suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(self.pid, number)

    def wait(self, seconds=120):
        """Return its exit code, negative for a signal."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            raise TimeoutError(f"still running after {seconds} s; said:\n{self.said}")
        return self._process.exitcode


def not_waited(handle):
    """Stand in for ``os.fsync``, which is most of the time of a small run on a busy disk.

    What a process has written stays if it is killed. Waiting for the disk guards against a loss of power,
    which no test causes.
    """
    os.fstat(handle if isinstance(handle, int) else handle.fileno())  # fails for what is no file


def _run(arguments, log, dies_at, limits, hasty):
    os.setsid()
    if hasty:
        os.fsync = not_waited
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Dask starts the process that this one is forked from in a thread that blocks the signal.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    if dies_at is not None:
        _die_at(dies_at)
    if "local" in arguments:
        fork_the_forkserver()
    from hrvol.cli import main
    from hrvol.engine import life, spec
    from hrvol.run import ledger

    life.LIMITS = limits or life.LIMITS

    ledger.FLUSH = 0.1  # what is done is seen sooner
    spec.BACK_OFF = 0.1  # pauses before another try are tested elsewhere

    sys.argv = ["hrvol", *arguments]
    main(arguments)


def fork_the_forkserver():
    """Start the process that workers are forked from as a fork of this one, which has imported everything."""
    start = multiprocessing.util.spawnv_passfds

    def fork(path, words, handles):
        if "multiprocessing.forkserver" not in words[-1]:
            return start(path, words, handles)
        pid = os.fork()
        if pid == 0:
            try:
                # Above all its own end of the pipe whose closing tells it to end.
                for handle in {int(name) for name in os.listdir("/proc/self/fd")} - {0, 1, 2, *handles}:
                    with suppress(OSError):
                        os.close(handle)
                exec(words[-1], {})
            finally:
                os._exit(1)  # it ends itself; nothing else of this process may run twice
        return pid

    multiprocessing.util.spawnv_passfds = fork
    multiprocessing.resource_tracker.ensure_running()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    multiprocessing.forkserver.ensure_running()
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _die_at(point):
    settle, calls = os.fsync, iter(range(1, sys.maxsize))

    def fsync(handle):
        number, name = next(calls), os.readlink(f"/proc/self/fd/{handle}")
        if number == point or (isinstance(point, str) and point in name):
            os.kill(os.getpid(), signal.SIGKILL)
        settle(handle)

    os.fsync = fsync


def _lives(process):
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def wait_for(condition, seconds=60, fail=True):
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            if fail:
                raise TimeoutError(f"it did not come true in {seconds} s")
            break
        time.sleep(0.01)
    return found


def progress_of(out):
    """Return how many blocks, and parts of coarser levels, an output says are done."""
    blocks_done, parts = set(), set()
    with suppress(OSError, ValueError):
        for entry in entries(Location.of(out)) if (Path(out) / "ledger").is_dir() else ():
            if "part" in entry:
                parts.add(entry["part"])
            elif entry["state"] == 1:
                blocks_done.add(entry["block"])
    return len(blocks_done), len(parts)


def contents(out):
    """Return all arrays and attributes of an output but for its ledger and the copy of its model."""
    root = zarr.open_group(out, mode="r")
    found = {"": root.attrs.asdict()}
    tops = [path.name for path in Path(out).iterdir() if (path / "zarr.json").is_file()]
    nodes = {top: root[top] for top in tops if top not in ("ledger", "model")}
    for top, node in list(nodes.items()):
        nodes |= {f"{top}/{path}": inner for path, inner in node.members(max_depth=None)}
    for path, node in nodes.items():
        found[path] = node.attrs.asdict()
        if isinstance(node, zarr.Array):
            found[f"{path}:values"] = (str(node.dtype), node.shape, node[...].tobytes())
    return found


def differing(ours, theirs):
    """Return the names of what differs between two :func:`contents`."""
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def shards(out, array):
    """Return the files of an array's shards."""
    return sorted(path for path in (Path(out) / array / "c").rglob("*") if path.is_file())


def harm(path, kind, seed=0):
    """Damage a file."""
    data = bytearray(path.read_bytes())
    if kind == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif kind == "flipped":
        rng = random.Random(seed)
        for _ in range(3):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
    else:
        path.unlink()
        if kind == "a directory":
            path.mkdir()
            (path / "rubbish").write_text("rubbish")


def documents(out):
    """Return all metadata of an output but for its ledger's, as values."""
    files = (path.relative_to(out) for path in Path(out).rglob("zarr.json"))
    return {
        str(path): json.loads((Path(out) / path).read_text()) for path in files if path.parts[0] != "ledger"
    }


def change(path, rng):
    """Change one byte of a file."""
    data = bytearray(path.read_bytes())
    at = rng.randrange(len(data))
    data[at] = rng.choice([byte for byte in range(256) if byte != data[at]])
    path.write_bytes(data)


def edit(path, function):
    values = json.loads(path.read_text())
    function(values)
    path.write_text(json.dumps(values, indent=2))


class Cluster:
    """A Dask cluster of processes; ends with the ``with`` statement."""

    def __init__(self, folder, workers=2):
        self._folder, self._count = Path(folder), workers

    def __enter__(self):
        file, here = self._folder / "scheduler.json", ("--host", "127.0.0.1", "--no-dashboard")
        self.scheduler = self._start("scheduler", *here, "--port", 0, "--scheduler-file", file)
        self.workers = []
        wait_for(lambda: file.exists() and file.read_text())
        self.address = json.loads(file.read_text())["address"]
        for number in range(self._count):
            alone = ("--nthreads", 2, "--no-nanny", "--local-directory", self._folder / str(number))
            self.workers.append(self._start("worker", self.address, *here, *alone))
        return self

    def __exit__(self, *error):
        for process in (*self.workers, self.scheduler):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _start(self, *arguments):
        words = [sys.executable, "-m", "dask", *map(str, arguments)]
        with (self._folder / "dask.log").open("a") as log:
            return subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)


@contextmanager
def small_disk(folder, kib):
    """Make a file system that is full but for some KiB, and yield a folder in it and its filler.

    ``OSError`` where we may not.
    """
    disk = Path(folder) / "disk"
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    mounted = subprocess.run(words, capture_output=True, text=True)
    if mounted.returncode:
        raise OSError(f"cannot mount a small disk: {mounted.stderr.strip()}")
    try:
        (disk / "filler").write_bytes(b"0" * (2 * 1024 - kib) * 1024)
        yield disk, disk / "filler"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def copied(source, target):
    return Path(shutil.copytree(source, target))


def labels_are_zero(out, case, failed):
    """Whether exactly these blocks hold 0, and everywhere else is what an uninterrupted run finds."""
    whole = zarr.open_array(case.reference / ARRAYS[0], mode="r")[:]
    found = zarr.open_array(Path(out) / ARRAYS[0], mode="r")[:]
    for block in case.blocks:
        if block.index in failed:
            whole[block.core] = 0
    return np.array_equal(found, whole)


def is_whole(out, case):
    """Assert that an output is complete, and bit for bit that of an uninterrupted run."""
    found = differing(contents(out), case.expected)
    assert found == [], found
    assert contents(out)[""]["hrvol"]["complete"]
    assert run_status(out)["state"] == "complete"


def goes_on(out, case, log, *options):
    """Assert that the same command finishes an output."""
    with Run(case.command(out, *options), log) as run:
        assert run.wait() == 0, run.said
    is_whole(out, case)
