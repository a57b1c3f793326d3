"""Planes that are stored whole are decoded about once by a run, in bounded memory."""

import tracemalloc
from functools import partial

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from run_data import QUICK, draw, make_volume

from hrvol import convert_volume, open_volume, plan_run, segment_volume, train_model
from hrvol.engine.spec import EngineSpec
from hrvol.errors import ResourceError, UsageError
from hrvol.recipe.specs import TileSpec
from hrvol.run import cache_choice
from hrvol.run.cache_choice import choose_cache
from hrvol.run.extract_features import extract_features
from hrvol.run.ledger import entries
from hrvol.segment.model.model import save_model
from hrvol.volume.cache_plan import CachePlan, plan_cache
from hrvol.volume.chunk_cache import ChunkCache
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.tiling import whole
from hrvol.volume.importers import planes
from hrvol.volume.storage.location import Location

SHAPE = (20, 200, 260)
PLANE = SHAPE[1] * SHAPE[2]

TILES = TileSpec(core=64, overlap=8, blend=4, planes=8)


def write(folder, kind, image):
    """Write a volume whose planes are decoded whole, or whose bytes are plain."""
    path = folder / kind
    if kind == "png":
        path.mkdir()
        for z, plane in enumerate(image):
            Image.fromarray(plane).save(path / f"{z:04d}.png")
    elif kind in ("lzw", "plain"):
        path.mkdir()
        for z, plane in enumerate(image):
            packed = "zlib" if kind == "lzw" else None
            tifffile.imwrite(path / f"{z:04d}.tif", plane, compression=packed, rowsperstrip=len(plane))
    elif kind == "stack":
        path = path.with_suffix(".tif")
        tifffile.imwrite(
            path, image, compression="zlib", rowsperstrip=image.shape[1], photometric="minisblack"
        )
    else:
        path = path.with_suffix(".h5")
        with h5py.File(path, "w") as file:
            chunks = None if kind == "contiguous" else (1 if kind == "h5" else 4, *image.shape[1:])
            file.create_dataset("x", data=image, chunks=chunks, compression=chunks and "gzip")
    return path


WHOLE_PLANES = ("png", "lzw", "stack", "h5", "deep-h5")


@pytest.fixture(scope="module")
def image():
    return make_volume(shape=SHAPE)[0].astype(np.uint8)


@pytest.fixture(scope="module")
def model(image, tmp_path_factory):
    _, truth = make_volume(shape=SHAPE)
    recipe = QUICK.with_(tiles=TILES)
    file = tmp_path_factory.mktemp("model") / "m.hrvol"
    save_model(train_model([(image, draw(truth))], recipe=recipe, classes=["a", "b"]), file)
    return file


@pytest.fixture
def little_memory(monkeypatch):
    """The usual cache holds three planes, and there is no memory for more."""

    def little(*arguments, **values):
        return plan_cache(*arguments, **{**values, "usual": 3 * PLANE, "memory": 0})

    monkeypatch.setattr(cache_choice, "plan_cache", little)


def amplification(out):
    done = [entry for entry in entries(Location.of(out)) if "read" in entry]
    return sum(entry["read"] for entry in done) / (SHAPE[0] * PLANE)


@pytest.mark.parametrize("kind", WHOLE_PLANES)
def test_a_run_decodes_each_plane_once_with_a_scratch_file(kind, image, model, tmp_path, little_memory):
    source = write(tmp_path, kind, image)
    (tmp_path / "scratch").mkdir()
    often = segment_volume(source, tmp_path / "often.ome.zarr", model)
    once = segment_volume(source, tmp_path / "once.ome.zarr", model, scratch=tmp_path / "scratch")
    assert often.read_amplification > 3
    assert once.read_amplification == amplification(tmp_path / "once.ome.zarr") == 1
    found = [zarr.open_array(tmp_path / f"{name}.ome.zarr/labels/hrvol/0")[:] for name in ("often", "once")]
    np.testing.assert_array_equal(*found)
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize("kind", ["png", "h5"])
def test_and_with_memory_where_there_is_some(kind, image, model, tmp_path, monkeypatch):
    source = write(tmp_path, kind, image)
    monkeypatch.setattr(cache_choice, "plan_cache", partial(_with_usual, 3 * PLANE))
    report = segment_volume(source, tmp_path / "out.ome.zarr", model)
    assert report.read_amplification == 1


def _with_usual(size, *arguments, **values):
    return plan_cache(*arguments, **{**values, "usual": size})


def test_png_files_are_opened_once(image, model, tmp_path, monkeypatch):
    source, read = write(tmp_path, "png", image), []

    def counted(path):
        read.append(path)
        return original(path)

    original = planes.read_raster
    monkeypatch.setattr(planes, "read_raster", counted)
    segment_volume(source, tmp_path / "out.ome.zarr", model)
    assert len(read) - 3 == SHAPE[0]  # three to identify the input


def test_all_channels_of_a_plane_are_kept(image, tmp_path, little_memory):
    (tmp_path / "rgb").mkdir()
    for z, plane in enumerate(image[:9]):
        Image.fromarray(np.stack([plane, plane // 2, plane // 3], axis=-1)).save(tmp_path / f"rgb/{z}.png")
    for channel, expected in ((1, image[:9] // 2), ("mean", None)):
        opened = open_volume(tmp_path / "rgb", channel=channel)
        assert opened.decoded_itemsize == 3
        out = tmp_path / f"{channel}.ome.zarr"
        given = {"chunks": (8, 32, 32), "shards": (8, 64, 64), "scratch": tmp_path}
        report = convert_volume(opened, out, **given)
        assert report.read == 3 * report.wanted
        if expected is not None:
            np.testing.assert_array_equal(open_volume(out).read(), expected)


def test_plain_bytes_are_not_kept(image, model, tmp_path, little_memory):
    for kind in ("contiguous", "plain"):
        source = write(tmp_path, kind, image)
        assert not open_volume(source).decodes
        report = segment_volume(source, tmp_path / f"{kind}.ome.zarr", model)
        assert report.read == 0
        found = convert_volume(source, tmp_path / f"{kind}.copy.ome.zarr", verify=True)
        assert (found.read, found.verified) == (0, 1)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack")
    opened = open_volume(tmp_path / "a.tif")
    assert not opened.decodes
    assert opened.chunks == SHAPE  # decides the order of blocks, and so the parts of outputs that were begun
    np.testing.assert_array_equal(opened.read(), image)


def test_conversions_and_features_decode_once(image, tmp_path, little_memory):
    source = write(tmp_path, "png", image)
    small = {"chunks": (8, 32, 32), "shards": (8, 64, 64)}
    often = convert_volume(source, tmp_path / "a.ome.zarr", **small)
    assert often.read_amplification > 3
    once = convert_volume(source, tmp_path / "b.ome.zarr", scratch=tmp_path, **small)
    assert once.read_amplification == 1
    np.testing.assert_array_equal(open_volume(tmp_path / "b.ome.zarr").read(), image)
    # Shards as deep as what can be kept.
    chosen = convert_volume(source, tmp_path / "c.ome.zarr")
    assert chosen.read_amplification == 1
    given = {"recipe": QUICK.with_(tiles=TILES), "components": 2, "roi": (slice(3), slice(None), slice(None))}
    extract_features(source, tmp_path / "f.zarr", **given)
    extract_features(source, tmp_path / "g.zarr", scratch=tmp_path, **given)
    np.testing.assert_array_equal(
        zarr.open_array(tmp_path / "f.zarr")[:], zarr.open_array(tmp_path / "g.zarr")[:]
    )


def test_masks_are_decoded_once(image, model, tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", image)
    (tmp_path / "of").mkdir()
    mask = write(tmp_path / "of", "png", (image > 90).astype(np.uint8))
    read, original = [], planes.read_raster
    monkeypatch.setattr(planes, "read_raster", lambda path: read.append(path) or original(path))
    given = tmp_path / "a.npy", tmp_path / "out.ome.zarr", model
    segment_volume(*given, mask=mask)
    assert len(read) == SHAPE[0] + 3


def test_the_plan_shows_it(image, model, tmp_path, little_memory):
    source = write(tmp_path, "png", image)
    given = {"seconds": 0.1, "device": "cpu"}
    often = plan_run(source, tmp_path / "out.ome.zarr", model, **given)
    assert often.decodes > 3
    assert any("--scratch DIR" in note for note in often.notes)
    once = plan_run(source, tmp_path / "out.ome.zarr", model, scratch=tmp_path, **given)
    assert (once.decodes, once.scratch) == (1, str(tmp_path))
    assert 8 * PLANE <= once.cache <= 10 * PLANE
    plain = plan_run(write(tmp_path, "contiguous", image), tmp_path / "out.ome.zarr", model, **given)
    assert plain.decodes == 0


def test_what_is_chosen():
    volume, shape = _Planes(), (2000, 4096, 4096)
    grid = BlockGrid(shape, TileSpec(), volume.chunks)
    given = volume, grid, grid.order(), whole(shape)
    layer = 64 * 4096**2
    assert plan_cache(*given, workers=4, memory=2 * layer) == CachePlan(
        int(1.05 * layer), None, 1.0, int(1.05 * layer)
    )
    assert plan_cache(*given, workers=4, memory=layer, scratch="/s").scratch == "/s"
    refused = plan_cache(*given, workers=4, memory=layer)
    assert refused.decoded > 50
    assert "--scratch" in refused.hint("a")
    small = BlockGrid((64, 2048, 2048), TileSpec(), (1, 2048, 2048))
    assert plan_cache(volume, small, small.order(), whole(small.shape), workers=1, memory=0).decoded <= 1.001


class _Planes:
    """Stands in for a stack of 2000 large planes: only its geometry is looked at."""

    decodes = True
    chunks = (1, 4096, 4096)
    decoded_itemsize = 1


def test_folders_for_scratch_files_are_checked(image, model, tmp_path, little_memory, monkeypatch):
    source = write(tmp_path, "png", image)
    with pytest.raises(UsageError, match="found no folder, expected one for scratch files"):
        segment_volume(source, tmp_path / "out.ome.zarr", model, scratch=tmp_path / "none")
    monkeypatch.setattr(cache_choice.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(ResourceError, match=r"found 10 bytes free, needed .* for decoded chunks of 1 worker"):
        segment_volume(source, tmp_path / "out.ome.zarr", model, scratch=tmp_path)
    opened = open_volume(source)
    grid = BlockGrid(SHAPE, TILES, opened.chunks)
    remote = EngineSpec("tcp://head:8786")
    assert choose_cache(opened, grid, grid.order(), whole(SHAPE), remote, tmp_path / "there").scratch


def test_a_scratch_file_holds_chunks_outside_of_memory(tmp_path):
    array = zarr.create_array(
        {}, data=np.random.default_rng(0).integers(0, 99, (32, 256, 257), "u2"), chunks=(1, 256, 257)
    )
    cache = ChunkCache(2**30, str(tmp_path))
    whole_array = array[:]
    tracemalloc.start()
    for x in range(0, 257, 32):
        box = (slice(3, 31), slice(10, 250), slice(x, x + 32))
        np.testing.assert_array_equal(cache.read(array, box), whole_array[box])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert cache.decoded_chunks == 28
    assert cache.held_bytes == 28 * 256 * 257 * 2
    assert not list(tmp_path.iterdir())
    assert peak < 2**26 + 2**23  # a run of chunks being decoded


def test_a_full_disk_costs_only_time(tmp_path, caplog):
    array = zarr.create_array(
        {}, data=np.arange(4 * 50 * 60, dtype="u2").reshape(4, 50, 60), chunks=(1, 50, 60)
    )
    cache = ChunkCache(2**20, str(tmp_path))

    def full(values):
        raise OSError(28, "No space left on device")

    cache._scratch.keep = full
    for _ in range(2):
        np.testing.assert_array_equal(cache.read(array, (slice(4),) * 3), array[:4, :4, :4])
    assert (cache.decoded_chunks, cache.held_bytes) == (8, 0)
    assert caplog.text.count("No space left on device") == 1
