"""What the classes of an output fill, by the counts that its blocks recorded."""

from dataclasses import replace

import numpy as np
import pytest

import hrvol
from hrvol.errors import InputError
from hrvol.run.class_volumes import class_volumes
from hrvol.volume.volume import open_labels, open_volume
from hrvol.volume.write_image import write_image


@pytest.fixture(scope="module")
def volume(data):
    image, _, _ = data
    return replace(open_volume(image), voxel_size=(50.0, 4.0, 4.0), unit="nanometer")


def segment(folder, volume, model, **options):
    write_image(folder / "volume.ome.zarr", volume)
    hrvol.save_model(model, folder / "model.hrvol")
    out = folder / "labels.ome.zarr"
    hrvol.segment_volume(folder / "volume.ome.zarr", out, folder / "model.hrvol", engine="serial", **options)
    return out


def check(found, labels):
    """Compare with the labels themselves."""
    counts = np.bincount(labels.ravel(), minlength=3)
    assert [one.voxels for one in found.classes] == counts[1:].tolist()
    assert found.voxels == counts[1:].sum()
    assert [one.info.name for one in found.classes] == ["matrix", "disc"]
    np.testing.assert_allclose([one.fraction for one in found.classes], counts[1:] / counts[1:].sum())


def test_classes_of_a_region_are_measured_in_a_readable_unit(tmp_path, volume, model):
    _, height, width = volume.shape
    roi = (slice(1, 3), slice(0, height), slice(10, width))
    out = segment(tmp_path, volume, model, roi=roi)
    labels = open_labels(out).read()
    assert (labels == 0).any()
    found = class_volumes(out)
    check(found, labels)
    assert (found.unit, found.ndim) == ("nanometer", 3)
    np.testing.assert_allclose(
        [one.volume for one in found.classes], [one.voxels * 800.0 for one in found.classes]
    )


def test_large_volumes_are_given_in_larger_units(tmp_path, volume, model):
    out = segment(tmp_path, replace(volume, voxel_size=(500.0, 400.0, 400.0)), model)
    found = class_volumes(out)
    check(found, open_labels(out).read())
    assert found.unit == "micrometer"
    np.testing.assert_allclose(
        [one.volume for one in found.classes], [one.voxels * 0.08 for one in found.classes]
    )


def test_a_block_that_was_computed_again_counts_once(tmp_path, volume, model):
    from hrvol.run.ledger import entries
    from hrvol.volume.storage.location import Location

    out = segment(tmp_path, volume, model)
    chunk = next(path for path in sorted((out / "labels" / "hrvol" / "0" / "c").rglob("*")) if path.is_file())
    chunk.write_bytes(b"damaged")
    hrvol.segment_volume(tmp_path / "volume.ome.zarr", out, tmp_path / "model.hrvol", engine="serial")
    blocks = [entry["block"] for entry in entries(Location.of(out)) if entry.get("state") == 1]
    assert len(blocks) > len(set(blocks))
    check(class_volumes(out), open_labels(out).read())


def test_a_plane_has_areas_and_pixels_may_have_no_unit(tmp_path, data, model):
    image, _, _ = data
    found = class_volumes(segment(tmp_path, open_volume(image[0]), model))
    check(found, open_labels(tmp_path / "labels.ome.zarr").read())
    assert (found.unit, found.ndim) == (None, 2)


def test_labels_of_an_image_are_measured_too(tmp_path, volume, model):
    write_image(tmp_path / "volume.ome.zarr", volume)
    hrvol.segment_volume(tmp_path / "volume.ome.zarr", None, model, into_input=True, engine="serial")
    check(
        class_volumes(tmp_path / "volume.ome.zarr" / "labels" / "hrvol"),
        open_labels(tmp_path / "volume.ome.zarr").read(),
    )


def test_an_image_is_no_output(tmp_path, volume):
    write_image(tmp_path / "volume.ome.zarr", volume)
    with pytest.raises(InputError, match=r"volume.ome.zarr: found no output of a run"):
        class_volumes(tmp_path / "volume.ome.zarr")
