"""Strokes that are drawn: any size, undo, classes, counts, and what other readers make of them."""

import shutil
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
import yaozarrs
import zarr
from drawing_data import CHUNK, SHAPE, create, disc, volume_of
from hypothesis import given, settings
from hypothesis import strategies as st
from ome_zarr_models.v05 import ImageLabel
from zarr.codecs import BloscCodec, BytesCodec, GzipCodec, ZstdCodec

from hrvol.classes import ClassInfo, default_classes
from hrvol.errors import BusyError, InputError, OutputExistsError, StrokesError, UnreadableError, UsageError
from hrvol.volume.drawing_store import change, chunks, edit
from hrvol.volume.drawing_store.as_strokes import strokes_of
from hrvol.volume.drawing_store.store import DrawingStore
from hrvol.volume.grid.tiling import whole
from hrvol.volume.strokes.merge import count_strokes, painted_of
from hrvol.volume.strokes.open_strokes import open_strokes, whole_strokes
from hrvol.volume.strokes.painted import Painted
from hrvol.volume.strokes.write import write_strokes
from hrvol.volume.volume import class_info, open_labels, open_volume

CLASSES = default_classes([1, 2], ["pore", "solid"])
ALL = whole(SHAPE)


@pytest.fixture
def store(tmp_path):
    with create(tmp_path / "strokes.ome.zarr", classes=CLASSES) as opened:
        yield opened


def check(store, dense):
    """Compare everything that a store answers with an array."""
    assert np.array_equal(store.read(whole(store.shape)), dense)
    expected = {
        int(v): {int(z): int((dense[z] == v).sum()) for z in np.flatnonzero((dense == v).any(axis=(1, 2)))}
        for v in np.unique(dense[dense > 0])
    }
    assert store.counts().planes == expected
    assert [info.value for info in store.counts().classes] == list(expected)
    assert {info.value for info in store.classes} >= set(expected)
    points = store.points()
    places = np.argwhere(dense)
    assert np.array_equal(points.places, places)
    assert np.array_equal(points.values, dense[tuple(places.T)])


def plain(path):
    """The values that any Zarr reader finds."""
    return zarr.open_array(path / "0", mode="r")[...]


def test_strokes_on_a_volume_of_10_12_voxels_cost_what_they_are(tmp_path):
    like = volume_of((10_000, 10_000, 10_000))
    path = tmp_path / "strokes.ome.zarr"
    rng = np.random.default_rng(0)
    with DrawingStore.create(path, like, CLASSES) as store:
        for number in range(20):
            store.paint(disc(rng.integers(50, 9_900, 3), 5), 1 + number % 2)
        drawn = store.points()
    files = [file for file in path.rglob("*") if file.is_file()]
    assert 20 <= sum("/c/" in str(file) for file in files) <= 80
    assert sum(file.stat().st_size for file in files) < 100_000
    start = time.perf_counter()
    with DrawingStore.open(path, like) as store:
        assert np.array_equal(store.points().places, drawn.places)
        assert sum(sum(of.values()) for of in store.counts().planes.values()) == len(drawn)
        assert time.perf_counter() - start < 5
    found = painted_of(open_strokes(path, like))
    assert np.array_equal(found.places, drawn.places)
    assert np.array_equal(found.values, drawn.values)


@pytest.mark.parametrize("shape", [(3, 70, 80), (1, 70, 80), (70, 80)])
@pytest.mark.parametrize("classes", [(), CLASSES])
def test_the_store_is_valid_ome_zarr_from_its_creation_on(tmp_path, shape, classes):
    path = tmp_path / "strokes.ome.zarr"
    with DrawingStore.create(path, volume_of(shape), classes) as store:
        for painted in (False, True):
            if painted:
                store.paint(np.s_[0:1, 3:9, 60:70], 5)
                store.flush()
            with warnings.catch_warnings(action="error"):
                group = zarr.open_group(path, mode="r")
                ImageLabel.from_zarr(group)
                yaozarrs.validate_zarr_store(path)
                assert [name for name, _ in group.members(max_depth=None)] == ["0"]
            labels = open_labels(path)
            assert labels.shape == ((1,) * (3 - len(shape))) + shape
            assert labels.voxel_size[-2:] == (0.5, 0.5)
            assert labels.unit == "micrometer"
            assert labels.ndim == len(shape)
    expected = (*classes, ClassInfo(5, "class 5", default_classes([5])[0].colour))
    assert class_info(path) == expected
    assert open_strokes(path, volume_of(shape)).read(np.s_[0:1, 3:4, 59:61]).tolist() == [[[0, 5]]]


VALUES = st.integers(0, 6)
SIDES = [st.tuples(*(st.integers(0, n - 1),) * 2).map(sorted) for n in SHAPE]
BOXES = st.tuples(*SIDES).map(lambda sides: tuple(slice(a, b + 1) for a, b in sides))
PAINTS = st.one_of(
    st.tuples(st.just("box"), BOXES, VALUES),
    st.tuples(st.just("array"), BOXES, st.integers(0, 2**32)),
    st.tuples(st.just("places"), st.integers(0, 2**32), st.integers(1, 60)),
)
EDITS = st.one_of(
    PAINTS,
    PAINTS,
    st.tuples(st.just("add"), st.sampled_from(["a", "b", "c"]), st.none()),
    st.tuples(st.just("rename"), VALUES, st.sampled_from(["a", "b", "d"])),
    st.tuples(st.just("recolour"), VALUES, st.tuples(*(st.integers(0, 255),) * 3)),
    st.tuples(st.just("merge"), VALUES, VALUES),
    st.tuples(st.just("delete"), VALUES, st.none()),
    st.tuples(st.just("undo"), st.none(), st.none()),
    st.tuples(st.just("redo"), st.none(), st.none()),
    st.tuples(st.just("flush"), st.none(), st.none()),
    st.tuples(st.just("reopen"), st.none(), st.none()),
)


def make(store, dense, edit):
    """Make an edit in a store and in an array; return the new array."""
    kind, one, two = edit
    dense = dense.copy()
    if kind == "box":
        store.paint(one, two)
        dense[one] = two
    elif kind == "array":
        values = np.random.default_rng(two).integers(0, 7, dense[one].shape)
        store.paint(one, values)
        dense[one] = values
    elif kind == "places":
        rng = np.random.default_rng(one)
        where = tuple(rng.integers(0, n, two) for n in SHAPE)
        values = rng.integers(0, 7, two)
        store.paint(where, values)
        dense[where] = values
    elif kind == "merge":
        store.merge_classes(one, two)
        dense[dense == one] = two
    elif kind == "delete":
        store.delete_class(one)
        dense[dense == one] = 0
    else:
        function = {"add": store.add_class, "rename": store.rename_class, "recolour": store.recolour_class}
        function[kind](one, two)
    return dense


@given(st.lists(EDITS, max_size=14))
@settings(deadline=None, max_examples=30)
def test_any_edits_are_those_of_an_array_and_undone_and_redone(tmp_path_factory, edits):
    path = tmp_path_factory.mktemp("edits") / "strokes.ome.zarr"
    store = create(path, classes=CLASSES)
    states, at = [(np.zeros(SHAPE, np.uint8), store.classes)], 0
    for one in edits:
        known = store.classes
        if one[0] in ("undo", "redo"):
            after = at + (1 if one[0] == "redo" else -1)
            done = (store.undo if one[0] == "undo" else store.redo)()
            assert (done is not None) == (0 <= after < len(states))
            at = min(max(after, 0), len(states) - 1)
        elif one[0] == "flush":
            store.flush()
            assert np.array_equal(plain(path), states[at][0])
        elif one[0] == "reopen":
            store.close()
            store = DrawingStore.open(path)
            states, at = [states[at]], 0
        else:
            version = store.version
            try:
                dense = make(store, states[at][0], one)
            except InputError:
                assert store.version == version
                assert store.classes == known
            else:
                if store.version > version:
                    states, at = [*states[: at + 1], (dense, store.classes)], at + 1
                assert np.array_equal(dense, states[at][0])
        check(store, states[at][0])
        assert store.classes == states[at][1]
        names = [info.name for info in store.classes]
        assert len(set(names)) == len(names)
    end = states[at]
    for dense, classes in reversed(states[:at]):
        store.undo()
        check(store, dense)
        assert store.classes == classes
    assert store.undo() is None
    for dense, classes in states[1 : at + 1]:
        store.redo()
        check(store, dense)
        assert store.classes == classes
    store.close()
    assert np.array_equal(plain(path), end[0])
    with DrawingStore.open(path) as again:
        check(again, end[0])
        assert again.classes == end[1]
    shutil.rmtree(path.parent)


def test_a_value_means_one_class_for_ever(store):
    assert store.add_class("crack") == 3
    store.delete_class(3)
    assert store.add_class("void") == 4
    store.paint(np.s_[0:1, 0:2, 0:2], 4)
    change = store.merge_classes(4, 1)
    assert (change.pixels, change.classes) == (4, True)
    assert [info.value for info in store.classes] == [1, 2]
    assert store.add_class("other") == 5
    assert store.add_class("imported", (1, 2, 3), 9) == 9
    path = store.source
    store.close()
    with DrawingStore.open(path) as again:
        assert again.add_class("last") == 10
        assert [info.value for info in again.classes] == [1, 2, 5, 9, 10]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda s: s.add_class("pore"), "found the name 'pore' of class 1, expected another name"),
        (lambda s: s.add_class("two\nlines"), "found the name"),
        (lambda s: s.add_class("red", (1, 2, 300)), "found colour"),
        (lambda s: s.rename_class(2, "pore"), "found the name 'pore' of class 1"),
        (lambda s: s.rename_class(7, "x"), "found no class 7, expected 1, 2"),
        (lambda s: s.merge_classes(1, 7), "found no class 7"),
        (lambda s: s.merge_classes(1, 1), "found class 1 twice"),
        (lambda s: s.delete_class(0), "found no class 0"),
        (lambda s: s.add_class("far", None, 300), "found class value 300, expected at most 255"),
        (lambda s: s.paint(np.s_[0:1, 0:1, 0:1], 256), "found values 256 to 256, expected 0 to 255"),
        (lambda s: s.paint(np.s_[0:1, 0:1, 0:1], -1), "found values -1 to -1"),
        (lambda s: s.paint(np.s_[0:1, 0:1, 0:1], 1.5), "found values of type float64"),
        (lambda s: s.paint(np.s_[0:1, 0:1, 0:1], [1, 2]), "found values of shape"),
        (lambda s: s.paint(np.s_[0:8, 0:1, 0:1], 1), "found z 0:8, expected a part of 0:7"),
        (lambda s: s.paint(([0], [96], [0]), 1), "found voxels"),
        (lambda s: s.paint(([0], [-1], [0]), 1), "found voxels"),
        (lambda s: s.read(np.s_[0:1, 0:1, 5:200]), "found x 5:200"),
    ],
)
def test_errors_are_one_line_and_change_nothing(store, act, message):
    with pytest.raises(InputError) as caught:
        act(store)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (store.version, store.classes, store.steps) == (0, CLASSES, (0, 0))


def test_a_stroke_of_many_parts_is_one_step(store):
    with store.stroke():
        for column in range(10, 60, 5):
            store.paint(disc((2, 20, column)), 1)
        store.add_class("more")
        with store.stroke():
            store.paint(disc((3, 20, 20)), 3)
    store.paint(disc((4, 20, 20)), 2)
    assert store.steps == (2, 0)
    before = store.read(ALL)
    store.undo()
    assert store.undo().boxes
    assert not store.read(ALL).any()
    assert store.classes == CLASSES
    store.redo()
    store.redo()
    assert np.array_equal(store.read(ALL), before)


def test_what_changed_since_a_version_is_known(store, monkeypatch):
    store.paint(disc((2, 20, 20)), 1)
    version = store.version
    assert store.changed_since(version) == ()
    store.paint(disc((5, 60, 60)), 1)
    store.rename_class(1, "hole")
    boxes = store.changed_since(version)
    assert boxes
    assert all(b[0] == slice(5, 6) for b in boxes)
    rows = [b[1] for b in boxes]
    assert (min(s.start for s in rows), max(s.stop for s in rows)) == (57, 64)
    assert store.changed_since(version + 1) == ()
    monkeypatch.setattr(change, "MOST_BOXES", 1)
    assert len(store.changed_since(0)) == 1
    monkeypatch.setattr(store._log, "_changes", type(store._log._changes)(store._log._changes, maxlen=1))
    assert store.changed_since(0) == (ALL,)


def test_nothing_is_read_and_drawn_of_empty_boxes_and_lists(store):
    store.paint(disc((2, 20, 20)), 1)
    assert store.read(np.s_[2:2, 5:5, 3:40]).shape == (0, 0, 37)
    for where in (np.s_[2:3, 20:20, 3:40], ([], [], [])):
        assert store.paint(where, 2).pixels == 0
    assert store.version == 1
    assert len(store.points([])) == 0
    assert len(store.points([1, 6])) == 0
    assert len(store.points([6, 2, 2])) == len(store.points())


def test_listeners_hear_each_change_and_their_errors_do_no_harm(store):
    heard = []
    stop = store.subscribe(heard.append)
    store.subscribe(lambda change: 1 / 0)
    store.paint(disc((2, 20, 20)), 1)
    store.paint(disc((2, 20, 20)), 1)  # nothing new
    store.rename_class(1, "hole")
    store.undo()
    stop()
    store.undo()
    assert [(one.kind, one.version, one.classes) for one in heard] == [
        ("paint", 1, False),
        ("classes", 2, True),
        ("undo", 3, True),
    ]
    assert heard[0].pixels == len(disc((0, 0, 0))[0])
    assert store.version == 4


def test_history_and_memory_are_bounded_and_nothing_drawn_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "MEMORY", 0)  # 8 chunks are kept
    monkeypatch.setattr(chunks, "_POINTS", 1000)
    path = tmp_path / "strokes.ome.zarr"
    with create(path, classes=CLASSES) as store:
        store._history = edit.History(limit=3000)
        dense = np.zeros(SHAPE, np.uint8)
        for number in range(60):
            where = disc((number % 7, 10 + number, 10 + (number * 37) % 90))
            store.paint(where, 1 + number % 2)
            dense[where] = 1 + number % 2
            if number % 20 == 7:
                store.flush()
        check(store, dense)
        assert 1 <= store.steps[0] < 12
        store.delete_class(1)
        dense[dense == 1] = 0
        check(store, dense)
    assert np.array_equal(plain(path), dense)


def test_threads_draw_read_and_save_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("hrvol.volume.drawing_store.keeper.SAVE", 0.01)
    monkeypatch.setattr(chunks, "MEMORY", 0)
    path = tmp_path / "strokes.ome.zarr"
    wrong = []
    with create(path, classes=CLASSES) as store:
        ends = threading.Event()

        def draw(z):
            for column in range(5, 100, 3):
                store.paint(disc((z, 40 + z, column)), 1 + z % 2)

        def read():
            while not ends.is_set():
                points = store.points([1, 2])
                if not np.isin(points.places[:, 0], [1, 2]).all() or not (points.values > 0).all():
                    wrong.append(points)
                store.counts()

        threads = [threading.Thread(target=draw, args=(z,)) for z in range(4)]
        readers = [threading.Thread(target=read) for _ in range(2)]
        for thread in (*threads, *readers):
            thread.start()
        for thread in threads:
            thread.join()
        ends.set()
        for thread in readers:
            thread.join()
        dense = np.zeros(SHAPE, np.uint8)
        for z in range(4):
            for column in range(5, 100, 3):
                dense[disc((z, 40 + z, column))] = 1 + z % 2
        check(store, dense)
        assert store.version == 4 * len(range(5, 100, 3))
    assert not wrong
    assert np.array_equal(plain(path), dense)


def test_strokes_that_are_not_closed_are_saved_at_the_end_of_a_program(tmp_path):
    with create(tmp_path / "strokes.ome.zarr", classes=CLASSES):
        pass
    program = f"""
from hrvol.volume.drawing_store.store import DrawingStore
store = DrawingStore.open({str(tmp_path / "strokes.ome.zarr")!r})
store.paint((slice(1, 2), slice(3, 5), slice(7, 9)), 2)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    assert np.count_nonzero(plain(tmp_path / "strokes.ome.zarr")) == 4


def test_erased_chunks_have_no_files(store, tmp_path):
    store.paint(ALL, 1)
    store.flush()
    stored = sum(1 for _ in (tmp_path / "strokes.ome.zarr/0/c").rglob("*") if _.is_file())
    assert stored == 7 * 3 * 4
    store.paint(ALL, 0)
    store.flush()
    assert not any(file.is_file() for file in (tmp_path / "strokes.ome.zarr/0/c").rglob("*"))
    assert store.boxes() == ()


def test_strokes_that_hrvol_strokes_wrote_are_drawn_on(tmp_path):
    from hrvol.volume.strokes.strokes import Strokes
    from hrvol.volume.strokes.write import write_strokes

    path = tmp_path / "strokes.ome.zarr"
    where = np.stack(disc((2, 30, 40)), axis=1)
    painted = Painted.of(where, np.full(len(where), 2))
    write_strokes(Strokes("s", SHAPE, painted=painted, classes=CLASSES), path, volume_of(SHAPE))
    with DrawingStore.open(path, volume_of(SHAPE)) as store:
        assert [info.name for info in store.classes] == ["solid"]  # those that are drawn
        store.paint(disc((2, 30, 44)), 1)
        assert len(store.points()) > len(painted)
        expected = store.read(ALL)
    assert np.array_equal(plain(path), expected)


@pytest.mark.parametrize("compressor", [None, "zstd", "blosc", "gzip"])
@pytest.mark.parametrize("separator", ["/", "."])
@pytest.mark.parametrize("dtype", ["uint8", ">u2"])
def test_labels_of_any_encoding_are_drawn_on(tmp_path, compressor, separator, dtype):
    codecs = {"zstd": ZstdCodec(level=3, checksum=True), "blosc": BloscCodec(), "gzip": GzipCodec()}
    path = tmp_path / "strokes.ome.zarr"
    with create(path, classes=CLASSES):
        pass
    shutil.rmtree(path / "0")
    dense = np.zeros(SHAPE, np.uint16)
    dense[disc((2, 30, 40))] = 2
    array = zarr.open_group(path).create_array(
        "0",
        shape=SHAPE,
        dtype=np.dtype(dtype).newbyteorder("="),
        serializer=BytesCodec(endian="big" if dtype == ">u2" else None),
        chunks=(2, 33, 40),
        compressors=codecs.get(compressor),
        fill_value=0,
        chunk_key_encoding={"name": "default", "separator": separator},
        dimension_names=list("zyx"),
    )
    array[...] = dense
    with DrawingStore.open(path) as store:
        check(store, dense)
        store.paint(disc((6, 92, 106)), 1)
        store.paint(disc((2, 30, 40)), 0)
        expected = store.read(ALL)
    assert np.array_equal(plain(path), expected)
    with DrawingStore.open(path) as store:
        check(store, expected)


def test_a_damaged_chunk_is_named_in_one_line(tmp_path):
    path = tmp_path / "strokes.ome.zarr"
    with create(path, classes=CLASSES) as store:
        store.paint(disc((2, 20, 20)), 1)
    file = path / "0/c/2/0/0"
    data = file.read_bytes()
    for damage in (b"", data[:-3], data[:9] + b"\xff" + data[10:], b"x" * 10**6):
        file.write_bytes(damage)
        with pytest.raises(UnreadableError, match="c/2/0/0: cannot read a chunk of strokes") as caught:
            DrawingStore.open(path)
        assert "\n" not in str(caught.value)
    file.write_bytes(data)
    with DrawingStore.open(path) as store:
        assert len(store.points()) == len(disc((0, 0, 0))[0])


def test_counts_are_not_believed_after_others_wrote(tmp_path):
    path = tmp_path / "strokes.ome.zarr"
    with create(path, classes=CLASSES) as store:
        store.paint(disc((2, 20, 20)), 1)
        store.paint(disc((3, 20, 20)), 1)
    array = zarr.open_array(path / "0", mode="r+")
    array[2, 10:12, 10:12] = 2
    for damage in (False, True):
        if damage:
            (path / "0/.drawing/counts.npy").write_bytes(b"\x93NUMPY\1\0damaged")
        with DrawingStore.open(path) as store:
            check(store, array[...])


def test_unsaved_strokes_are_strokes_for_export(store):
    store.paint(disc((2, 20, 20)), 1)
    store.paint(disc((6, 90, 100)), 2)
    strokes = strokes_of(store)
    assert count_strokes(strokes).to_dict() == store.counts().to_dict()
    assert np.array_equal(strokes.read(ALL), store.read(ALL))
    assert strokes.voxels < 10 * np.prod(CHUNK)


def test_what_is_no_store_is_refused_in_one_line(tmp_path):
    like = volume_of(SHAPE)
    with create(tmp_path / "strokes.ome.zarr"):
        pass
    zarr.create_array(tmp_path / "plain.zarr", data=np.zeros(SHAPE, np.uint8))
    (tmp_path / "file.ome.zarr").write_text("text")
    cases = {
        "plain.zarr": "found no strokes",
        "file.ome.zarr": "found no strokes",
        "missing.ome.zarr": "found no strokes",
    }
    for name, message in cases.items():
        with pytest.raises(InputError, match=message):
            DrawingStore.open(tmp_path / name)
    with pytest.raises(StrokesError, match=r"found strokes of shape \(7, 96, 110\), expected \(7, 96, 111\)"):
        DrawingStore.open(tmp_path / "strokes.ome.zarr", volume_of((7, 96, 111)))
    for name in ("strokes.ome.zarr", "plain.zarr", "file.ome.zarr"):
        with pytest.raises(OutputExistsError):
            DrawingStore.create(tmp_path / name, like)
    with pytest.raises(UsageError, match="found no local folder"):
        DrawingStore.create("s3://bucket/strokes.ome.zarr", like)
    inside = open_volume(str(tmp_path / "plain.zarr"))
    with pytest.raises(UsageError, match="is inside"):
        DrawingStore.create(tmp_path / "plain.zarr" / "strokes.ome.zarr", inside)
    with pytest.raises(UsageError, match="found the type float32"):
        DrawingStore.create(tmp_path / "new.ome.zarr", like, dtype="float32")
    with pytest.raises(StrokesError, match="found class value 300, expected at most 255"):
        DrawingStore.create(tmp_path / "new.ome.zarr", like, default_classes([300]))
    assert not (tmp_path / "new.ome.zarr").exists()
    with DrawingStore.create(tmp_path / "new.ome.zarr", like, default_classes([300]), dtype="uint16") as wide:
        wide.paint(np.s_[0:1, 0:1, 0:1], 300)
    assert plain(tmp_path / "new.ome.zarr").max() == 300


def test_no_output_replaces_drawn_strokes(tmp_path):
    from hrvol.volume.strokes.write import check_target

    with create(tmp_path / "strokes.ome.zarr") as store:
        store.paint(disc((2, 20, 20)), 1)
    with pytest.raises(OutputExistsError, match="found strokes that were drawn here"):
        check_target(tmp_path / "strokes.ome.zarr", overwrite=True)


def written(path):
    """Write strokes as ``hrvol strokes`` does; return them."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[0, :4], labels[1, :4] = 1, 2
    strokes = whole_strokes(open_volume(labels))
    write_strokes(strokes, path, volume_of(SHAPE), overwrite=True)
    return strokes


def test_strokes_that_are_drawn_are_not_overwritten(tmp_path, monkeypatch):
    monkeypatch.setattr("hrvol.volume.drawing_store.keeper.SAVE", 60)
    path = tmp_path / "strokes.ome.zarr"
    strokes = written(path)
    with DrawingStore.open(path):
        pass
    written(path)  # nothing was drawn
    with DrawingStore.open(path) as store:
        with pytest.raises(BusyError, match=r"process [0-9]+ on .* draws in it; it is not overwritten"):
            write_strokes(strokes, path, overwrite=True)
        store.paint(disc((4, 20, 20)), 2)
        store._keeper._journal.sync()
        killed = tmp_path / "killed.ome.zarr"
        shutil.copytree(path, killed)
    with pytest.raises(OutputExistsError, match="found strokes that are drawn and not stored yet"):
        write_strokes(strokes, killed, overwrite=True)
    for place in (path, killed):
        DrawingStore.open(place).close()
        with pytest.raises(OutputExistsError, match="found strokes that were drawn here"):
            write_strokes(strokes, place, overwrite=True)
        assert plain(place)[4, 20, 20] == 2


def test_what_is_drawn_while_a_store_is_closed_is_saved_or_refused(tmp_path):
    path = tmp_path / "strokes.ome.zarr"
    store = create(path, classes=CLASSES)
    flush, late = store._keeper.flush, []

    def flushed():
        flush()
        if not late:
            late.append(store.paint(disc((2, 20, 20)), 1))

    store._keeper.flush = flushed
    store.close()
    with pytest.raises(StrokesError, match="is closed"):
        store.paint(disc((3, 20, 20)), 1)
    with DrawingStore.open(path) as again:
        assert again.counts().planes == {1: {2: late[0].pixels}}
