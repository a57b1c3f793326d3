"""Tokens on disk: damaged files are computed again, and the folder is bounded."""

import os

import numpy as np
import pytest

from hrvol.interactive.recent import Recent
from hrvol.interactive.tile_cache import TileCache, cache_dir, key_of

KEY = key_of({"image": "a"})
SHAPES = {"0": (3, 4, 5), "1": (3, 4, 5)}


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def only(cache):
    (file,) = cache.folder.glob("*.safetensors")
    return file


def test_arrays_come_back_in_half_precision(tmp_path, arrays):
    cache = TileCache(tmp_path / "new")
    assert cache.read(KEY, SHAPES) is None
    cache.write(KEY, arrays)
    found = TileCache(tmp_path / "new").read(KEY, SHAPES)
    assert {name: values.dtype for name, values in found.items()} == {"0": np.float16, "1": np.float16}
    assert all(np.array_equal(found[name], arrays[name].astype(np.float16)) for name in SHAPES)


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "longer", "pickle", "header", "folder"])
def test_damaged_files_are_not_used(tmp_path, arrays, damage):
    cache = TileCache(tmp_path)
    cache.write(KEY, arrays)
    file = only(cache)
    data = bytearray(file.read_bytes())
    if damage == "cut":
        del data[-7:]
    elif damage == "bit":
        data[-9] ^= 16
    elif damage == "empty":
        data = b""
    elif damage == "longer":
        data += bytes(2**17)
    elif damage == "pickle":
        data = b"\x80\x04N." + bytes(len(data))
    elif damage == "header":
        data[:8] = b"\xff" * 8
    file.unlink()
    if damage == "folder":
        file.mkdir()
    else:
        file.write_bytes(bytes(data))
    assert cache.read(KEY, SHAPES) is None
    if damage != "folder":
        assert not file.exists()
        cache.write(KEY, arrays)
        assert cache.read(KEY, SHAPES) is not None


def test_files_of_another_key_or_shape_are_not_used(tmp_path, arrays):
    cache = TileCache(tmp_path)
    cache.write(KEY, arrays)
    other = key_of({"image": "b"})
    only(cache).rename(cache._file(other))
    assert cache.read(other, SHAPES) is None
    cache.write(KEY, arrays)
    assert cache.read(KEY, {"0": (3, 4, 5), "1": (3, 5, 4)}) is None
    cache.write(KEY, arrays)
    assert cache.read(KEY, {"0": (3, 4, 5), "2": (3, 4, 5)}) is None


def test_the_least_recently_used_files_are_deleted(tmp_path, arrays):
    size = sum(2 * values.size for values in arrays.values())
    cache = TileCache(tmp_path, most_bytes=8 * (size + 400))
    keys = [key_of({"image": number}) for number in range(20)]
    for age, key in enumerate(keys):
        cache.write(key, arrays)
        if cache._file(key).exists():
            os.utime(cache._file(key), (age, age))
        if age == 5:
            assert cache.read(keys[0], SHAPES) is not None  # now the most recent one
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 8 * (size + 400)
    assert cache.read(keys[0], SHAPES) is not None
    assert cache.read(keys[1], SHAPES) is None
    assert cache.read(keys[-1], SHAPES) is not None
    # What is larger than a quarter of the bound is not kept.
    small = TileCache(tmp_path / "small", most_bytes=2 * size)
    small.write(KEY, arrays)
    assert small.read(KEY, SHAPES) is None


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, arrays):
    (tmp_path / "file").write_text("")
    cache = TileCache(tmp_path / "file" / "below")
    cache.write(KEY, arrays)
    assert cache.read(KEY, SHAPES) is None


def test_the_folder_is_in_the_cache_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("HRVOL_CACHE_DIR", str(tmp_path))
    assert cache_dir() == tmp_path / "interactive"


def test_the_memory_keeps_the_most_recent_values():
    recent = Recent(100)
    for number in range(5):
        recent.put(number, str(number), 30)
    assert [recent.get(number) for number in range(5)] == [None, None, "2", "3", "4"]
    recent.get(2)
    recent.put(5, "5", 30)
    assert recent.get(2) == "2"
    assert recent.get(3) is None
    recent.put(6, "6", 500)  # larger than the bound: kept alone
    assert (recent.get(6), recent.get(5), recent.nbytes) == ("6", None, 500)
    recent.put(6, "six", 10)
    assert (recent.get(6), recent.nbytes) == ("six", 10)
    recent.allow(50)
    assert recent.most_bytes == 100
    recent.allow(200)
    recent.put(7, "7", 150)
    assert recent.get(6) == "six"
    recent.clear()
    assert recent.get(6) is None
