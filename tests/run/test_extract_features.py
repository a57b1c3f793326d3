"""Feature regions: the PCA, and which voxels come from which tile."""

import numpy as np
import pytest
import zarr
from run_data import QUICK

from hrvol.errors import UsageError
from hrvol.features.featuriser import load_featuriser
from hrvol.features.projection import fit_projection
from hrvol.run.extract_features import extract_features
from hrvol.volume.grid.regions import region_tiles


def samples(seed=0):
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(400, 3)) @ rng.normal(size=(3, 8)) + 0.01 * rng.normal(size=(400, 8))
    return (mixed * np.logspace(-3, 3, 8) + 5).astype(np.float32)


def test_components_are_orthonormal_and_explain_the_variance():
    projection = fit_projection(samples(), 3)
    np.testing.assert_allclose(projection.components.T @ projection.components, np.eye(3), atol=1e-5)
    assert projection.explained.sum() > 0.99
    assert (np.diff(projection.explained) <= 0).all()
    scores = projection(samples())
    np.testing.assert_allclose(scores.mean(axis=0), 0, atol=1e-2)
    shares = scores.var(axis=0) / 8
    np.testing.assert_allclose(shares, projection.explained, rtol=1e-2)


def test_signs_do_not_depend_on_the_order_of_the_samples():
    first, second = fit_projection(samples(), 3), fit_projection(samples()[::-1], 3)
    np.testing.assert_allclose(first.components, second.components, atol=1e-3)
    largest = np.abs(first.components).argmax(axis=0)
    assert (first.components[largest, range(3)] > 0).all()


def test_a_constant_channel_does_no_harm():
    flat = samples()
    flat[:, 2] = 7
    assert np.isfinite(fit_projection(flat, 8)(flat)).all()


@pytest.mark.parametrize("components", [0, 9])
def test_components_out_of_range_are_refused(components):
    with pytest.raises(UsageError, match=r"1\.\.8"):
        fit_projection(samples(), components)


def test_a_region_is_covered_once():
    region = (slice(1, 4), slice(30, 149), slice(100, 130))
    seen = np.zeros((5, 150, 130), int)
    for box, tile in region_tiles(seen.shape, region, QUICK.tiles):
        seen[box] += 1
        assert tile.core[0] <= box[1].start < box[1].stop <= tile.core[1]
    assert (seen[region] == 1).all()
    assert seen.sum() == seen[region].size


def test_full_features_are_those_of_the_image_and_a_region_of_the_whole(data, tmp_path):
    image = data[0]
    spec = QUICK.model_copy(update={"tiles": QUICK.tiles.model_copy(update={"overlap": 32})})
    report = extract_features(image, tmp_path / "whole.zarr", recipe=spec, full=True)
    roi = (slice(2, 3), slice(40, 80), slice(60, 70))
    extract_features(image, tmp_path / "part.zarr", recipe=spec, full=True, roi=roi)
    stored, part = (zarr.open_array(tmp_path / f"{name}.zarr", mode="r") for name in ("whole", "part"))
    assert report.explained is None
    assert stored.shape == report.shape
    np.testing.assert_array_equal(part[:], stored[:][(slice(None), *roi)])
    untiled = load_featuriser(spec.features)(image[2].astype(np.float32) / 255).numpy()
    np.testing.assert_allclose(stored[:, 2], untiled, atol=1e-5)


def test_images_give_three_axes(data, tmp_path):
    report = extract_features(data[0][0], tmp_path / "f.zarr", recipe=QUICK, components=2)
    assert report.shape == (2, 150, 130)
    assert zarr.open_array(tmp_path / "f.zarr", mode="r")[:].any()
    assert 0 < report.explained <= 1
