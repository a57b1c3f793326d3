"""A read through the cache gives what the array holds, decodes each chunk once, and keeps to its capacity."""

import asyncio
import threading
import time
import tracemalloc
from itertools import product

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import MemoryStore

from hrvol.recipe.specs import TileSpec
from hrvol.volume import chunk_cache
from hrvol.volume.chunk_cache import ChunkCache, chunk_uses
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.tiling import tiles_of

DTYPES = ("bool", "u1", "<u2", ">i2", "<f4", ">f8", "c8", "M8[s]", "S3", "U2", [("a", "u1"), ("b", "<f4")])
FORMATS = ("2", "2F", "3", "3 sharded", "3 big-endian", "3 transposed")


def values(shape, dtype):
    """Bytes that are all different as far as the type allows."""
    if np.dtype(dtype).kind in "SU":
        return (np.arange(np.prod(shape)).reshape(shape) % 97).astype(dtype)
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 256, size, np.uint8)
    return raw.view(dtype).reshape(shape)


def stored(data, chunks, kind="3"):
    options = {"chunks": chunks, "zarr_format": int(kind[0])}
    if kind == "2F":
        options["order"] = "F"
    if kind == "3 sharded":
        options["shards"] = tuple(2 * chunk for chunk in chunks)
    if kind == "3 big-endian" and data.dtype.kind in "iufc":
        options["serializer"] = zarr.codecs.BytesCodec(endian="big")
    if kind == "3 transposed":
        options["filters"] = [zarr.codecs.TransposeCodec(order=tuple(reversed(range(data.ndim))))]
    array = zarr.create_array(MemoryStore(), shape=data.shape, dtype=data.dtype, **options)
    array[...] = data
    return array


@st.composite
def selections(draw, shape):
    spans = []
    for length in shape:
        start = draw(st.integers(0, length - 1))
        span = slice(start, draw(st.integers(start, length)))
        spans.append(draw(st.sampled_from([span, start])) if length == 1 else span)
    return tuple(spans)


class Gate(MemoryStore):
    """A store that notes which chunks are asked for, and lets those who ask wait while it is shut."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.asked = []
        self.opened = threading.Event()
        self.opened.set()

    async def get(self, key, *args, **options):
        if "/" in key:
            self.asked.append(key)
            await asyncio.to_thread(self.opened.wait, 20)
        return await super().get(key, *args, **options)


def gated(shape, chunks):
    store = Gate()
    array = zarr.create_array(store, shape=shape, dtype="u2", chunks=chunks)
    array[...] = values(shape, "u2")
    store.asked.clear()
    return array, store


def in_thread(work):
    """Run something in a thread; return the thread and where its outcome will be."""
    outcome = []

    def run():
        try:
            outcome.append(work())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


def wait_until(true):
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_a_read_gives_what_the_array_holds(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=4)))
    chunks = tuple(data.draw(st.integers(1, length + 2)) for length in shape)
    dtype = data.draw(st.sampled_from(["bool", "u1", ">i2", "<f4"]))
    kind = data.draw(st.sampled_from(FORMATS))
    array = stored(values(shape, dtype), chunks, kind)
    cache = ChunkCache(data.draw(st.sampled_from([0, 50, 400, 10**6])))
    uses = data.draw(st.none() | st.just(lambda index: 1 + sum(index) % 3))
    for _ in range(data.draw(st.integers(1, 5))):
        selection = data.draw(selections(shape))
        found, expected = cache.read(array, selection, uses), np.asarray(array[selection])
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        assert found.tobytes() == expected.tobytes()
        assert cache.held_bytes <= cache.capacity


@pytest.mark.parametrize("kind", ["2", "3"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.filterwarnings("ignore:.*Zarr V3 specification")
def test_any_type_can_be_read(dtype, kind):
    array = stored(values((7, 9), dtype), (3, 4), kind)
    cache = ChunkCache()
    for selection in ((slice(1, 6), slice(2, 9)), (slice(0, 7), slice(0, 9))):
        found, expected = cache.read(array, selection), array[selection]
        assert found.dtype == expected.dtype
        assert found.tobytes() == expected.tobytes()
    assert cache.held_bytes == cache.decoded_bytes == 63 * np.dtype(dtype).itemsize


def test_what_is_returned_is_not_what_is_kept():
    array = stored(values((8, 8), "u1"), (8, 8))
    cache = ChunkCache()
    everything = (slice(0, 8), slice(0, 8))
    cache.read(array, everything)[...] = 0
    np.testing.assert_array_equal(cache.read(array, everything), array[...])


def test_a_second_read_decodes_only_what_is_new():
    array = stored(values((8, 40, 40), "u2"), (8, 10, 10))
    cache = ChunkCache()
    cache.read(array, (slice(0, 8), slice(5, 25), slice(5, 25)))
    assert cache.decoded_chunks == 9
    assert cache.decoded_bytes == 9 * 800 * 2
    cache.read(array, (slice(3, 4), slice(0, 25), slice(15, 35)))
    assert cache.decoded_chunks == 12
    cache.read(array, (slice(3, 4), slice(29, 31), slice(0, 40)))
    assert cache.decoded_chunks == 16
    cache.read(array, (slice(0, 8), slice(0, 40), slice(0, 40)))
    assert cache.decoded_chunks == 16


def test_chunks_count_as_far_as_the_array_goes():
    array = stored(values((5, 13), "u1"), (4, 10))
    cache = ChunkCache()
    cache.read(array, (slice(0, 5), slice(0, 13)))
    assert (cache.decoded_chunks, cache.decoded_bytes, cache.held_bytes) == (4, 65, 65)


def test_inner_chunks_of_a_shard_are_kept_one_by_one():
    array = stored(values((40, 40), "u1"), (10, 10), "3 sharded")
    cache = ChunkCache()
    cache.read(array, (slice(5, 6), slice(5, 6)))
    assert (cache.decoded_chunks, cache.held_bytes) == (1, 100)


def test_arrays_are_told_apart():
    first, second = (stored(np.full((4, 4), value, "u1"), (4, 4)) for value in (1, 2))
    cache = ChunkCache()
    selection = (slice(0, 4), slice(0, 4))
    assert (cache.read(first, selection) == 1).all()
    assert (cache.read(second, selection) == 2).all()
    assert (cache.read(first, selection) == 1).all()
    assert cache.decoded_chunks == 2


def test_what_was_not_used_for_longest_goes_first():
    array = stored(values((40,), "u1"), (10,))
    cache = ChunkCache(30)
    for start in (0, 10, 20, 0, 30):  # 10 is the oldest when 30 comes
        cache.read(array, (slice(start, start + 10),))
    assert cache.decoded_chunks == 4
    for start in (0, 20, 30):
        cache.read(array, (slice(start, start + 10),))
    assert cache.decoded_chunks == 4
    cache.read(array, (slice(10, 20),))
    assert cache.decoded_chunks == 5


def test_a_chunk_that_was_read_for_the_last_time_is_dropped():
    array = stored(values((40,), "u1"), (10,))
    cache = ChunkCache()
    uses = {0: 1, 1: 2, 2: 1, 3: 3}
    cache.read(array, (slice(0, 40),), lambda index: uses[index[0]])
    assert cache.held_bytes == 20
    cache.read(array, (slice(15, 35),), lambda index: uses[index[0]])
    assert cache.held_bytes == 10  # 1 has gone, 3 is wanted once more
    assert cache.decoded_chunks == 5  # and 2 was decoded again
    cache.read(array, (slice(30, 31),))  # does not count
    assert cache.held_bytes == 10
    cache.read(array, (slice(30, 31),), lambda index: uses[index[0]])
    assert cache.held_bytes == 0
    assert cache.decoded_chunks == 5


def test_reads_are_remembered_for_chunks_that_had_to_go():
    array = stored(values((30,), "u1"), (10,))
    cache = ChunkCache(10)
    uses = (lambda index: 2,)
    for start in (0, 10, 0):
        cache.read(array, (slice(start, start + 10),), *uses)
    assert cache.decoded_chunks == 3
    assert cache.held_bytes == 10  # 1 only: 0 was read for the second time
    cache.read(array, (slice(10, 20),), *uses)
    assert cache.decoded_chunks == 3


def test_a_selection_beyond_the_capacity_keeps_a_part_of_it():
    array = stored(values((100,), "u1"), (10,))
    cache = ChunkCache(35)
    for _ in range(2):
        np.testing.assert_array_equal(cache.read(array, (slice(0, 100),)), array[...])
        assert cache.held_bytes == 30
    assert cache.decoded_chunks == 17


def test_a_chunk_beyond_the_capacity_does_not_empty_the_cache():
    small, large = stored(values((10,), "u1"), (10,)), stored(values((100,), "u1"), (100,))
    cache = ChunkCache(50)
    for array in (small, large, small, large):
        np.testing.assert_array_equal(cache.read(array, (slice(0, 5),)), array[:5])
    assert cache.decoded_chunks == 3


def test_a_read_takes_little_memory_beside_its_result(monkeypatch):
    monkeypatch.setattr(chunk_cache, "RUN_BYTES", 2**18)
    array = stored(values((256, 256, 256), "u1"), (8, 64, 64))
    cache = ChunkCache(2**20)
    tracemalloc.start()
    try:
        cache.read(array, tuple(slice(0, 256) for _ in range(3)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**24 + 2**20 + 2**21


def test_what_is_kept_holds_on_to_nothing_else():
    array = stored(values((64, 64), "u1"), (8, 8))
    cache = ChunkCache()
    cache.read(array, (slice(0, 64), slice(0, 64)))
    assert all(chunk.base is None for chunk in cache._kept.values())


@pytest.mark.parametrize(
    "selection", [(slice(0, 4),), (slice(0, 8, 2), slice(0, 8)), (8, slice(0, 8)), (-1, slice(0, 8))]
)
def test_a_selection_that_does_not_fit_is_refused(selection):
    with pytest.raises(IndexError, match="expected"):
        ChunkCache().read(stored(values((8, 8), "u1"), (4, 4)), selection)


def test_two_threads_decode_a_chunk_once():
    array, store = gated((60,), (10,))
    cache = ChunkCache()
    store.opened.clear()
    first, one = in_thread(lambda: cache.read(array, (slice(0, 40),)))
    wait_until(lambda: len(store.asked) == 4)
    second, two = in_thread(lambda: cache.read(array, (slice(20, 60),)))
    wait_until(lambda: len(store.asked) >= 6)
    time.sleep(0.05)  # time to ask for what it must not ask for
    store.opened.set()
    first.join(10)
    second.join(10)
    np.testing.assert_array_equal(one[0], array[:40])
    np.testing.assert_array_equal(two[0], array[20:])
    assert cache.decoded_chunks == 6


def test_threads_that_want_what_is_not_kept_share_it_as_well():
    array, store = gated((40,), (10,))
    cache = ChunkCache(0)
    store.opened.clear()
    threads = [in_thread(lambda: cache.read(array, (slice(0, 40),))) for _ in range(3)]
    wait_until(lambda: len(store.asked) >= 4)
    time.sleep(0.05)
    store.opened.set()
    for thread, outcome in threads:
        thread.join(10)
        np.testing.assert_array_equal(outcome[0], array[...])
    assert cache.decoded_chunks == 4
    assert cache.held_bytes == 0


def test_many_threads_read_what_the_array_holds_within_the_capacity():
    array = stored(values((16, 90, 90), "u2"), (8, 16, 16))
    cache = ChunkCache(40_000)
    expected = array[...]

    def work(seed):
        random = np.random.default_rng(seed)
        for _ in range(40):
            starts = random.integers(0, (16, 60, 60))
            box = tuple(slice(int(s), int(s) + int(random.integers(1, 30))) for s in starts)
            uses = None if random.random() < 0.5 else (lambda index: 3)
            np.testing.assert_array_equal(cache.read(array, box, uses), expected[box])
            assert cache.held_bytes <= cache.capacity
        return True

    threads = [in_thread(lambda seed=seed: work(seed)) for seed in range(4)]
    for thread, outcome in threads:
        thread.join(60)
        assert outcome == [True]
    kept = sum(chunk.nbytes for chunk in cache._kept.values())
    assert cache.held_bytes == kept > 0


def test_an_unreadable_chunk_raises_and_the_others_can_be_read(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(40,), dtype="u1", chunks=(10,))
    array[...] = values((40,), "u1")
    file = tmp_path / "a.zarr" / "c" / "1"
    good = file.read_bytes()
    file.write_bytes(b"not a chunk")
    cache = ChunkCache()
    with pytest.raises(Exception) as plain:
        array[...]
    for _ in range(2):
        with pytest.raises(plain.type) as error:
            cache.read(array, (slice(0, 40),))
        assert str(error.value) == str(plain.value)
        assert cache.held_bytes == cache.decoded_bytes
    for start in (0, 20, 30):
        np.testing.assert_array_equal(
            cache.read(array, (slice(start, start + 10),)), array[start : start + 10]
        )
    file.write_bytes(good)
    np.testing.assert_array_equal(cache.read(array, (slice(0, 40),)), array[...])
    assert cache.held_bytes == 40


def test_a_read_that_failed_does_not_count_as_a_use(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(20,), dtype="u1", chunks=(10,))
    array[...] = values((20,), "u1")
    cache = ChunkCache()
    cache.read(array, (slice(0, 10),), lambda index: 3)
    (tmp_path / "a.zarr" / "c" / "1").write_bytes(b"not a chunk")
    for _ in range(5):
        with pytest.raises(RuntimeError):  # what zstd says
            cache.read(array, (slice(0, 20),), lambda index: 3)
    assert cache.held_bytes == 10


def test_who_waits_for_a_read_that_fails_reads_for_itself():
    array, store = gated((20,), (10,))
    good = store._store_dict["c/0"]
    store._store_dict["c/0"] = zarr.core.buffer.cpu.Buffer.from_bytes(b"not a chunk")
    cache = ChunkCache()
    store.opened.clear()
    first, one = in_thread(lambda: cache.read(array, (slice(0, 20),)))
    wait_until(lambda: len(store.asked) == 2)
    second, two = in_thread(lambda: cache.read(array, (slice(12, 20),)))
    time.sleep(0.05)
    assert len(store.asked) == 2
    store.opened.set()
    first.join(10)
    second.join(10)
    assert isinstance(one[0], Exception)
    np.testing.assert_array_equal(two[0], array[12:])
    store._store_dict["c/0"] = good
    np.testing.assert_array_equal(cache.read(array, (slice(0, 20),)), array[...])


@given(st.sets(st.tuples(*[st.integers(0, 4)] * 3), max_size=60), st.integers(1, 40))
def test_missing_chunks_are_read_in_boxes_that_hold_each_once(indices, most):
    runs = list(chunk_cache.chunk_runs(indices, most))
    found = [index for run in runs for index in product(*run)]
    assert sorted(found) == sorted(indices)
    assert all(np.prod([len(rows) for rows in run]) <= most for run in runs)


def test_a_window_is_one_call_and_the_rest_of_a_shifted_one_two():
    window = set(product(range(2), range(9), range(9)))
    assert len(list(chunk_cache.chunk_runs(window, 1000))) == 1
    shifted = set(product(range(2), range(7, 16), range(7, 16)))
    assert len(list(chunk_cache.chunk_runs(shifted - window, 1000))) <= 4
    assert len(list(chunk_cache.chunk_runs(window, 81))) == 2


@st.composite
def layouts(draw):
    core = draw(st.integers(64, 90))
    tiles = TileSpec(
        core=core,
        overlap=draw(st.integers(0, core // 2)),
        planes=draw(st.integers(1, 5)),
        across=draw(st.integers(1, 2)),
    )
    shape = (draw(st.integers(1, 12)), draw(st.integers(1, 400)), draw(st.integers(1, 400)))
    chunks = (draw(st.integers(1, 14)), draw(st.integers(5, 200)), draw(st.integers(5, 200)))
    return BlockGrid(shape, tiles), chunks


@settings(deadline=None, max_examples=60)
@given(layouts())
def test_uses_are_the_blocks_whose_windows_touch_a_chunk(layout):
    grid, chunks = layout
    counts = np.zeros([-(-length // chunk) for length, chunk in zip(grid.shape, chunks, strict=True)], int)
    for block in grid:
        windows = np.array([tile.window for tile in tiles_of(block, grid.shape[1:], grid.tiles)])
        starts = (block.core[0].start, windows[:, 0].min(), windows[:, 2].min())
        stops = (block.core[0].stop, windows[:, 1].max(), windows[:, 3].max())
        touched = zip(starts, stops, chunks, strict=True)
        counts[tuple(slice(a // side, -(-b // side)) for a, b, side in touched)] += 1
    uses = chunk_uses(grid, chunks)
    assert {index: uses(index) for index in np.ndindex(*counts.shape)} == dict(np.ndenumerate(counts))


def test_uses_follow_the_axes_of_an_array():
    grid = BlockGrid((128, 896, 1344), TileSpec())
    uses = chunk_uses(grid, (128, 896, 448))
    assert uses((0, 0, 1)) == 2 * 2 * 3
    assert uses((0, 0, 0)) == 2 * 2 * 2
    assert uses.along(("", "x", "z", "y"))((0, 1, 0, 0)) == 12
    assert chunk_uses(BlockGrid((1, 896, 1344), TileSpec()), (1, 896, 448)).along("yx")((0, 1)) == 6


def test_uses_of_a_region_leave_other_blocks_out():
    grid = BlockGrid((128, 2240, 2240), TileSpec())
    region = (slice(0, 64), slice(448, 896), slice(500, 600))
    uses = chunk_uses(grid, (64, 64, 64), region)
    assert uses((0, 7, 7)) == 1
    assert uses((0, 6, 14)) == 1
    assert uses((1, 7, 7)) == uses((0, 5, 7)) == uses((0, 7, 15)) == 0


def test_a_run_that_counts_uses_decodes_each_chunk_once_and_keeps_none():
    tiles = TileSpec(core=64, overlap=16, planes=2)
    data = values((8, 320, 330), "u1")
    array = stored(data, (4, 50, 50))
    grid = BlockGrid(data.shape, tiles, array.chunks)
    uses, spans = chunk_uses(grid, array.chunks), grid.read_spans()
    cache = ChunkCache()
    for flat in grid.order():
        box = tuple(slice(*rows[i]) for rows, i in zip(spans, grid[flat].index, strict=True))
        np.testing.assert_array_equal(cache.read(array, box, uses), data[box])
    assert cache.decoded_bytes == data.nbytes
    assert cache.held_bytes == 0


def test_without_room_each_block_decodes_what_it_touches():
    grid = BlockGrid((4, 160, 150), TileSpec(core=64, overlap=16, planes=2))
    array = stored(np.zeros(grid.shape, "u1"), (4, 50, 50))
    uses, spans = chunk_uses(grid, array.chunks), grid.read_spans()
    cache = ChunkCache(0)
    for block in grid:
        cache.read(array, tuple(slice(*rows[i]) for rows, i in zip(spans, block.index, strict=True)), uses)
    assert cache.decoded_chunks == sum(uses(index) for index in np.ndindex(1, 4, 3))
