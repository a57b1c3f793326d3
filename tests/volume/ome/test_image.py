"""Grey volumes come back from OME-Zarr as they were."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import yaozarrs
import zarr
from ome_zarr_models import open_ome_zarr

from hrvol.errors import OutputExistsError
from hrvol.volume import write_image as image
from hrvol.volume.volume import open_volume
from hrvol.volume.write_image import write_image


@pytest.mark.parametrize("shape", [(20, 70, 90), (70, 90)])
def test_copy_keeps_values_sizes_and_unit(tmp_path, monkeypatch, shape):
    monkeypatch.setattr(image, "BLOCK", (8, 32, 32))
    values = np.random.default_rng(0).integers(0, 60_000, shape).astype(np.uint16)
    volume = replace(open_volume(values), voxel_size=(2.0, 0.5, 0.5), unit="micrometer")
    copy = write_image(tmp_path / "v.ome.zarr", volume)
    np.testing.assert_array_equal(copy.read().reshape(shape), values)
    assert copy.dtype == np.uint16
    assert copy.voxel_size[-2:] == (0.5, 0.5)
    assert copy.unit == "micrometer"
    assert copy.ndim == len(shape)
    open_ome_zarr(zarr.open_group(tmp_path / "v.ome.zarr", mode="r"))
    with warnings.catch_warnings(action="error"):
        yaozarrs.validate_zarr_store(tmp_path / "v.ome.zarr")


def test_large_images_get_coarser_levels(tmp_path):
    values = np.tile(np.arange(600, dtype=np.float32), (600, 1))
    write_image(tmp_path / "v.ome.zarr", open_volume(values))
    with warnings.catch_warnings(action="error"):
        yaozarrs.validate_zarr_store(tmp_path / "v.ome.zarr")
    coarse = open_volume(tmp_path / "v.ome.zarr", level=1)
    assert coarse.shape == (1, 300, 300)
    assert coarse.read()[0, 0, 10] == pytest.approx(20.5)


def test_nothing_is_replaced_unasked(tmp_path):
    volume = open_volume(np.ones((4, 5), np.uint8))
    write_image(tmp_path / "v.ome.zarr", volume)
    with pytest.raises(OutputExistsError):
        write_image(tmp_path / "v.ome.zarr", volume)
    write_image(tmp_path / "v.ome.zarr", volume, overwrite=True)


def test_an_image_with_labels_that_were_drawn_in_it_is_not_replaced(tmp_path):
    volume = open_volume(np.ones((4, 5), np.uint8))
    write_image(tmp_path / "v.ome.zarr", volume)
    drawn = zarr.create_array(tmp_path / "v.ome.zarr/labels/mine/0", data=np.ones((4, 5), np.uint8))
    with pytest.raises(OutputExistsError, match="found labels, expected only what hrvol wrote there"):
        write_image(tmp_path / "v.ome.zarr", volume, overwrite=True)
    assert drawn[:].all()
