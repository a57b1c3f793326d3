"""Strokes as an array: indexed as NumPy does, and painted by napari."""

import os

import numpy as np
import pytest
from drawing_data import SHAPE, create, volume_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hrvol.classes import default_classes
from hrvol.errors import StrokesError
from hrvol.volume.drawing_store.store import DrawingStore
from hrvol.volume.grid.tiling import whole

CLASSES = default_classes([1, 2, 3])


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Strokes as an array, and an array with the same values."""
    dense = np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint8)
    dense[:, 40:70] = 0
    with create(tmp_path_factory.mktemp("array") / "strokes.ome.zarr", classes=CLASSES) as store:
        store.paint(whole(SHAPE), dense)
        yield store.array(), dense


KEYS = st.one_of(
    arrays.basic_indices(SHAPE, allow_newaxis=False),
    arrays.integer_array_indices(SHAPE, result_shape=arrays.array_shapes(max_dims=2, max_side=6)),
    st.tuples(
        st.integers(-7, 6),
        arrays.arrays(np.int64, 5, elements=st.integers(-96, 95)),
        st.one_of(arrays.arrays(np.int64, 5, elements=st.integers(-110, 109)), st.just(slice(3, 90, 4))),
    ),
    st.integers(0, 2**32).map(lambda seed: np.random.default_rng(seed).random(SHAPE) < 0.001),
    st.integers(0, 2**32).map(lambda seed: (3, np.random.default_rng(seed).random(SHAPE[1:]) < 0.01)),
)


@given(KEYS)
@settings(deadline=None, max_examples=150)
def test_reading_is_that_of_numpy(pair, key):
    array, dense = pair
    found = np.asarray(array[key])
    assert np.array_equal(found, dense[key])
    assert found.dtype == dense.dtype


@given(KEYS, st.one_of(st.integers(0, 3), st.just("values")))
@settings(deadline=None, max_examples=100)
def test_setting_is_that_of_numpy(pair, key, value):
    array, dense = pair
    if value == "values":
        value = np.random.default_rng(1).integers(0, 4, dense[key].shape)
    array[key] = value
    dense[key] = value
    assert np.array_equal(np.asarray(array), dense)


@pytest.mark.parametrize("key", [(0, 0, 0, 0), (7,), (0, -97), ([1, 200], 0, 0), (Ellipsis, Ellipsis), 1.5])
def test_indices_outside_are_errors(pair, key):
    array, dense = pair
    with pytest.raises(IndexError):
        dense[key]
    with pytest.raises(IndexError):
        array[key]
    with pytest.raises(IndexError):
        array[key] = 1


def test_values_that_are_no_classes_are_refused(pair):
    array, dense = pair
    for key, value in ((0, 256), (np.s_[0, ::2], -1), (([0], [0], [0]), 0.5), (np.s_[0, ::3], 0.5)):
        with pytest.raises(StrokesError):
            array[key] = value
    assert np.array_equal(np.asarray(array), dense)
    with pytest.raises(ValueError, match="broadcast"):
        array[0, :4, :5] = np.ones((2, 3), int)


def test_a_volume_of_10_12_voxels_is_never_read_as_a_whole(tmp_path):
    with DrawingStore.create(tmp_path / "s.ome.zarr", volume_of((10_000, 10_000, 10_000)), CLASSES) as store:
        array = store.array()
        assert array.size == 10**12
        array[5_000, 7_000:7_010, 6_000:6_010] = 2
        array[9_999, 9_999, 9_999] = 1
        assert np.count_nonzero(array[5_000]) == 100
        assert array[-1, -1, -1] == 1
        with pytest.raises(StrokesError, match="found a box of 1e\\+12 voxels"):
            np.asarray(array)
        with pytest.raises(StrokesError, match="found a box"):
            array[...] = 1


@pytest.fixture
def quiet_napari(tmp_path, monkeypatch):
    """napari without the user's settings, and without a screen."""
    pytest.importorskip("napari", reason="napari (the extra napari) is not installed")
    monkeypatch.setenv("NAPARI_CONFIG", str(tmp_path / "settings.yaml"))
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")


def draw_in(layer, store, z):
    """Paint, fill and undo as napari's tools do; after each, layer and store are the same."""
    dense = np.zeros(layer.data.shape, np.uint8)

    def same():
        plane = store.read((slice(z, z + 1), *(slice(0, n) for n in store.shape[1:])))[0]
        assert np.array_equal(plane, dense[z] if dense.ndim == 3 else dense)
        shown = layer._slice.image.raw
        assert np.array_equal(shown, plane)
        return plane

    at = (z,) if layer.ndim == 3 else ()
    layer.brush_size = 9
    layer.n_edit_dimensions = 2
    layer.paint((*at, 30, 40), 1)
    rows, columns = np.mgrid[0 : store.shape[1], 0 : store.shape[2]]
    dense[(*at, (rows - 30) ** 2 + (columns - 40) ** 2 <= 4.5**2)] = 1
    plane = same()
    assert 50 < np.count_nonzero(plane) < 80
    layer.data_setitem(tuple(np.array([v]) for v in (*at, 60, 60)), 2)
    dense[(*at, 60, 60)] = 2
    same()
    layer.fill((*at, 30, 40), 3)
    dense[dense == 1] = 3
    same()
    layer.undo()
    dense[dense == 3] = 1
    same()
    layer.undo()
    dense[(*at, 60, 60)] = 0
    same()
    layer.redo()
    dense[(*at, 60, 60)] = 2
    same()
    layer.paint((*at, 30, 40), 0)
    dense[dense == 1] = 0
    same()
    store.undo()
    layer.refresh()
    dense[(*at, (rows - 30) ** 2 + (columns - 40) ** 2 <= 4.5**2)] = 1
    same()


@pytest.mark.parametrize("shape", [SHAPE, SHAPE[1:]])
def test_a_labels_layer_of_napari_draws_in_the_store(tmp_path, quiet_napari, shape):
    from napari.components import ViewerModel

    with DrawingStore.create(tmp_path / "s.ome.zarr", volume_of(shape), CLASSES, chunks=(1, 32, 32)) as store:
        viewer = ViewerModel()
        layer = viewer.add_labels(store.array())
        z = 0
        if len(shape) == 3:
            z = 4
            viewer.dims.set_point(0, z)
        draw_in(layer, store, z)
        drawn = store.points()
    with DrawingStore.open(tmp_path / "s.ome.zarr") as again:
        assert np.array_equal(again.points().places, drawn.places)


def test_a_window_of_napari_draws_on_10_12_voxels(tmp_path, quiet_napari):
    pytest.importorskip("qtpy", reason="no Qt binding is installed")
    try:
        from qtpy import QtWidgets  # noqa: F401
    except ImportError:
        pytest.skip("no Qt binding is installed")
    import napari

    like = volume_of((10_000, 3_000, 3_000))
    with DrawingStore.create(tmp_path / "s.ome.zarr", like, CLASSES) as store:
        viewer = napari.Viewer(show=False)
        try:
            layer = viewer.add_labels(store.array())
            viewer.dims.set_point(0, 7_000)
            draw_in_window(layer, store)
        finally:
            viewer.close()


def draw_in_window(layer, store):
    layer.brush_size = 10
    layer.n_edit_dimensions = 2
    layer.paint((7_000, 1_500, 2_500), 2)
    assert {int(v) for v in np.unique(layer._slice.image.raw)} == {0, 2}
    places = store.points()
    assert len(places) > 60
    assert set(places.places[:, 0].tolist()) == {7_000}
    assert np.array_equal(np.argwhere(layer._slice.image.raw), places.places[:, 1:])
    layer.undo()
    assert len(store.points()) == 0
    layer.redo()
    assert len(store.points()) == len(places)


def test_a_damaged_chunk_is_reported_once_in_a_stroke(tmp_path):
    path = tmp_path / "strokes.ome.zarr"
    with create(path, classes=CLASSES) as store:
        store.paint(np.s_[2:3, 0:5, 0:5], 1)
    file = path / "0/c/2/0/0"
    state = file.stat()
    file.write_bytes(b"x" * state.st_size)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))  # so that it is not read before
    with DrawingStore.open(path) as store:
        array, version = store.array(), store.version
        for _ in range(2):
            with store.stroke():
                with pytest.raises(StrokesError, match=r"c/2/0/0: cannot read .* nothing can be drawn there"):
                    array[2, 3, 3] = 2
                array[2, 3, 4] = 2  # the brush moves on
                array[2, 3:5, 4:5] = 2
                array[3, 3, 4] = 2
            assert store.version == version + 1
        with pytest.raises(StrokesError):
            array[2, 3, 3] = 2
        with pytest.raises(StrokesError):
            array[2, 3, 3] = 2
