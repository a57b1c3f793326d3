"""Outputs on file systems that have no hard links, as exFAT and some network shares."""

import ctypes
import errno
import multiprocessing
import os
import platform
import struct
import sys
import threading
import time

import numpy as np
import pytest
import zarr

from hrvol.classes import default_classes
from hrvol.volume.ome.labels import create_labels
from hrvol.volume.storage import location as module
from hrvol.volume.storage.location import Location
from hrvol.volume.volume import open_labels, open_volume

BOX = (slice(0, 2), slice(0, 8), slice(0, 8))


def refuse_links():
    """Have the kernel refuse to make hard links in this process from now on: a filter of system calls."""
    link, linkat = 86, 265
    answer = 0x00050000 | errno.EPERM
    code = [
        (0x20, 0, 0, 0),  # the number of the call
        (0x15, 1, 0, link),
        (0x15, 0, 1, linkat),
        (0x06, 0, 0, answer),
        (0x06, 0, 0, 0x7FFF0000),  # any other is allowed
    ]
    filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(filters)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "no filter of system calls")


def write(folder, answers):
    """Write outputs where no hard link can be made, in a process of its own."""
    try:
        refuse_links()
    except OSError as error:
        answers.put(f"skip: {error}")
        return
    try:
        try:
            os.link(__file__, folder / "link")
        except PermissionError:
            pass
        else:
            raise AssertionError("a hard link was made")
        like = open_volume(np.zeros((2, 8, 8), np.uint8))
        store = create_labels(
            folder / "out.ome.zarr", like, classes=default_classes([1]), block_shape=(2, 8, 8), attributes={}
        )
        store.write(BOX, np.ones((2, 8, 8), np.uint8))
        store.finish()
        # Zarr creates missing groups around an array only if they are not there.
        place = Location.of(folder / "group.zarr")
        for name in ("a/b/c", "a/b/d"):
            zarr.create_array(place.store(read_only=False), name=name, shape=(3,), dtype="u1")[:] = 7
        answers.put("done")
    except BaseException as error:
        answers.put(f"{type(error).__name__}: {error}")
        raise


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="a filter of Linux system calls"
)
def test_outputs_are_written_without_hard_links(tmp_path):
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(target=write, args=(tmp_path, answers))
    process.start()
    process.join(60)
    answer = answers.get()
    if answer.startswith("skip"):
        pytest.skip(answer)
    assert answer == "done"
    assert open_labels(tmp_path / "out.ome.zarr").read().all()
    group = zarr.open_group(tmp_path / "group.zarr", mode="r")
    assert (group["a/b/c"][:] == 7).all()
    assert not list(tmp_path.rglob("*.partial"))


@pytest.fixture
def without_links(monkeypatch):
    def refused(*names):
        raise OSError(errno.EOPNOTSUPP, "no hard links")

    monkeypatch.setattr(module.os, "link", refused)


def test_of_many_writers_one_wins_and_readers_see_it_whole(tmp_path, without_links):
    path, won = tmp_path / "zarr.json", []

    def publish(number):
        partial = tmp_path / f"{number}.partial"
        partial.write_text(str(number) * 1000)
        try:
            module.publish_new(partial, path)
            won.append(number)
        except FileExistsError:
            pass

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert path.read_text() == str(won[0]) * 1000


def test_a_lock_of_another_writer_that_is_new_is_respected(tmp_path, without_links, monkeypatch):
    monkeypatch.setattr(module, "_LOCK_SECONDS", 0.2)
    (tmp_path / "new.partial").write_text("new")
    lock, path = tmp_path / f"zarr.json.lock{module.PARTIAL}", tmp_path / "zarr.json"
    lock.touch()
    held = []

    def hand_on():  # one owner after the other, each for a moment
        for _ in range(5):
            time.sleep(0.1)
            held.append(lock.exists())
            lock.touch()
        path.write_text("theirs")
        lock.unlink()

    other = threading.Thread(target=hand_on)
    other.start()
    with pytest.raises(FileExistsError):
        module.publish_new(tmp_path / "new.partial", path)
    other.join()
    assert all(held)
    assert path.read_text() == "theirs"


def test_a_lock_that_was_left_behind_is_removed(tmp_path, without_links, monkeypatch):
    monkeypatch.setattr(module, "_LOCK_SECONDS", 0.1)
    (tmp_path / f"zarr.json.lock{module.PARTIAL}").touch()
    (tmp_path / "new.partial").write_text("new")
    module.publish_new(tmp_path / "new.partial", tmp_path / "zarr.json")
    assert [path.name for path in tmp_path.iterdir()] == ["zarr.json"]
