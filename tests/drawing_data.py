"""Strokes that a process draws until it is killed, and what they are at each moment."""

import os
import struct
import time

import numpy as np

from hrvol.volume.drawing_store.store import DrawingStore
from hrvol.volume.volume import Volume

SHAPE = (7, 96, 110)
CHUNK = (1, 32, 32)
REPORT = struct.Struct("<qqd")
DRAWN, FLUSHED = 0, 1


class Empty:
    """An array that nobody reads, of any size."""

    dtype = np.dtype(np.uint8)

    def __init__(self, shape):
        self.shape = shape

    def __getitem__(self, key):
        raise AssertionError(f"the volume was read: {key}")


def volume_of(shape, voxel_size=(2.0, 0.5, 0.5), unit="micrometer"):
    axes = tuple("zyx"[-len(shape) :])
    return Volume("volume", Empty(shape), axes, voxel_size, unit, len(shape), "volume", (10.0, 1.0, 2.0))


def disc(centre, radius=3):
    z, y, x = centre
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    inside = rows**2 + columns**2 <= radius**2
    return np.full(inside.sum(), z), rows[inside] + y, columns[inside] + x


def place(number):
    """A place for a stroke: different ones for different numbers below 7 * 9 * 10."""
    z, rest = number % 7, number // 7
    return z, 8 + 9 * (rest % 9), 8 + 10 * (rest // 9 % 10)


def act(store, number):
    """Make the change of a number, which depends on nothing else but those before."""
    if number % 10 == 4:
        store.rename_class(1, f"pore {number}")
    elif number % 10 == 6:  # a class that is drawn and then deleted
        store.add_class(f"passing {number}")
    elif number % 10 == 7:
        store.paint(disc(place(number)), store.classes[-1].value)
    elif number % 10 == 9:
        store.delete_class(store.classes[-1].value)
    else:
        store.paint(disc(place(number)), 1 + number % 2)


def lasting(number):
    """Whether a change draws what is not changed afterwards."""
    return number % 10 in (0, 1, 2, 3, 5, 8)


def create(path, **options):
    return DrawingStore.create(path, volume_of(SHAPE), chunks=CHUNK, **options)


def draw_until_killed(path, first, seed, log):
    """Make changes one after the other, and report each, and each flush."""
    rng = np.random.default_rng(seed)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with DrawingStore.open(path) as store:
        for number in range(first, 4000):
            act(store, number)
            os.write(handle, REPORT.pack(DRAWN, number, time.monotonic()))
            if rng.random() < 0.05:
                store.flush()
                os.write(handle, REPORT.pack(FLUSHED, number, time.monotonic()))
            time.sleep(rng.uniform(0, 0.02))


def open_and_wait(path, log):
    """Draw a stroke, report it, and keep the store open."""
    with DrawingStore.open(path) as store:
        store.paint(disc((1, 20, 20)), 1)
        store.flush()
        with open(log, "w") as file:
            file.write("!")
        time.sleep(60)


def fork_on_request(connection):
    """Start processes that call a function each: forked from this one, which has imported everything."""
    while (request := connection.recv()) is not None:
        process = os.fork()  # this process has no threads yet
        if not process:
            try:
                function, *arguments = request
                function(*arguments)
            finally:
                os._exit(1)
        connection.send(process)
        os.waitpid(process, 0)
        connection.send(None)
