"""Sparse strokes and files of drawings in a bucket: only keys that exist are requested."""

import numpy as np
import pytest
import zarr
from run_data import draw, make_volume
from s3_server import s3_server
from strokes_data import stored, write_project

from hrvol.volume.background.coarse_mask import CoarseMask, read_mask, save_mask
from hrvol.volume.storage.location import Location
from hrvol.volume.strokes.open_strokes import open_strokes
from hrvol.volume.strokes.write import write_strokes
from hrvol.volume.volume import open_volume


@pytest.fixture(scope="module")
def bucket():
    with s3_server() as server:
        yield server


def test_strokes_in_a_bucket(bucket, tmp_path):
    drawn = draw(make_volume()[1])
    drawn[:, :, 60:] = 0
    volume = open_volume(drawn)
    target = Location.of(bucket.url("strokes.zarr"), bucket.options)
    array = zarr.create_array(
        target.store(read_only=False), shape=drawn.shape, dtype="u1", chunks=(1, 32, 32), fill_value=0
    )
    array[...] = drawn
    bucket.log.clear()
    strokes = open_strokes(bucket.url("strokes.zarr"), volume, storage_options=bucket.options)
    assert not strokes.dense
    found = np.zeros_like(drawn)
    for box, labels in strokes.drawn():
        found[box] = labels
    assert np.array_equal(found, drawn)
    chunks = [line for line in bucket.log if line.startswith("GET") and "/c/" in line]
    assert len(chunks) == 2 * 5 * 2  # drawn planes, rows and columns of chunks

    write_project(tmp_path / "p.ilp", [("scan", drawn)])
    places, values = stored(drawn)
    rows = [f"{z},{y},{x},{value}" for (z, y, x), value in zip(places, values, strict=True)]
    Location.of(bucket.url("files"), bucket.options).write_bytes(
        "p.csv", "\n".join(["z,y,x,class", *rows]).encode()
    )
    Location.of(bucket.url("files"), bucket.options).write_bytes("p.ilp", (tmp_path / "p.ilp").read_bytes())
    for name in ("p.csv", "p.ilp"):
        strokes = open_strokes(bucket.url(f"files/{name}"), volume, storage_options=bucket.options)
        assert np.array_equal(strokes.read(np.s_[0:5, 0:150, 0:130]), drawn)
    again = Location.of(bucket.url("again.ome.zarr"), bucket.options)
    write_strokes(strokes, again, volume)
    assert np.array_equal(open_strokes(again, volume).read(np.s_[0:5, 0:150, 0:130]), drawn)


def test_a_mask_in_a_bucket(bucket):
    cells = CoarseMask(np.random.default_rng(0).random((2, 5, 6)) < 0.5, (4, 8, 8), (7, 39, 41), "air")
    out = Location.of(bucket.url("out.ome.zarr"), bucket.options)
    save_mask(out, cells.volume(open_volume(np.zeros((7, 39, 41), np.uint8))))
    kept = read_mask(out)
    assert kept.sha256 == cells.sha256
    assert kept.found == "air"
