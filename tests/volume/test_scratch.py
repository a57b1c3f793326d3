"""Scratch files: nothing is left of them, and what happens to their folder does not stop a run."""

import os
import resource
import shutil
import signal
import threading

import numpy as np
import pytest
import zarr

from hrvol.errors import ResourceError, UsageError
from hrvol.volume.chunk_cache import ChunkCache
from hrvol.volume.scratch import Scratch, check_scratch

VALUES = np.arange(8 * 50 * 60, dtype="u2").reshape(8, 50, 60)


@pytest.fixture
def array():
    return zarr.create_array({}, data=VALUES, chunks=(1, 50, 60))


def test_a_chunk_may_be_collected_while_the_file_is_locked(tmp_path):
    scratch = Scratch(str(tmp_path))
    chunks = [scratch.keep(VALUES)]

    def collect():
        with scratch._lock:
            chunks.clear()  # as Python's collector of garbage does, in whatever line a thread is

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()


def test_nothing_is_left_by_a_killed_process(tmp_path, array):
    child = os.fork()
    if not child:
        ChunkCache(2**20, str(tmp_path)).read(array, (slice(8),) * 3)
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not list(tmp_path.iterdir())


def test_a_folder_may_vanish_and_workers_may_share_one(tmp_path, array):
    (tmp_path / "s").mkdir()
    caches = [ChunkCache(2**20, str(tmp_path / "s")) for _ in range(2)]
    caches[0].read(array, (slice(8), slice(9), slice(9)))
    shutil.rmtree(tmp_path / "s")
    for cache in caches:
        for _ in range(2):
            np.testing.assert_array_equal(cache.read(array, (slice(2, 7),) * 3), VALUES[2:7, 2:7, 2:7])
    assert [cache.decoded_chunks for cache in caches] == [8, 5]
    with pytest.raises(ResourceError, match="s: cannot hold a scratch file here: No such file"):
        ChunkCache(2**20, str(tmp_path / "s"))


def test_a_file_that_may_not_grow_costs_only_time(tmp_path, array, caplog):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    cache, limits = ChunkCache(2**20, str(tmp_path)), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * 8192, limits[1]))
    try:
        for _ in range(2):
            np.testing.assert_array_equal(cache.read(array, (slice(8),) * 3), VALUES[:8, :8, :8])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert cache.decoded_chunks == 8 + 5
    assert cache.held_bytes == 3 * 6000
    assert caplog.text.count("chunks are decoded again") == 1


def test_folders_that_cannot_be_used_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in ("none", "file"):
        with pytest.raises(UsageError, match=f"{folder}: found no folder, expected one for scratch files"):
            check_scratch(str(tmp_path / folder))
    with pytest.raises(UsageError, match="/proc: cannot be written, expected a folder for scratch files"):
        check_scratch("/proc")
