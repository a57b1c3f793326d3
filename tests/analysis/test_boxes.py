"""Boxes of a labelled volume, block by block: those of the whole, in a table that reads back."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrvol.analysis.boxes import find_boxes, write_boxes
from hrvol.analysis.objects import Object, find_objects
from hrvol.classes import default_classes
from hrvol.engine.spec import EngineSpec
from hrvol.errors import BlockError
from hrvol.volume.grid.tiling import grid
from hrvol.volume.ome.labels import create_labels
from hrvol.volume.volume import open_labels, open_volume

FOREGROUND = (1, 3)
SHAPE = (9, 70, 80)
BLOCK = (4, 32, 32)


def tangled(shape, seed=0):
    """Labels 0..3 of many sizes: smooth noise cut into levels, so that components cross blocks."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=shape)
    for axis in range(noise.ndim):
        noise = sum(np.roll(noise, step, axis) for step in (-2, -1, 0, 1, 2))
    return np.digitize(noise, np.quantile(noise, [0.8, 0.9, 0.92])).astype(np.uint8)


def store(path, labels, block):
    """Write labels as a segmentation would: an OME-Zarr, block by block."""
    volume = open_volume(labels)
    created = create_labels(
        path, volume, classes=default_classes([1, 2, 3]), block_shape=block, attributes={}
    )
    for piece in grid(volume.shape, block):
        created.write(piece.core, volume.read(piece.core))
    return path


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    labels = tangled(SHAPE)
    return store(tmp_path_factory.mktemp("boxes") / "labels.ome.zarr", labels, BLOCK), labels


@pytest.fixture(scope="module")
def expected(stored):
    found = find_objects(stored[1], FOREGROUND, min_size=50)
    assert found[0].superbox
    assert len(found) > 8
    # There must be something that needs joining: objects in more blocks than one.
    assert sum(any(lo // side != (hi - 1) // side for lo, hi, side in _spans(item)) for item in found) > 4
    return found


def _spans(item):
    return zip(item.box[:3], item.box[3:], BLOCK, strict=True)


def test_boxes_of_blocks_are_those_of_the_whole(stored, expected):
    seen = []
    found = find_boxes(
        open_labels(stored[0]),
        FOREGROUND,
        BLOCK,
        min_size=50,
        progress=lambda *event: seen.append(event),
    )
    assert found == expected
    assert seen[0] == ("boxes", 0, stored[1].size)
    assert seen[-1] == ("boxes", stored[1].size, stored[1].size)


def test_boxes_found_by_two_workers_are_the_same(stored, expected):
    labels = open_labels(str(stored[0]))
    assert find_boxes(labels, FOREGROUND, BLOCK, min_size=50, engine=EngineSpec("local", 2)) == expected


@settings(max_examples=15, deadline=None)
@given(st.tuples(st.integers(2, 9), st.integers(9, 70), st.integers(9, 80)), st.integers(1, 400))
def test_the_blocks_make_no_difference(stored, block, min_size):
    labels = stored[1]
    found = find_boxes(open_volume(labels), FOREGROUND, block, min_size=min_size)
    assert found == find_objects(labels, FOREGROUND, min_size=min_size)


def test_boxes_of_an_image_have_four_numbers(tmp_path):
    labels = tangled((90, 70), seed=1)
    path = store(tmp_path / "labels.ome.zarr", labels, (1, 32, 32))
    found = find_boxes(open_labels(path), FOREGROUND, (1, 32, 32), min_size=20)
    assert found == find_objects(labels, FOREGROUND, min_size=20)
    assert {len(item.box) for item in found} == {4}


def test_a_volume_of_one_plane_keeps_six():
    labels = tangled((1, 40, 50))
    found = find_boxes(open_volume(labels), FOREGROUND, (1, 20, 20), min_size=5)
    assert found == find_objects(labels, FOREGROUND, min_size=5)
    assert {len(item.box) for item in found} == {6}


@pytest.mark.parametrize("foreground", [(), (7,)])
def test_without_foreground_there_are_no_boxes(stored, foreground):
    assert find_boxes(open_labels(stored[0]), foreground, BLOCK) == ()


def test_a_block_that_cannot_be_read_is_no_boxes_at_all(tmp_path):
    path = store(tmp_path / "labels.ome.zarr", tangled(SHAPE), BLOCK)
    shard = Path(path) / "labels" / "hrvol" / "0" / "c" / "1" / "0" / "2"
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(BlockError, match=r"labels\.ome\.zarr: block \(1, 0, 2\): .*cannot read") as caught:
        find_boxes(open_labels(path), FOREGROUND, BLOCK)
    assert "\n" not in str(caught.value)


NAMES = {1: "foreground 1", 3: 'a "name", with all; that\nhurts ä'}


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_table_reads_back(tmp_path, ndim):
    labels = tangled((90, 70) if ndim == 2 else SHAPE)
    objects = find_objects(labels, FOREGROUND, min_size=30)
    write_boxes(tmp_path / "boxes.csv", objects, NAMES, ndim)
    with (tmp_path / "boxes.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    axes = ("y", "x") if ndim == 2 else ("z", "y", "x")
    corners = [f"{axis}{end}" for end in (0, 1) for axis in axes]
    assert list(rows[0]) == ["class", "name", "superbox", "size", *corners]
    again = tuple(
        Object(
            int(row["class"]),
            tuple(int(row[corner]) for corner in corners),
            int(row["size"]),
            row["superbox"] == "1",
        )
        for row in rows
    )
    assert again == objects
    assert [row["name"] for row in rows] == [NAMES.get(item.label, "all foreground") for item in objects]


@pytest.mark.parametrize(("ndim", "columns"), [(2, 8), (3, 10)])
def test_a_table_of_nothing_has_its_header(tmp_path, ndim, columns):
    write_boxes(tmp_path / "boxes.csv", [], {}, ndim)
    (line,) = (tmp_path / "boxes.csv").read_text().splitlines()
    assert len(line.split(",")) == columns
