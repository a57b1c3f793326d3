"""Label outputs: valid OME-Zarr 0.5, one shard per block, no block lost with several writers."""

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import zarr
from ome_zarr_models.v05 import Image, ImageLabel, Labels

from hrvol.classes import default_classes
from hrvol.errors import InputError, OutputExistsError
from hrvol.recipe.specs import TileSpec
from hrvol.volume.grid.tiling import block_shape, blocks, whole
from hrvol.volume.ome.feature_array import create_features
from hrvol.volume.ome.labels import LabelOutputs, create_labels, open_label_store
from hrvol.volume.volume import Volume, class_info, open_labels, open_volume

TILES = TileSpec(core=64, overlap=8, planes=4)
CLASSES = default_classes([1, 2, 3], ["pore", "binder", "crack"])


def volume_of(shape, voxel_size=(2.0, 0.5, 0.5), translation=(0.0, 0.0, 0.0)) -> Volume:
    values = np.zeros(shape, np.uint8)
    opened = open_volume(values)
    return Volume("v", values, opened.axes, voxel_size, "micrometer", opened.ndim, "v", translation)


def create(path, volume, **more):
    side = block_shape(volume.shape, TILES)
    return create_labels(
        path, volume, classes=CLASSES, block_shape=side, attributes={"recipe": {"a": 1}}, **more
    )


def truth_of(shape):
    z, y, x = np.indices(shape)
    return ((z // 3 + y // 40 + x // 50) % 3 + 1).astype(np.uint8)


def write_block(task):
    store, block, values = task
    store.write(block.core, values, np.repeat(values[None], 3, axis=0) * 10, None)


@pytest.mark.parametrize("shape", [(10, 150, 200), (1, 150, 200), (12, 30, 40), (150, 200), (5, 7)])
@pytest.mark.parametrize("more", [False, True])
def test_output_is_valid_and_holds_what_was_written(tmp_path, shape, more):
    volume = volume_of(shape)
    truth = truth_of(volume.shape)
    store = create(
        tmp_path / "o.ome.zarr", volume, outputs=LabelOutputs(probabilities=more, uncertainty=more)
    )
    for block in blocks(volume.shape, TILES):
        values = truth[block.core]
        probabilities = np.stack([values, values + 50, values + 100]) if more else None
        store.write(block.core, values, probabilities, values + 7 if more else None)
    store.finish()

    root = zarr.open_group(tmp_path / "o.ome.zarr", mode="r")
    assert root.metadata.zarr_format == 3
    Image.from_zarr(root)
    Labels.from_zarr(root["labels"])
    assert ImageLabel.from_zarr(root["labels/hrvol"]).attributes.ome.image_label is not None
    labels = open_labels(tmp_path / "o.ome.zarr")
    np.testing.assert_array_equal(labels.read(), truth)
    assert (labels.ndim, labels.unit) == (len(shape), "micrometer")
    assert labels.voxel_size[-len(shape) :] == (2.0, 0.5, 0.5)[-len(shape) :]
    assert class_info(tmp_path / "o.ome.zarr") == CLASSES
    # The root opens by itself, as the labels, without a second copy.
    np.testing.assert_array_equal(open_volume(tmp_path / "o.ome.zarr").read(), truth)
    assert not list(root.arrays())
    if more:
        Image.from_zarr(root["probabilities"])
        Image.from_zarr(root["uncertainty"])
        assert root["probabilities/0"].chunks[0] == 1  # a viewer reads a class without the others
        stored = np.asarray(root["probabilities/0"]).reshape((3, *volume.shape))
        np.testing.assert_array_equal(stored, np.stack([truth, truth + 50, truth + 100]))
        np.testing.assert_array_equal(open_volume(tmp_path / "o.ome.zarr" / "uncertainty").read(), truth + 7)


@pytest.mark.parametrize("shape", [(10, 150, 200), (1, 150, 200), (70, 60, 200), (150, 200)])
def test_one_shard_file_per_block(tmp_path, shape):
    volume = volume_of(shape)
    store = create(tmp_path / "o.ome.zarr", volume, outputs=LabelOutputs(probabilities=True))
    everything = blocks(volume.shape, TILES)
    for done, block in enumerate(everything, start=1):
        store.write(block.core, np.ones(block.shape, np.uint8), np.ones((3, *block.shape), np.uint8))
        for name in ("labels/hrvol/0", "probabilities/0"):
            files = [p for p in (tmp_path / "o.ome.zarr" / name / "c").rglob("*") if p.is_file()]
            assert len(files) == done
    spatial = len(shape)
    wanted = tmp_path.joinpath("o.ome.zarr/labels/hrvol/0/c", *map(str, everything[-1].index[-spatial:]))
    assert wanted.is_file()


def test_writers_in_other_processes(tmp_path):
    volume = volume_of((10, 150, 200))
    truth = truth_of(volume.shape)
    store = create(tmp_path / "o.ome.zarr", volume, outputs=LabelOutputs(probabilities=True))
    assert len(pickle.dumps(store)) < 300
    tasks = [(store, block, truth[block.core]) for block in blocks(volume.shape, TILES)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        list(pool.map(write_block, tasks))
    np.testing.assert_array_equal(open_labels(tmp_path / "o.ome.zarr").read(), truth)
    assert np.asarray(zarr.open_array(tmp_path / "o.ome.zarr/probabilities/0")).max() == 30


def test_half_written_output_is_recognised_and_can_go_on(tmp_path):
    volume = volume_of((10, 150, 200))
    store = create(tmp_path / "o.ome.zarr", volume)
    first, *rest = blocks(volume.shape, TILES)
    store.write(first.core, np.ones(first.shape, np.uint8))
    again = open_label_store(tmp_path / "o.ome.zarr")
    assert not again.complete
    assert again.classes == CLASSES
    assert again.block_shape == block_shape(volume.shape, TILES)
    for block in rest:
        again.write(block.core, np.full(block.shape, 2, np.uint8))
    again.finish()
    again.finish()
    again.update({"seconds": 3})
    assert again.complete
    assert again.attributes["recipe"] == {"a": 1}
    assert again.attributes["seconds"] == 3
    labels = open_labels(tmp_path / "o.ome.zarr").read()
    assert (labels[first.core] == 1).all()
    assert (labels == 2).sum() == labels.size - np.prod(first.shape)
    with pytest.raises(InputError, match="found no labels 'other' that hrvol wrote"):
        open_label_store(tmp_path / "o.ome.zarr", "other")
    with pytest.raises(InputError, match="found no labels 'hrvol'"):
        open_label_store(tmp_path / "nothing.zarr")


def test_unwritten_voxels_are_zero_and_parts_of_blocks_can_be_written(tmp_path):
    volume = volume_of((10, 150, 200))
    store = create(tmp_path / "o.ome.zarr", volume)
    part = (slice(2, 3), slice(10, 50), slice(70, 75))
    store.write(part, np.full((1, 40, 5), 3, np.uint8))
    expected = np.zeros(volume.shape, np.uint8)
    expected[part] = 3
    np.testing.assert_array_equal(open_labels(tmp_path / "o.ome.zarr").read(), expected)


def test_nothing_is_overwritten_unasked(tmp_path):
    volume = volume_of((4, 70, 70))
    store = create(tmp_path / "o.ome.zarr", volume)
    store.write(whole(volume.shape), np.ones(volume.shape, np.uint8))
    with pytest.raises(OutputExistsError, match=r"o\.ome\.zarr: exists already"):
        create(tmp_path / "o.ome.zarr", volume)
    assert open_labels(tmp_path / "o.ome.zarr").read().all()
    create(tmp_path / "o.ome.zarr", volume, overwrite=True)
    assert not open_labels(tmp_path / "o.ome.zarr").read().any()


def test_a_volume_is_never_overwritten_by_an_output(tmp_path):
    path = tmp_path / "beamtime.zarr"
    zarr.create_array(str(path), shape=(4, 5), dtype="u1")[:] = 7
    with pytest.raises(OutputExistsError, match="found Zarr that hrvol did not write"):
        create(path, volume_of((4, 5)), overwrite=True)
    assert (zarr.open_array(str(path))[:] == 7).all()


def test_what_is_not_zarr_is_never_deleted(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    with pytest.raises(OutputExistsError, match="found no Zarr, expected an earlier output"):
        create(tmp_path / "thesis", volume_of((4, 5)), overwrite=True)
    assert (tmp_path / "thesis" / "chapter1.tex").exists()


def test_discard(tmp_path):
    create(tmp_path / "o.ome.zarr", volume_of((4, 5))).discard()
    assert not (tmp_path / "o.ome.zarr").exists()


def test_values_that_do_not_fit(tmp_path):
    store = create(tmp_path / "o.ome.zarr", volume_of((4, 70, 70)))
    box = whole((4, 70, 70))
    with pytest.raises(ValueError, match="shape"):
        store.write(box, np.ones((4, 70, 71), np.uint8))
    with pytest.raises(ValueError, match="type"):
        store.write(box, np.ones((4, 70, 70), np.float32))
    with pytest.raises(ValueError, match="found no uncertainty"):
        store.write(box, np.ones((4, 70, 70), np.uint8), None, np.ones((4, 70, 70), np.uint8))


def test_many_classes_need_uint16(tmp_path):
    classes = default_classes([1, 300])
    store = create_labels(
        tmp_path / "o.ome.zarr", volume_of((4, 5)), classes=classes, block_shape=(1, 4, 5), attributes={}
    )
    assert store.dtype == np.uint16
    store.write(whole((1, 4, 5)), np.full((1, 4, 5), 300, np.uint16))
    assert (open_labels(tmp_path / "o.ome.zarr").read() == 300).all()


def test_coarser_levels_stay_where_the_source_was(tmp_path):
    volume = volume_of((4, 300, 600), voxel_size=(2.0, 0.5, 0.5), translation=(7.0, 1.0, 0.0))
    store = create_labels(
        tmp_path / "o.ome.zarr", volume, classes=CLASSES, block_shape=(4, 128, 128), attributes={}
    )
    store.write(whole(volume.shape), truth_of(volume.shape))
    store.finish()
    Labels.from_zarr(zarr.open_group(tmp_path / "o.ome.zarr/labels", mode="r"))
    levels = [open_volume(tmp_path / "o.ome.zarr", level=i) for i in range(3)]
    assert [v.shape for v in levels] == [(4, 300, 600), (4, 150, 300), (4, 75, 150)]
    assert [v.voxel_size for v in levels] == [(2.0, 0.5, 0.5), (2.0, 1.0, 1.0), (2.0, 2.0, 2.0)]
    assert [v.translation for v in levels] == [(7.0, 1.0, 0.0), (7.0, 1.25, 0.25), (7.0, 1.75, 0.75)]


@pytest.mark.parametrize("shape", [(20, 6, 70, 80), (20, 70, 80)])
def test_features(tmp_path, shape):
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    names = [f"c{i}" for i in range(20)]
    store = create_features(
        tmp_path / "f.zarr", shape, names, (1.0, 2.0, 2.0), "nanometer", {"recipe": {}}, (4, 64, 64)
    )
    store = pickle.loads(pickle.dumps(store))
    solid = values if values.ndim == 4 else values[:, None]
    for block in blocks(solid.shape[1:], TILES):
        store.write(block.core, solid[(slice(None), *block.core)])
    store.finish()
    array = zarr.open(tmp_path / "f.zarr", mode="r")
    assert isinstance(array, zarr.Array)
    np.testing.assert_array_equal(array[:], values)
    assert array.attrs["channels"] == names
    assert array.attrs["hrvol"]["complete"]
    with pytest.raises(OutputExistsError):
        create_features(tmp_path / "f.zarr", shape, names, (1.0, 1.0, 1.0), None, {}, (4, 64, 64))
