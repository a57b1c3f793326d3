"""Strokes of every origin are imported into those that are drawn, and these are exported."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from drawing_data import SHAPE, create, disc, volume_of
from strokes_data import write_project

from hrvol.classes import ClassInfo, default_classes
from hrvol.errors import OutputExistsError, StrokesError, UsageError
from hrvol.interactive.strokes import export_strokes, import_strokes
from hrvol.volume.drawing_store.store import DrawingStore
from hrvol.volume.grid.tiling import whole
from hrvol.volume.strokes.open_strokes import open_strokes
from hrvol.volume.strokes.painted import Painted
from hrvol.volume.strokes.source import StrokesSource
from hrvol.volume.strokes.strokes import Strokes
from hrvol.volume.volume import open_volume

ALL = whole(SHAPE)
CLASSES = default_classes([1, 2], ["pore", "solid"])


@pytest.fixture
def store(tmp_path):
    with create(tmp_path / "store.ome.zarr", classes=CLASSES) as opened:
        yield opened


@pytest.fixture(scope="module")
def drawn():
    labels = np.zeros(SHAPE, np.uint8)
    labels[disc((2, 30, 40))] = 1
    labels[disc((5, 60, 70))] = 2
    return labels


def names_of(store):
    return {info.value: info.name for info in store.classes}


def test_arrays_crops_projects_tables_and_rois_are_imported(tmp_path, drawn):
    tifffile.imwrite(tmp_path / "strokes.tif", drawn)
    write_project(tmp_path / "scan.ilp", [("scan", drawn)], names=("pore", "solid"))
    with open(tmp_path / "points.csv", "w", newline="") as file:
        rows = [(*place, ("pore", "solid")[drawn[tuple(place)] - 1]) for place in np.argwhere(drawn).tolist()]
        csv.writer(file).writerows([("z", "y", "x", "class"), *rows])
    sources = {
        "array": drawn,
        "tif": tmp_path / "strokes.tif",
        "crop": StrokesSource(drawn[1:, 20:, 30:], offset=(1, 20, 30)),
        "ilp": tmp_path / "scan.ilp",
        "csv": tmp_path / "points.csv",
    }
    roifile = pytest.importorskip("roifile")
    for z, y, x, name in ((2, 30, 40, "pore"), (5, 60, 70, "solid")):
        corners = np.array([[x - 2, y - 2], [x + 3, y - 2], [x + 3, y + 3], [x - 2, y + 3]])
        roi = roifile.ImagejRoi.frompoints(corners, name=name, position=z)
        roi.tofile(tmp_path / f"{name}.roi")
    for form, source in sources.items():
        with create(tmp_path / f"{form}.ome.zarr", classes=CLASSES) as store:
            assert import_strokes(store, source) == np.count_nonzero(drawn), form
            assert np.array_equal(store.read(ALL), drawn), form
            assert names_of(store) == {1: "pore", 2: "solid"}, form
            assert store.steps == (1, 0)
    with create(tmp_path / "rois.ome.zarr", classes=CLASSES) as store:
        assert import_strokes(store, tmp_path / "solid.roi") == 25
        assert np.count_nonzero(store.read(ALL)[5] == 2) == 25


def test_classes_are_those_of_the_same_name(store, drawn):
    infos = (ClassInfo(1, "solid", (1, 2, 3)), ClassInfo(2, "crack", (4, 5, 6)))
    places = np.argwhere(drawn)
    painted = Painted.of(places, drawn[tuple(places.T)])
    source = Strokes("others", SHAPE, painted=painted, classes=infos)
    import_strokes(store, source)
    assert names_of(store) == {1: "pore", 2: "solid", 3: "crack"}
    assert store.classes[2].colour == (4, 5, 6)
    assert store.classes[1].colour == CLASSES[1].colour
    expected = np.where(drawn == 1, 2, np.where(drawn == 2, 3, 0))
    assert np.array_equal(store.read(ALL), expected)
    store.undo()
    assert names_of(store) == {1: "pore", 2: "solid"}
    assert not store.read(ALL).any()


def test_conflicts_are_named_or_decided(store, drawn):
    store.paint(disc((2, 30, 41)), 2)
    before = store.read(ALL)
    with pytest.raises(StrokesError, match=r"found \d+ pixels of other classes than in .*: solid and 1"):
        import_strokes(store, drawn)
    assert np.array_equal(store.read(ALL), before)
    assert store.steps == (1, 0)
    import_strokes(store, drawn, conflicts="first")
    assert np.array_equal(store.read(ALL), np.where(before, before, drawn))
    store.undo()
    import_strokes(store, drawn, conflicts="last")
    assert np.array_equal(store.read(ALL), np.where(drawn, drawn, before))


def test_what_does_not_fit_is_refused_and_nothing_is_drawn(store, drawn):
    cases = [
        (np.zeros((9, 9, 9), np.uint8), "found strokes of shape"),
        (StrokesSource(drawn, offset=(0, 0, 9)), "found strokes at 9:119 along x"),
        (drawn.astype(np.uint16) * 300, "found values 300 to 300, expected 0 to 255"),
        (open_strokes(np.ones((9, 9, 9), np.uint8)), "found strokes on"),
    ]
    for source, message in cases:
        with pytest.raises(StrokesError, match=message):
            import_strokes(store, source)
    assert not store.read(ALL).any()


@pytest.mark.parametrize("suffix", ["ome.zarr", "tif", "csv"])
def test_what_is_exported_is_what_is_drawn(store, drawn, tmp_path, suffix):
    import_strokes(store, drawn)
    path = tmp_path / f"out.{suffix}"
    export_strokes(store, path)
    volume = open_volume(np.zeros(SHAPE, np.uint8))
    found = open_strokes(path, volume)
    assert np.array_equal(found.read(ALL), drawn)
    with pytest.raises(OutputExistsError):
        export_strokes(store, path)
    store.paint(disc((0, 10, 10)), 1)
    export_strokes(store, path, overwrite=True)
    assert np.array_equal(open_strokes(path, volume).read(ALL), store.read(ALL))
    if suffix == "ome.zarr":
        labels = open_volume(path)
        assert labels.voxel_size == (2.0, 0.5, 0.5)
        assert labels.translation == (10.0, 1.0, 2.0)
        assert {info.name for info in open_strokes(path).classes} == {"pore", "solid"}


def test_the_store_itself_is_no_export(store):
    for path in (store.source, f"{store.source}/inner.ome.zarr"):
        with pytest.raises(UsageError, match="store of the strokes"):
            export_strokes(store, path, overwrite=True)


def test_a_crop_in_ome_zarr_lies_where_its_translation_says(tmp_path, drawn):
    like = volume_of(SHAPE)
    with create(tmp_path / "whole.ome.zarr") as store:
        import_strokes(store, StrokesSource(drawn[1:, 20:, 30:], offset=(1, 20, 30)))
        size, start = like.voxel_size, like.translation
    crop = volume_of((6, 76, 80))
    first = tuple(t + s * n for t, s, n in zip(start, size, (1, 20, 30), strict=True))
    moved = replace(crop, translation=first)
    with DrawingStore.create(tmp_path / "crop.ome.zarr", moved, CLASSES) as other:
        other.paint(whole(other.shape), drawn[1:, 20:, 30:])
    with create(tmp_path / "target.ome.zarr") as store:
        import_strokes(store, tmp_path / "crop.ome.zarr")
        assert np.array_equal(store.read(ALL), drawn)
        assert names_of(store) == {1: "pore", 2: "solid"}
