"""Coarser levels added to an image: on every engine, in both formats, gone on with."""

import numpy as np
import pytest
import zarr
from test_resume import After

from hrvol.errors import InputError, StoppedError
from hrvol.run.pyramid.build_pyramid import build_pyramid
from hrvol.volume.ome.metadata import ome_attributes
from hrvol.volume.ome.pyramid import mean_reduce
from hrvol.volume.volume import open_volume

PARTS = (16, 64, 64)


def make_image(path, zarr_format=3):
    values = np.random.default_rng(0).integers(0, 255, (40, 150, 300), np.uint8)
    group = zarr.create_group(path, zarr_format=zarr_format)
    more = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if zarr_format == 2 else {}
    group.create_array("0", data=values, chunks=(16, 64, 64), **more)
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    scale = [{"type": "scale", "scale": [2.0, 2.0, 2.0]}]
    entry = {"name": "scan", "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    if zarr_format == 3:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [entry], "omero": {"channels": []}}
    else:
        group.attrs["multiscales"] = [{**entry, "version": "0.4"}]
    return values


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_levels_are_means_of_the_finer_ones(tmp_path, zarr_format):
    path = tmp_path / "image.ome.zarr"
    values = make_image(path, zarr_format)
    assert build_pyramid(path, block_shape=PARTS) == 2
    coarse = open_volume(path, level=1)
    np.testing.assert_array_equal(coarse.read(), mean_reduce(values, (2, 2, 2)))
    assert coarse.voxel_size == (4.0, 4.0, 4.0)
    assert coarse.translation == (1.0, 1.0, 1.0)
    np.testing.assert_array_equal(open_volume(path).read(), values)
    said = zarr.open_group(path, mode="r").attrs.asdict()
    assert ome_attributes(said)["multiscales"][0]["name"] == "scan"
    assert ("omero" in ome_attributes(said)) == (zarr_format == 3)
    assert sorted(zarr.open_group(path, mode="r").keys()) == ["0", "1"]
    assert build_pyramid(path) == 2  # nothing to do


def test_a_stopped_pyramid_is_gone_on_with(tmp_path):
    path, whole = tmp_path / "image.ome.zarr", tmp_path / "whole.ome.zarr"
    make_image(path)
    make_image(whole)
    build_pyramid(whole, block_shape=PARTS)
    with pytest.raises(StoppedError):
        build_pyramid(path, block_shape=PARTS, stop=After(3))
    assert open_volume(path).shape == (40, 150, 300)
    with pytest.raises(InputError, match="found 1 level, "):
        open_volume(path, level=1)
    seen = []
    build_pyramid(
        path, block_shape=PARTS, engine="local", workers=2, progress=lambda *event: seen.append(event)
    )
    assert seen[0][1] == 4 * 16 * 64 * 64  # three were made before
    np.testing.assert_array_equal(open_volume(path, level=1).read(), open_volume(whole, level=1).read())


def test_what_is_no_image_is_refused(tmp_path):
    zarr.save_array(tmp_path / "array.zarr", np.zeros((4, 300, 300), np.uint8))
    zarr.create_group(tmp_path / "group.zarr")
    for name in ("array.zarr", "group.zarr", "nothing"):
        with pytest.raises(InputError, match=f"{name}: found no .*expected an OME-Zarr image"):
            build_pyramid(tmp_path / name)
        assert not (tmp_path / "nothing").exists()
