"""Measures of objects: those of whole arrays, of known shapes, and of scikit-image."""

import csv
import json
import math

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage import measure

from hrvol import measure_labels, open_volume, separate_instances
from hrvol.cli import main
from hrvol.errors import BlockError, InputError

SIZE = (2.0, 1.0, 0.5)


def numbered(shape=(12, 20, 22), seed=0):
    noise = np.random.default_rng(seed).normal(size=(3, *shape))
    classes = np.argmax([ndimage.gaussian_filter(plane, 1.2) for plane in noise], axis=0)
    return measure.label(classes, connectivity=1).astype(np.uint32)


def table(labels, **keywords):
    return measure_labels(labels, objects=True, **keywords).tables["objects"].columns


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 99),
    block=st.tuples(st.integers(1, 9), st.integers(3, 15), st.integers(3, 15)),
    size=st.sampled_from([(1.0, 1.0, 1.0), SIZE]),
)
def test_blocks_give_what_the_whole_array_gives(seed, block, size):
    volume = open_volume(numbered((9, 15, 14), seed), voxel_size=size, unit="um")
    one, cut = measure_labels(volume, objects=True), measure_labels(volume, objects=True, block_shape=block)
    assert cut.tables["objects"] == one.tables["objects"]
    assert cut.summary == one.summary


def test_sizes_places_and_boxes_are_those_of_scikit_image():
    labels = numbered()
    columns = table(labels, block_shape=(5, 8, 9))
    regions = measure.regionprops(labels)
    assert columns["object"] == [region.label for region in regions]
    assert columns["voxels"] == [region.area for region in regions]
    for axis, name in enumerate("zyx"):
        centres = [region.centroid[axis] for region in regions]
        np.testing.assert_allclose(columns[f"{name} [voxel]"], centres, atol=1e-9)
        assert columns[f"{name}0 [voxel]"] == [region.bbox[axis] for region in regions]
        assert columns[f"{name}1 [voxel]"] == [region.bbox[axis + 3] for region in regions]


def test_axes_are_those_of_the_covariance():
    labels = numbered(seed=3)
    columns = table(open_volume(labels, voxel_size=SIZE, unit="um"), block_shape=(5, 8, 9))
    for row, number in enumerate(columns["object"]):
        places = np.argwhere(labels == number) * SIZE
        spread = np.atleast_2d(np.cov(places.T, ddof=0)) if len(places) > 1 else np.zeros((3, 3))
        values, vectors = np.linalg.eigh(spread + np.diag(np.square(SIZE)) / 12)
        assert columns["major axis [micrometer]"][row] == pytest.approx(math.sqrt(20 * values[2]))
        assert columns["middle axis [micrometer]"][row] == pytest.approx(math.sqrt(20 * values[1]))
        assert columns["minor axis [micrometer]"][row] == pytest.approx(math.sqrt(20 * values[0]))
        if values[2] > 1.01 * values[1]:
            found = [columns[f"direction {axis}"][row] for axis in "zyx"]
            assert abs(np.dot(found, vectors[:, 2])) == pytest.approx(1)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rods_have_their_length_and_direction(axis):
    labels = np.zeros((30, 30, 30), np.uint16)
    spans = [slice(10, 12)] * 3
    spans[axis] = slice(3, 24)
    labels[tuple(spans)] = 7
    columns = table(open_volume(labels, voxel_size=SIZE, unit="um"), block_shape=(8, 8, 8))
    assert columns["object"] == [7]
    assert columns["length [micrometer]"][0] == pytest.approx(21 * SIZE[axis])
    direction = [columns[f"direction {name}"][0] for name in "zyx"]
    assert direction == pytest.approx(np.eye(3)[axis], abs=1e-9)
    assert columns["at border"] == [0]


def test_an_oblique_rod_points_along_itself():
    z, y, x = np.indices((60, 60, 60)) - 29.5
    along = (z + 2 * y + 2 * x) / 3
    labels = (z**2 + y**2 + x**2 - along**2 <= 9) & (np.abs(along) <= 22.5)
    columns = table(labels.astype(np.uint8), block_shape=(25, 31, 60))
    assert columns["length [voxel]"][0] == pytest.approx(45, rel=0.01)
    direction = [columns[f"direction {name}"][0] for name in "zyx"]
    assert direction == pytest.approx([1 / 3, 2 / 3, 2 / 3], abs=0.005)


@pytest.mark.parametrize("size", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0)])
def test_a_ball_is_round(size):
    shape = tuple(round(48 / s) for s in size)
    places = np.meshgrid(
        *((np.arange(n) - n / 2) * s for n, s in zip(shape, size, strict=True)), indexing="ij"
    )
    ball = (sum(p**2 for p in places) < 20**2).astype(np.uint8)
    columns = table(open_volume(ball, voxel_size=size, unit="nm"), block_shape=(10, 16, 48))
    assert columns["volume [nanometer^3]"][0] == pytest.approx(4 / 3 * math.pi * 20**3, rel=0.01)
    assert columns["equivalent diameter [nanometer]"][0] == pytest.approx(40, rel=0.01)
    assert columns["surface [nanometer^2]"][0] == pytest.approx(4 * math.pi * 20**2, rel=0.02)
    assert columns["sphericity"][0] == pytest.approx(1, abs=0.02)
    assert columns["major axis [nanometer]"][0] == pytest.approx(40, rel=0.02)
    assert columns["minor axis [nanometer]"][0] == pytest.approx(40, rel=0.02)


def test_neighbours_touch_by_faces_edges_and_corners():
    labels = np.zeros((8, 8, 8), np.uint16)
    labels[:4, :4, :4] = 1
    labels[4:, 4:, 4:] = 2  # a corner
    labels[:4, 4:, 4:] = 3  # an edge with 1, a face with 2
    labels[6:, 0, 0] = 4  # alone
    for block in ((8, 8, 8), (4, 4, 4), (3, 5, 2)):
        result = measure_labels(labels, objects=True, block_shape=block)
        assert result.tables["objects"].columns["touching objects"] == [2, 2, 2, 0]
        assert result.summary["touching_pairs"] == 3


def test_numbers_may_be_large_and_have_gaps():
    labels = numbered().astype(np.uint64)
    labels[labels == 0] = 0
    large = np.where(labels > 0, labels * np.uint64(10**12), 0)
    columns, expected = table(large, block_shape=(5, 8, 9)), table(labels)
    assert columns["object"] == [number * 10**12 for number in expected["object"]]
    assert {**columns, "object": 0} == {**expected, "object": 0}


def test_two_workers_measure_what_one_process_measures(tmp_path):
    tifffile.imwrite(tmp_path / "objects.tif", numbered())
    one = measure_labels(tmp_path / "objects.tif", objects=True, block_shape=(6, 10, 11))
    two = measure_labels(
        tmp_path / "objects.tif", objects=True, block_shape=(6, 10, 11), engine="local", workers=2
    )
    assert (one.tables, one.summary) == (two.tables, two.summary)


def test_an_image_has_areas_and_a_volume_of_one_plane_too():
    image = numbered((1, 30, 40), 2)[0]
    regions = measure.regionprops(image)
    columns = table(open_volume(image, voxel_size=(1.0, 0.5, 0.5), unit="um"), block_shape=(1, 11, 13))
    np.testing.assert_allclose(columns["area [micrometer^2]"], [region.area / 4 for region in regions])
    assert "z0 [voxel]" not in columns
    assert "direction z" not in columns
    plane = table(open_volume(image[None], voxel_size=(9.0, 0.5, 0.5), unit="um"))
    assert plane == columns
    # An ellipse has its axes.
    y, x = np.indices((60, 100))
    ellipse = (((y - 30) / 20) ** 2 + ((x - 50) / 40) ** 2 <= 1).astype(np.uint8)
    axes = table(ellipse)
    assert axes["major axis [voxel]"][0] == pytest.approx(80, rel=0.01)
    assert axes["minor axis [voxel]"][0] == pytest.approx(40, rel=0.01)
    assert abs(axes["direction x"][0]) == pytest.approx(1)


def run(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)])


def test_separated_objects_are_measured_with_their_classes(tmp_path):
    labels = np.ones((10, 12, 30), np.uint8)
    labels[2:8, 2:8, 3:12] = 2
    labels[2:8, 2:8, 16:25] = 3
    volume = open_volume(labels, voxel_size=(0.5, 0.5, 0.5), unit="um")
    separate_instances(volume, tmp_path / "objects.zarr", ["3", "class 2"])
    done = run("measure", tmp_path / "objects.zarr", "-o", tmp_path / "tables", "--engine", "serial")
    assert done.exit_code == 0, done.output
    assert "2 objects, 0 at the border" in done.output
    with (tmp_path / "tables/objects.csv").open() as file:
        first, second = csv.DictReader(file)
    assert (first["class"], second["class"]) == ("class 2", "class 3")
    assert float(first["volume [micrometer^3]"]) == 324 / 8
    assert json.loads((tmp_path / "tables/summary.json").read_text())["objects"] == 2
    assert sorted(path.stem for path in (tmp_path / "tables").glob("*.csv")) == ["objects"]
    again = run("measure", tmp_path / "objects.zarr", "-o", tmp_path / "tables", "--engine", "serial")
    assert again.exit_code == 1
    assert "--fresh" in again.output


def test_what_are_no_objects_is_one_line(tmp_path):
    with pytest.raises(BlockError, match="found object -2, expected numbers from 0"):
        measure_labels(np.full((3, 4, 5), -2, np.int16), objects=True)
    with pytest.raises(InputError, match="expected whole numbers"):
        measure_labels(np.ones((3, 4, 5), np.float32), objects=True)
    with pytest.raises(InputError, match="of objects: --objects"):
        measure_labels(np.arange(1, 1001, dtype=np.uint16).reshape(10, 10, 10))
    nothing = measure_labels(np.zeros((3, 4, 5), np.uint8), objects=True)
    assert nothing.summary["objects"] == 0
    assert nothing.tables["objects"].columns["object"] == []
    few = measure_labels(numbered(), objects=True, min_size=30)
    assert min(few.tables["objects"].columns["voxels"]) >= 30
    assert few.summary["smaller_objects"] > 0
