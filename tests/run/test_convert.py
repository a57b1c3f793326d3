"""Conversion to OME-Zarr: the same values and metadata, resumable, verified."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from ome_zarr_models import open_ome_zarr

from hrvol import convert_volume, open_volume, run_status, segment_volume, train_model
from hrvol.cli import main
from hrvol.engine.stop import Stop
from hrvol.errors import (
    BlockError,
    InputError,
    OtherRunError,
    OutputExistsError,
    StoppedError,
    UsageError,
)
from hrvol.run.convert.window import to_uint8
from hrvol.volume.ome.pyramid import mean_reduce
from tests.run_data import QUICK, draw, make_volume

TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8", "?", "f2")

SMALL = {"chunks": (4, 16, 16), "shards": (8, 32, 32)}


def volume(shape=(21, 70, 90), dtype="u2", seed=0):
    return np.random.default_rng(seed).integers(0, 60_000, shape).astype(dtype)


def tree(folder):
    """Return the bytes of all files in a folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_what_is_converted_reads_as_the_source(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("any")
    sides = data.draw(st.lists(st.integers(2, 37), min_size=2, max_size=2), "rows and columns")
    shape = (*data.draw(st.lists(st.integers(1, 13), max_size=1), "planes"), *sides)
    dtype = np.dtype(data.draw(st.sampled_from(TYPES), "type"))
    dtype = dtype.newbyteorder(data.draw(st.sampled_from("<>"), "byte order"))
    values = np.random.default_rng(0).integers(-300, 60_000, shape)
    values = (values % 2 if dtype.kind == "b" else values).astype(np.uint32).astype(dtype)
    kind = data.draw(st.sampled_from(["npy", "h5", "planes"]), "format")
    source = folder / f"source.{kind}"
    if kind == "npy":
        np.save(source, values)
    elif kind == "h5":
        chunks = data.draw(st.sampled_from([None, True]), "chunks of HDF5")
        with h5py.File(source, "w") as file:
            file.create_dataset("x", data=values, chunks=chunks)
    else:
        source.mkdir()
        packed = data.draw(st.sampled_from([None, "zlib"]), "compression of TIFF")
        values = values.astype("u1") if dtype.kind == "b" else values
        values = values if values.ndim == 3 else values[None]
        for z, plane in enumerate(values):
            tifffile.imwrite(source / f"{z}.tif", plane, compression=packed, photometric="minisblack")
    chunk = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 20)), "chunk")
    factor = data.draw(st.tuples(*[st.integers(1, 3)] * 3), "chunks per shard")
    shard = tuple(c * f for c, f in zip(chunk, factor, strict=True))
    version = data.draw(st.sampled_from(["0.5", "0.4"]), "version")
    packing = data.draw(st.sampled_from(["zstd", "none", "blosc-lz4:3", "gzip"]), "compression")
    spacing = data.draw(st.tuples(*[st.floats(0.01, 50)] * 3), "voxel size")
    opened = open_volume(source, voxel_size=spacing, unit="um")
    report = convert_volume(
        opened,
        folder / "out.ome.zarr",
        ome_zarr=version,
        chunks=chunk,
        shards=shard,
        compression=packing,
        verify=True,
    )
    copied = open_volume(folder / "out.ome.zarr")
    assert copied.dtype == opened.dtype
    n = opened.ndim
    assert (copied.ndim, copied.unit) == (n, "micrometer")
    assert copied.voxel_size[-n:] == opened.voxel_size[-n:]
    np.testing.assert_array_equal(copied.read(), opened.read())
    assert copied.read().tobytes() == values.astype(opened.dtype).tobytes()
    assert report.verified == report.complete * np.prod(
        [-(-n // s) for n, s in zip(opened.shape, shard, strict=True)]
    )
    open_ome_zarr(zarr.open_group(folder / "out.ome.zarr", mode="r"))


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_levels_are_means_and_metadata_are_valid(tmp_path, version):
    values = volume((9, 300, 330))
    np.save(tmp_path / "a.npy", values)
    report = convert_volume(tmp_path / "a.npy", tmp_path / "a.ome.zarr", ome_zarr=version)
    assert report.levels == 2
    coarse = open_volume(tmp_path / "a.ome.zarr", level=1)
    np.testing.assert_array_equal(coarse.read(), mean_reduce(values, (1, 2, 2)))
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="r")
    model = open_ome_zarr(group)
    found = model.attributes.ome.version if version == "0.5" else model.attributes.multiscales[0].version
    assert found == version
    assert group["0"].metadata.zarr_format == (3 if version == "0.5" else 2)
    assert (group["0"].shards is not None) == (version == "0.5")
    assert "ledger" not in group
    assert set(os.listdir(tmp_path / "a.ome.zarr")) <= {"0", "1", "zarr.json", ".zattrs", ".zgroup"}


def test_regions_levels_and_parts(tmp_path):
    values = volume()
    np.save(tmp_path / "a.npy", values)
    opened = open_volume(tmp_path / "a.npy", voxel_size=(2.0, 0.5, 0.5))
    roi = (slice(3, 20), slice(5, 61), slice(None, 44))
    given = {"roi": roi, **SMALL}
    for k in (2, 1, 3):
        report = convert_volume(opened, tmp_path / "part.ome.zarr", part=(k, 3), **given)
        assert report.complete == (k == 3)
        status = run_status(tmp_path / "part.ome.zarr")
        assert status["state"] == ("complete" if k == 3 else "stopped")
        assert status["left"] == report.left
        if not report.complete:
            with pytest.raises(InputError, match="unfinished conversion"):
                open_volume(tmp_path / "part.ome.zarr")
    part = open_volume(tmp_path / "part.ome.zarr")
    np.testing.assert_array_equal(part.read(), values[roi])
    assert part.translation == (6.0, 2.5, 0.0)
    convert_volume(opened, tmp_path / "whole.ome.zarr", **given)
    assert tree(tmp_path / "part.ome.zarr").keys() == tree(tmp_path / "whole.ome.zarr").keys()
    convert_volume(
        tmp_path / "part.ome.zarr", tmp_path / "again.ome.zarr", roi=(slice(1, 3), slice(9), slice(9))
    )
    again = open_volume(tmp_path / "again.ome.zarr")
    np.testing.assert_array_equal(again.read(), values[roi][1:3, :9, :9])
    assert again.translation == (8.0, 2.5, 0.0)


def test_eight_bits(tmp_path):
    values = volume(dtype="f4")
    values[0, 0, 0] = np.nan
    np.save(tmp_path / "a.npy", values)
    report = convert_volume(tmp_path / "a.npy", tmp_path / "a.ome.zarr", uint8="1000,50000", verify=True)
    assert report.window == (1000.0, 50000.0)
    expected = np.rint(np.clip((np.nan_to_num(values, nan=0) - 1000) * (255 / 49000), 0, 255)).astype("u1")
    np.testing.assert_array_equal(open_volume(tmp_path / "a.ome.zarr").read(), expected)
    attributes = dict(zarr.open_group(tmp_path / "a.ome.zarr", mode="r").attrs)
    assert attributes["hrvol"]["conversion"]["window"] == [1000.0, 50000.0]
    with pytest.raises(OtherRunError, match=r"conversion\.uint8 was"):
        convert_volume(tmp_path / "a.npy", tmp_path / "a.ome.zarr", uint8="1000,50001")
    values[0, 0, 0] = 0
    np.save(tmp_path / "b.npy", values)
    low, high = convert_volume(tmp_path / "b.npy", tmp_path / "b.ome.zarr", uint8="10%,90%").window
    assert 5000 < low < 7000
    assert 53_000 < high < 55_000
    np.testing.assert_array_equal(open_volume(tmp_path / "b.ome.zarr").read(), to_uint8(values, (low, high)))
    for wrong in ("5,1", "1%,200%", "dark", "1,2,3"):
        with pytest.raises(UsageError, match="uint8: found"):
            convert_volume(tmp_path / "b.npy", tmp_path / "c.ome.zarr", uint8=wrong)


def test_labels_keep_their_values(tmp_path):
    labels = (volume((5, 300, 300)) % 3).astype("u1")
    np.save(tmp_path / "a.npy", labels)
    convert_volume(tmp_path / "a.npy", tmp_path / "a.ome.zarr", pyramid="mode")
    assert set(np.unique(open_volume(tmp_path / "a.ome.zarr", level=1).read())) == {0, 1, 2}
    convert_volume(tmp_path / "a.npy", tmp_path / "b.ome.zarr", pyramid="none")
    with pytest.raises(InputError, match="found 1 level"):
        open_volume(tmp_path / "b.ome.zarr", level=1)
    np.save(tmp_path / "c.npy", labels.astype("f4"))
    with pytest.raises(InputError, match="expected unsigned whole numbers"):
        convert_volume(tmp_path / "c.npy", tmp_path / "c.ome.zarr", pyramid="mode")


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_engines_write_the_same_bytes_and_stopped_runs_are_resumed(tmp_path, version):
    np.save(tmp_path / "a.npy", volume((20, 300, 90)))
    given = {"ome_zarr": version, **SMALL}
    convert_volume(tmp_path / "a.npy", tmp_path / "serial/a.ome.zarr", **given)
    whole, out = tree(tmp_path / "serial/a.ome.zarr"), tmp_path / "a.ome.zarr"
    stop = Stop()

    def few(stage, done, total):
        if done > total // 3:
            stop.request(signal.SIGTERM)

    with pytest.raises(StoppedError, match="run the same command to resume"):
        convert_volume(tmp_path / "a.npy", out, stop=stop, progress=few, **given)
    with pytest.raises(OtherRunError, match=r"layout\.compression was"):
        convert_volume(tmp_path / "a.npy", out, compression="none", **given)
    report = convert_volume(tmp_path / "a.npy", out, engine="local", workers=2, **given)
    assert 0 < report.before < report.voxels
    assert tree(out) == whole
    again = convert_volume(tmp_path / "a.npy", out, ome_zarr=version)  # keeps its shards
    assert again.before == again.voxels == report.voxels


_CONVERT = """
import sys
from hrvol import convert_volume
convert_volume(sys.argv[1], sys.argv[2], ome_zarr=sys.argv[3], chunks=(4, 16, 16), shards=(8, 32, 32))
"""


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_killed_at_any_moment_and_resumed(tmp_path, version):
    np.save(tmp_path / "a.npy", volume((32, 300, 160)))
    convert_volume(tmp_path / "a.npy", tmp_path / "whole/a.ome.zarr", ome_zarr=version, **SMALL)
    out, moments = tmp_path / "a.ome.zarr", random.Random(7)
    command = [sys.executable, "-c", _CONVERT, str(tmp_path / "a.npy"), str(out), version]
    killed = 0
    for _ in range(3):
        process = subprocess.Popen(command)
        while not (out / "ledger").exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.5))
        process.kill()
        killed += process.wait() != 0
    assert killed
    report = convert_volume(tmp_path / "a.npy", out, ome_zarr=version, **SMALL)
    assert report.complete
    assert tree(out) == tree(tmp_path / "whole/a.ome.zarr")


def test_damage_is_found(tmp_path):
    np.save(tmp_path / "a.npy", volume())
    given = {"verify": True, **SMALL}
    out = tmp_path / "a.ome.zarr"
    convert_volume(tmp_path / "a.npy", out, **SMALL)
    whole = tree(out)
    array = zarr.open_array(out / "0", mode="r+")
    array[9, 40, 40] += 1
    with pytest.raises(
        BlockError, match=r"found 1 of 27 blocks that differ .* the first is \(1, 1, 1\) \(--fresh"
    ):
        convert_volume(tmp_path / "a.npy", out, **given)
    convert_volume(tmp_path / "a.npy", out, overwrite=True, **given)
    assert tree(out) == whole


def test_other_content_is_kept(tmp_path):
    np.save(tmp_path / "a.npy", volume((3, 70, 70), "u1"))
    out = tmp_path / "a.ome.zarr"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputExistsError):
            convert_volume(tmp_path / "a.npy", out, overwrite=overwrite)
    assert (out / "notes.txt").read_text() == "mine"
    (out / "notes.txt").unlink()
    convert_volume(tmp_path / "a.npy", out)
    zarr.open_group(out, mode="r+").create_group("labels/mine")
    with pytest.raises(OutputExistsError, match="found labels"):
        convert_volume(tmp_path / "a.npy", out, overwrite=True)
    with pytest.raises(UsageError, match=r"\(or holds, or is inside\) the input"):
        convert_volume(out, out / "inner.ome.zarr")


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_creation_may_be_interrupted_after_any_file(tmp_path, version):
    np.save(tmp_path / "a.npy", volume((9, 40, 40)))
    convert_volume(tmp_path / "a.npy", tmp_path / "whole.ome.zarr", ome_zarr=version, **SMALL)
    names = ["zarr.json", "0/zarr.json"] if version == "0.5" else [".zattrs", ".zgroup", "0/.zarray"]
    for count in range(1, len(names) + 1):
        out = tmp_path / f"{count}.ome.zarr"
        for name in names[:count]:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            data = (tmp_path / "whole.ome.zarr" / name).read_bytes()
            if "attributes" in json.loads(data) or name == ".zattrs":
                values = json.loads(data)
                holder = values if name == ".zattrs" else values["attributes"]
                for key in ("ome", "multiscales"):
                    holder.pop(key, None)
                if "hrvol" in holder:
                    holder["hrvol"]["complete"] = False
                data = json.dumps(values).encode()
            (out / name).write_bytes(data)
        assert convert_volume(tmp_path / "a.npy", out, ome_zarr=version).complete
        assert tree(out).keys() == tree(tmp_path / "whole.ome.zarr").keys()
        np.testing.assert_array_equal(open_volume(out).read(), volume((9, 40, 40)))


def test_command(tmp_path):
    values = volume((12, 40, 50))
    values.astype(">u2").tofile(tmp_path / "a.raw")
    out = str(tmp_path / "a.ome.zarr")
    raw = ["--raw-shape", "12,40,50", "--raw-dtype", "uint16", "--raw-byteorder", "big"]
    words = ["convert", str(tmp_path / "a.raw"), out, *raw, "--voxel-size", "3", "--unit", "nm"]
    words += ["--engine", "serial", "--verify", "--chunks", "4,16,16", "--shards", "8,32,32"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert "12 x 40 x 50 uint16, 1 levels" in result.output
    assert "8 blocks are equal to the input" in result.output
    copied = open_volume(out)
    np.testing.assert_array_equal(copied.read(), values)
    assert (copied.voxel_size, copied.unit) == ((3.0, 3.0, 3.0), "nanometer")
    assert "is already complete" in CliRunner().invoke(main, words).output
    for wrong in (
        ["--shards", "9,32,32"],
        ["--compression", "zip"],
        ["--chunks", "0,1,1"],
        ["--uint8", "a,b"],
    ):
        assert CliRunner().invoke(main, [*words, *wrong]).exit_code == 2


def test_labels_go_into_a_converted_image(tmp_path):
    image, truth = make_volume()
    model = train_model([(image, draw(truth))], recipe=QUICK, classes=["a", "b"])
    np.save(tmp_path / "a.npy", image)
    for version in ("0.5", "0.4"):
        out = tmp_path / f"{version}.ome.zarr"
        convert_volume(tmp_path / "a.npy", out, ome_zarr=version)
        segment_volume(out, None, model, into_input=True)
        assert open_volume(out / "labels/hrvol").shape == image.shape
