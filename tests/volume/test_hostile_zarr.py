"""Zarr and OME-Zarr from anybody: bounded, and refused in one line before anything is computed."""

import bz2
import gzip
import json
import lzma
import os
import pickle
import resource
import time
import warnings
import zlib

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, GzipCodec, ShardingCodec, ZstdCodec

from hrvol.errors import InputError
from hrvol.volume.storage.codecs import bounded_numcodec
from hrvol.volume.volume import class_info, open_labels, open_volume

VALUES = np.random.default_rng(0).integers(0, 60_000, (4, 6, 8)).astype(np.uint16)


def refused(path, labels=False, read=False):
    """Return the one line that refuses a path, in less than 2 s and 300 MB."""
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError) as caught:
        opened(path, labels, read)
    line = str(caught.value)
    assert line.isprintable()
    assert str(path) in line
    assert len(line) < 600
    assert time.process_time() - began < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024
    return line


def opened(path, labels, read):
    volume = (open_labels if labels else open_volume)(path)
    return volume.read(tuple(slice(0, min(n, 4)) for n in volume.shape)) if read else volume


def change(file, **values):
    """Change keys of a JSON file; ``None`` of ``...`` deletes one."""
    stored = json.loads(file.read_text())
    stored.update(values)
    file.write_text(json.dumps(stored))


def image(path, version="0.5", axes="zyx", dataset=None, more=None, top=None):
    """Write an OME-Zarr image whose metadata are changed."""
    scale = [{"type": "scale", "scale": [2.0] * len(axes)}]
    entry = {
        "axes": [{"name": a, "type": "space"} for a in axes],
        "datasets": [{"path": "0", "coordinateTransformations": scale, **(dataset or {})}],
        **(more or {}),
    }
    ome = {"version": version, "multiscales": [entry], **(top or {})}
    group = zarr.create_group(path, attributes={"ome": ome})
    group.create_array("0", data=VALUES)
    return path


MATRIX = [[2.0, 0, 0, 0], [0, 2.0, 0.5, 0], [0, 0, 2.0, 0]]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"version": "0.6"}, "version: found '0.6', expected a version from 0.1 to 0.5 or null"),
        ({"version": "0.6.dev2"}, "expected a version from 0.1 to 0.5"),
        ({"version": "1.0"}, "expected a version from 0.1 to 0.5"),
        ({"version": ["0.5"]}, "version: found"),
        (
            {"dataset": {"coordinateTransformations": [{"type": "affine", "affine": MATRIX}]}},
            "found 'affine', expected 'scale', 'translation' or 'identity'",
        ),
        ({"more": {"coordinateTransformations": [{"type": "rotation"}]}}, "found 'rotation', expected"),
        ({"more": {"coordinateSystems": [{"name": "physical"}]}}, "coordinateSystems: found"),
        ({"dataset": {"coordinateTransformations": [{"type": "scale", "path": "s"}]}}, "list of numbers"),
        ({"dataset": {"coordinateTransformations": [{"type": "scale", "scale": [1, 2]}]}}, "found 2 numbers"),
        ({"dataset": {"coordinateTransformations": "affine"}}, "coordinateTransformations: found 'affine'"),
        ({"axes": "yyx"}, "found y twice"),
        ({"axes": "zyxzyxzyx"}, "axes"),
        ({"more": {"axes": [1, 2, 3]}}, "axes[0]: found 1"),
        ({"more": {"axes": [{"name": "z", "unit": 7}, "y", "x"]}}, "unit: found 7, expected text"),
        ({"more": {"axes": [{"name": "z\x1b[31m"}, "y", "x"]}}, "control characters"),
        ({"more": {"datasets": []}}, "datasets: found []"),
        ({"more": {"datasets": {"path": "0"}}}, "datasets: found a mapping"),
        ({"more": {"datasets": [{"path": "0"}] * 1000}}, "datasets"),
        ({"dataset": {"path": "../other"}}, "found '../other', expected a path inside the group"),
        ({"dataset": {"path": "/etc"}}, "expected a path inside the group"),
        ({"dataset": {"path": "0\x00"}}, "expected a path inside the group"),
        ({"top": {"multiscales": []}}, "multiscales: found []"),
        ({"top": {"multiscales": None}}, "multiscales: found null"),
        ({"top": {"multiscales": "image"}}, "multiscales: found 'image'"),
        ({"top": {"multiscales": [7]}}, "multiscales[0]: found 7, expected a mapping"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_ome_metadata_that_are_not_understood(tmp_path, changes, expected):
    assert expected in refused(image(tmp_path / "v.zarr", **changes))


@pytest.mark.parametrize("factor", ["NaN", "0", "-1.0", "Infinity", "1e999", '"1"', "true", "null", "[1.0]"])
def test_scales_that_are_none(tmp_path, factor):
    path = image(tmp_path / "v.zarr")
    text = (path / "zarr.json").read_text().replace("2.0", "9.0", 2).replace("9.0", factor, 1)
    (path / "zarr.json").write_text(text)
    assert "scale" in refused(path)


def test_scales_of_levels_and_image_that_multiply_to_infinity(tmp_path):
    outer = {"coordinateTransformations": [{"type": "scale", "scale": [1e300] * 3}]}
    inner = {"coordinateTransformations": [{"type": "scale", "scale": [1e300] * 3}]}
    assert "found scale inf" in refused(image(tmp_path / "v.zarr", more=outer, dataset=inner))


@pytest.mark.parametrize("value", ['"text"', "[1]", "7"])
def test_an_ome_attribute_that_is_no_mapping(tmp_path, value):
    zarr.create_group(tmp_path / "v.zarr", attributes={"ome": json.loads(value)}).create_array(
        "0", data=VALUES
    )
    assert "ome: found" in refused(tmp_path / "v.zarr")


def test_what_is_common_stays_accepted(tmp_path):
    outer = [{"type": "scale", "scale": [1, 1, 0.5]}, {"type": "identity"}]
    more = {"coordinateTransformations": outer, "name": "x", "metadata": {"a": [1]}}
    path = image(tmp_path / "v.zarr", version="0.5.2", more=more, top={"omero": {"channels": [7]}})
    assert open_volume(path).voxel_size == (2.0, 2.0, 1.0)
    nameless = image(tmp_path / "w.zarr", version=0.4, dataset={"path": 0})
    assert open_volume(nameless).voxel_size == (2.0, 2.0, 2.0)


def test_an_array_opened_by_its_own_path_is_not_judged_by_other_metadata(tmp_path):
    path = image(tmp_path / "v.zarr", version="0.6", dataset={"path": "1"})
    np.testing.assert_array_equal(open_volume(path / "0").read(), VALUES)
    other = image(tmp_path / "w.zarr", version="0.6")
    with pytest.raises(InputError, match="expected a version"):
        open_volume(other / "0")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["../../secret"], "path inside"),
        (["a\x00"], "path inside"),
        ("truth", "labels: found 'truth'"),
        ({"a": 1}, "labels: found a mapping"),
        ([7], "labels[0]: found 7"),
        ([f"labels{i}" for i in range(300)], "and 295 more"),
    ],
)
def test_lists_of_labels(tmp_path, labels, expected):
    path = image(tmp_path / "v.zarr")
    zarr.open_group(path, mode="r+").create_group("labels", attributes={"ome": {"labels": labels}})
    assert expected in refused(path, labels=True)


@pytest.mark.parametrize(
    "label",
    [
        {"colors": 7},
        {"colors": [{"label-value": "one"}]},
        {"colors": [{"label-value": 1, "rgba": [1, 2]}]},
        {"colors": [{"label-value": 1, "rgba": [1, 2, 300, 4]}]},
        {"properties": [{"label-value": 1, "class": ["a"]}]},
        {"properties": {"1": "a"}},
        {"properties": [{"label-value": 10**30}]},
    ],
)
def test_class_tables(tmp_path, label):
    path = image(tmp_path / "v.zarr", top={"image-label": label})
    with pytest.raises(InputError, match=r"v\.zarr: OME-Zarr metadata: image-label") as caught:
        class_info(path)
    assert str(caught.value).isprintable()


def test_numbers_of_other_types_in_class_tables(tmp_path):
    label = {
        "colors": [{"label-value": 1.0, "rgba": [1, 2, 3, 255]}],
        "properties": [{"label-value": 1.0, "class": 3}, {"label-value": 2, "name": 4.5}],
    }
    infos = class_info(image(tmp_path / "v.zarr", top={"image-label": label}))
    assert [(info.value, info.name) for info in infos] == [(1, "3"), (2, "4.5")]


def test_metadata_of_some_megabytes(tmp_path):
    path = image(tmp_path / "v.zarr", top={"notes": ["a" * 1000] * 9000})
    np.testing.assert_array_equal(open_volume(path).read(), VALUES)
    path = image(tmp_path / "w.zarr", more={"datasets": [{"path": "0"}] * 100_000})
    assert "found 100,000 levels, expected at most 64" in refused(path)


def test_a_class_name_is_made_printable(tmp_path):
    label = {"properties": [{"label-value": 1, "class": "\x1b[31m"}]}
    (info,) = class_info(image(tmp_path / "v.zarr", top={"image-label": label}))
    assert info.name == r"\x1b[31m"


def test_a_label_value_of_a_billion_costs_nothing(tmp_path):
    label = {"properties": [{"label-value": 10**9, "class": "cell"}]}
    began = time.process_time()
    (info,) = class_info(image(tmp_path / "v.zarr", top={"image-label": label}))
    assert (info.value, info.name) == (10**9, "cell")
    assert time.process_time() - began < 1


def array(path, zarr_format=3, **options):
    zarr.create_array(
        path, data=VALUES, zarr_format=zarr_format, chunks=options.pop("chunks", (2, 3, 4)), **options
    )
    return path


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("shape", [10**15, 6, 8], "1e+15 voxels along an axis"),
        ("shape", [10**30, 6, 8], "1e+30 voxels along an axis"),
        ("shape", [10**9, 10**9, 10**9], "bytes, expected at most 1.15e+18"),
        ("shape", [0, 6, 8], "empty"),
        ("shape", [], ""),
        ("shape", [4, 6, "8"], "damaged Zarr metadata"),
        ("shape", "468", "damaged Zarr metadata"),
        ("shape", [4, -6, 8], "damaged Zarr metadata"),
        ("shape", [1] * 40, "damaged Zarr metadata"),
        ("shape", None, "damaged Zarr metadata"),
    ],
)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_shapes(tmp_path, zarr_format, key, value, expected):
    path = array(tmp_path / "v.zarr", zarr_format)
    change(path / ("zarr.json" if zarr_format == 3 else ".zarray"), **{key: value})
    assert expected in refused(path)


@pytest.mark.parametrize("chunks", [[10**6, 10**6, 10**6], [2, 3, 10**30], [1, 1, 2**32]])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_chunks_that_fit_no_memory(tmp_path, zarr_format, chunks):
    path = array(tmp_path / "v.zarr", zarr_format)
    if zarr_format == 3:
        change(path / "zarr.json", chunk_grid={"name": "regular", "configuration": {"chunk_shape": chunks}})
    else:
        change(path / ".zarray", chunks=chunks)
    assert "expected 1 to 4,294,967,296 bytes" in refused(path)


def test_lists_of_chunks_and_the_index_of_a_shard_are_bounded(tmp_path):
    path = array(tmp_path / "v.zarr", chunks=(1, 1, 1))
    change(path / "zarr.json", shape=[2**31, 1, 1])
    assert "chunks along an axis" in refused(path)
    path = array(tmp_path / "s.zarr", chunks=(1, 1, 1), shards=(2, 2, 2))
    grid = {"name": "regular", "configuration": {"chunk_shape": [2**10] * 3}}
    change(path / "zarr.json", chunk_grid=grid, shape=[2**11] * 3)
    assert "chunks in a shard" in refused(path)


@pytest.mark.parametrize("name", ["zarr.json", ".zarray", ".zattrs"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"7",
        b"null",
        b'["a"]',
        b"{}",
        b"\xff\xfe",
        b'{"shape": 1e999}',
        b" " * 34_000_000,
    ],
    ids=["empty", "open", "nested", "seven", "null", "list", "mapping", "bytes", "infinite", "long"],
)
def test_metadata_that_are_no_metadata(tmp_path, name, content):
    path = array(tmp_path / "v.zarr", 3 if name == "zarr.json" else 2)
    (path / name).write_bytes(content)
    if name == ".zattrs" and content in (b"{}", b"null", b'{"shape": 1e999}'):
        np.testing.assert_array_equal(open_volume(path).read(), VALUES)
    else:
        refused(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dtype", "|O"),
        ("dtype", [["a", "<u2"]]),
        ("dtype", "<c8"),
        ("dtype", 7),
        ("compressor", "gzip"),
        ("compressor", {"id": "nobody"}),
        ("filters", {"id": "delta"}),
        ("order", "Z"),
        ("fill_value", "text"),
        ("dimension_separator", "\x00"),
        ("chunks", [0, 1, 1]),
        ("chunks", [2, 3]),
        ("zarr_format", 7),
    ],
)
def test_odd_types_in_zarr_2(tmp_path, key, value):
    path = array(tmp_path / "v.zarr", 2)
    change(path / ".zarray", **{key: value})
    refused(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data_type", 7),
        ("data_type", "complex64"),
        ("data_type", "string"),
        ("codecs", []),
        ("codecs", "gzip"),
        ("codecs", [{"name": "bytes"}, {"name": "nobody"}]),
        ("chunk_key_encoding", {"name": "default", "configuration": {"separator": "\x00"}}),
        ("chunk_grid", {"name": "irregular"}),
        ("dimension_names", ["y", "y", "x"]),
        ("dimension_names", [1, 2, 3]),
        ("dimension_names", ["z", "y"]),
        ("node_type", "leaf"),
        ("fill_value", [1]),
        ("storage_transformers", [{"name": "nobody"}]),
        ("attributes", 7),
    ],
)
def test_odd_types_in_zarr_3(tmp_path, key, value):
    path = array(tmp_path / "v.zarr")
    change(path / "zarr.json", **{key: value})
    refused(path)


@pytest.mark.parametrize("names", [["\x1b[31m", "y", "x"], ["time", "y", "x"]])
def test_odd_names_of_axes_are_escaped(tmp_path, names):
    path = array(tmp_path / "v.zarr", dimension_names=names)
    assert repr(names[0]) in refused(path)


def test_codecs_that_run_code_are_refused(tmp_path):
    class Runs:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    path = array(tmp_path / "v.zarr", 2)
    change(path / ".zarray", compressor=None, filters=[{"id": "pickle"}])
    (path / "0.0.0").write_bytes(pickle.dumps(Runs()))
    refused(path, read=True)
    change(path / ".zarray", filters=[{"id": "base64"}])
    assert "found the codec base64, expected one of adler32" in refused(path)
    assert not (tmp_path / "ran").exists()


GIGABYTES = 3 * 10**9


def bomb(start, block=bytes(10**6)):
    """Compress 3 GB of zeros, in parts."""
    stream = start()
    part = b"".join(stream.compress(block) for _ in range(GIGABYTES // 10**6 // 300))
    return part + stream.flush()


BOMBS = {
    # Several members: each is small, all together are not.
    "gzip": lambda: bomb(lambda: zlib.compressobj(1, wbits=31)) * 300,
    "zlib": lambda: bomb(lambda: zlib.compressobj(1)) * 300,
    "bz2": lambda: bomb(lambda: bz2.BZ2Compressor(1)) * 300,
    "lzma": lambda: bomb(lambda: lzma.LZMACompressor(preset=0)) * 300,
    "zstd": lambda: numcodecs.Zstd().encode(bytes(10**7)) * 300,
    "blosc": lambda: resized(numcodecs.Blosc().encode(bytes(10**6)), 4, 2**31 - 17),
    "lz4": lambda: resized(numcodecs.LZ4().encode(bytes(10**6)), 0, 2**31 - 17),
}


def resized(data, at, size):
    """Change the size that a header declares."""
    return bytes(data[:at]) + size.to_bytes(4, "little") + bytes(data[at + 4 :])


@pytest.fixture(scope="module")
def bombs():
    return {name: make() for name, make in BOMBS.items()}


def of_zarr_3(name):
    codecs = {"gzip": GzipCodec(), "zstd": ZstdCodec(), "blosc": BloscCodec()}
    if name in codecs:
        return codecs[name]
    with warnings.catch_warnings(action="ignore"):
        return {
            "zlib": zarr.codecs.numcodecs.Zlib,
            "bz2": zarr.codecs.numcodecs.BZ2,
            "lzma": zarr.codecs.numcodecs.LZMA,
            "lz4": zarr.codecs.numcodecs.LZ4,
        }[name]()


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("name", BOMBS)
def test_bombs(tmp_path, bombs, name, zarr_format):
    codec = of_zarr_3(name) if zarr_format == 3 else numcodecs.get_codec({"id": name})
    with warnings.catch_warnings(action="ignore"):
        path = array(tmp_path / "v.zarr", zarr_format, compressors=codec)
        np.testing.assert_array_equal(open_volume(path).read(), VALUES)
    (path / ("c/0/0/0" if zarr_format == 3 else "0.0.0")).write_bytes(bombs[name])
    line = refused(path, read=True)
    assert "in a compressed chunk, expected at most" in line or "bytes, expected at most" in line


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("stored", [20, 100, -1])
def test_chunks_of_blosc_that_are_cut_off(tmp_path, stored, zarr_format):
    """c-blosc reads as many bytes as the header declares, wherever the data end."""
    codec = BloscCodec() if zarr_format == 3 else numcodecs.Blosc()
    path = array(tmp_path / "v.zarr", zarr_format, chunks=VALUES.shape, compressors=codec)
    chunk = path / ("c/0/0/0" if zarr_format == 3 else "0.0.0")
    content = chunk.read_bytes()
    chunk.write_bytes(content[:stored])
    assert f"bytes of a Blosc chunk, expected {len(content)}" in refused(path, read=True)


def members(name, count):
    """Compress the values as one of many members, which are empty but for it."""
    compress = {
        "gzip": gzip.compress,
        "zlib": zlib.compress,
        "bz2": bz2.compress,
        "lzma": lzma.compress,
    }[name]
    return compress(b"") * count + compress(VALUES.tobytes()) + compress(b"") * 3


@pytest.mark.parametrize("name", ["gzip", "zlib", "bz2", "lzma"])
def test_chunks_of_many_members(name):
    codec = bounded_numcodec(numcodecs.get_codec({"id": name}), 1000, "v.zarr")
    padding = bytes(50) if name == "gzip" else b""
    began = time.process_time()
    assert codec.decode(members(name, 100_000) + padding) == VALUES.tobytes()
    assert time.process_time() - began < 4
    with pytest.raises(ValueError, match="found more than 131,072 members in a compressed chunk"):
        codec.decode(members(name, 150_000))
    with pytest.raises(ValueError, match="end in the middle"):
        codec.decode(members(name, 10)[:-1])


def test_bombs_in_shards(tmp_path, bombs):
    path = array(tmp_path / "v.zarr", shards=(4, 6, 8), compressors=GzipCodec())
    np.testing.assert_array_equal(open_volume(path).read(), VALUES)
    data = gzip.compress(bytes(10**7))
    index = np.full((2, 2, 2, 2), 2**64 - 1, np.uint64)
    index[0, 0, 0] = 0, len(data)
    import google_crc32c

    raw = index.tobytes()
    shard = data + raw + google_crc32c.value(raw).to_bytes(4, "little")
    (path / "c/0/0/0").write_bytes(shard)
    assert "in a compressed chunk" in refused(path, read=True)


@pytest.mark.parametrize("count", [1, 3])
def test_frames_of_zstd_without_a_size(tmp_path, count):
    """Streaming writers leave the size out of the header."""
    path = tmp_path / "v.zarr"
    values = np.zeros((1, 2000, 1000), np.uint8)
    zarr.create_array(path, data=values, chunks=values.shape, zarr_format=2, compressors=numcodecs.Zstd())
    chunk = path / "0.0.0"
    data = numcodecs.Zstd().encode(bytes(2_000_000 // 1))
    # Magic number, no size and no single segment, a window of 1 MB, the blocks.
    chunk.write_bytes(data[:4] + b"\x00\x50" + data[9:])
    np.testing.assert_array_equal(open_volume(path).read(), values)
    block = (0 | 1 << 1 | 131072 << 3).to_bytes(3, "little") + b"\0"
    last = (1 | 1 << 1 | 131072 << 3).to_bytes(3, "little") + b"\0"
    chunk.write_bytes((data[:4] + b"\x00\x50" + block * (8000 // count) + last) * count)
    assert "in a compressed chunk" in refused(path, read=True)


@pytest.mark.parametrize("codec", [numcodecs.Delta("<u2"), numcodecs.AsType("<f8", "<u2"), numcodecs.CRC32()])
def test_filters_stay_accepted(tmp_path, codec):
    path = array(tmp_path / "v.zarr", 2, filters=[codec], compressors=numcodecs.Zlib())
    np.testing.assert_array_equal(open_volume(path).read(), VALUES)


def test_a_sharded_array_with_every_codec_stays_accepted(tmp_path):
    codecs = [ZstdCodec(checksum=True), zarr.codecs.Crc32cCodec()]
    path = array(
        tmp_path / "v.zarr",
        shards=(4, 6, 8),
        compressors=codecs,
        filters=[zarr.codecs.TransposeCodec(order=(2, 1, 0))],
    )
    assert isinstance(open_volume(path).array.metadata.codecs[0], ShardingCodec)
    np.testing.assert_array_equal(open_volume(path).read(), VALUES)
    np.testing.assert_array_equal(
        open_volume(path).read((slice(0, 1), slice(1, 2), slice(2, 3))), VALUES[:1, 1:2, 2:3]
    )


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("kind", ["folder", "dangling", "loop", "fifo", "file on its way", "huge", "empty"])
def test_a_chunk_that_is_no_file_is_not_the_fill_value(tmp_path, zarr_format, kind):
    options = {} if zarr_format == 3 else {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
    path = array(tmp_path / "v.zarr", zarr_format, **options)
    name = "c/0/0/0" if zarr_format == 3 else "0/0/0"
    chunk = path / name
    chunk.unlink()
    read = np.zeros_like(VALUES)
    read[:] = VALUES
    read[:2, :3, :4] = 0
    np.testing.assert_array_equal(open_volume(path).read(), read)  # missing: the fill value
    if kind == "folder":
        chunk.mkdir()
    elif kind == "dangling":
        chunk.symlink_to("nowhere")
    elif kind == "loop":
        chunk.symlink_to(chunk.name)
    elif kind == "fifo":
        os.mkfifo(chunk)
    elif kind == "empty":
        chunk.touch()
    elif kind == "huge":
        with chunk.open("wb") as file:
            file.truncate(10**12)
    else:
        for other in chunk.parent.iterdir():
            other.unlink()
        chunk.parent.rmdir()
        chunk.parent.write_bytes(b"")
    line = refused(path, read=True)
    assert name in line
    assert "cannot read z 0:4" in line


def test_a_shard_that_is_cut_off_is_not_the_fill_value(tmp_path):
    path = tmp_path / "v.zarr"
    codec = ShardingCodec(chunk_shape=(2, 3, 4), index_location="start")
    zarr.create_array(path, data=VALUES, chunks=(4, 6, 8), serializer=codec, compressors=None)
    np.testing.assert_array_equal(open_volume(path).read(), VALUES)
    with (path / "c/0/0/0").open("r+b") as file:
        file.truncate(16 * 8 + 4 + 48 * 2)
    with pytest.raises(InputError, match="cannot read"):
        open_volume(path).read()
    for z in range(4):
        for y in range(6):
            try:
                read = open_volume(path).read((slice(z, z + 1), slice(y, y + 1), slice(0, 8)))
            except InputError:
                continue
            np.testing.assert_array_equal(read, VALUES[z : z + 1, y : y + 1])


@pytest.mark.parametrize("name", ["zarr.json", ".zarray"])
def test_metadata_that_are_no_file(tmp_path, name):
    (tmp_path / "v.zarr").mkdir()
    (tmp_path / "v.zarr" / name).mkdir()
    assert name in refused(tmp_path / "v.zarr")
    (tmp_path / "v.zarr" / name).rmdir()
    os.mkfifo(tmp_path / "v.zarr" / name)
    assert "named pipe" in refused(tmp_path / "v.zarr")


def test_damage_inside_a_group(tmp_path):
    path = image(tmp_path / "v.zarr")
    (path / "0/zarr.json").write_text("{}")
    assert "damaged Zarr metadata" in refused(path)
    group = zarr.create_group(tmp_path / "g.zarr")
    group.create_array("a", data=VALUES)
    (tmp_path / "g.zarr/a/zarr.json").write_text("[]")
    refused(tmp_path / "g.zarr")
    path = image(tmp_path / "w.zarr")
    zarr.open_group(path, mode="r+").create_group("labels", attributes={"ome": {"labels": ["a"]}})
    (path / "labels/zarr.json").write_text("7")
    refused(path, labels=True)


def test_many_arrays_are_not_all_listed(tmp_path):
    group = zarr.create_group(tmp_path / "g.zarr")
    for i in range(40):
        group.create_array(f"array{i:03}", shape=(1, 1), dtype="u1")
    assert "40 arrays (array000, array001, array002, array003, array004 and 35 more)" in refused(
        tmp_path / "g.zarr"
    )
