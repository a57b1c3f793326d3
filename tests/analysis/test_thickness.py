"""Local thickness: the definition, shapes within a voxel, and blocks give what the whole array gives."""

import csv
import json
import math

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from sphere_data import ball, overlapping_spheres

from hrvol import measure_labels, open_volume
from hrvol.analysis.measuring.measure_thickness import LARGEST, largest_diameter
from hrvol.analysis.measuring.thickness import thickness_numbers
from hrvol.analysis.sizes import VoxelGrid
from hrvol.cli import main
from hrvol.errors import InputError, OutputExistsError, ResourceError, UsageError

pytest.importorskip("edt")

FAST = {"components": False, "chords": False, "correlation": False}


def by_definition(mask, sampling, most):
    """Return thickness by all pairs of voxels: no distance transform."""
    places = np.argwhere(np.ones(mask.shape, bool)) * np.array(sampling)
    inside = mask.ravel()
    squares = ((places[:, None] - places[None]) ** 2).sum(axis=-1)
    outside = squares[:, ~inside].min(axis=1) if (~inside).any() else np.full(len(places), np.inf)
    found = np.where(inside, 2, 0)
    for diameter in range(3, most + 1):
        radius = (diameter / 2) ** 2 * (1 - 2e-6)
        centres = np.flatnonzero(inside & (outside >= radius))
        if len(centres):
            found[(squares[:, centres] < radius).any(axis=1)] = diameter
    return found.reshape(mask.shape)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 8), st.integers(2, 9), st.integers(2, 10)),
    sampling=st.sampled_from([(1.0, 1.0, 1.0), (2.0, 1.0, 1.0), (1.0, 1.5, 1.25), (3.7, 1.0, 1.3)]),
    share=st.floats(0, 0.3),
    most=st.integers(2, 9),
    seed=st.integers(0, 999),
)
def test_it_is_the_largest_ball_that_holds_a_voxel(shape, sampling, share, most, seed):
    mask = np.random.default_rng(seed).random(shape) >= share
    np.testing.assert_array_equal(
        thickness_numbers(mask, sampling, most), by_definition(mask, sampling, most)
    )


def rows(result, name="class 2"):
    (row,) = [row for row in result.summary["thickness"]["classes"] if row["name"] == name]
    return row


def thick(mask, **options):
    labels = mask.astype(np.uint8) + 1
    spacing = options.pop("spacing", None)
    if spacing is not None:
        labels = open_volume(labels, voxel_size=spacing, unit="um")
    return measure_labels(labels, **FAST, thickness=True, classes="class 2", **options)


@pytest.mark.parametrize("sides", [5, 6, 11, 12])
def test_a_plate_is_as_thick_as_it_is_within_a_voxel(sides):
    mask = np.zeros((40, 30, 30), bool)
    mask[9 : 9 + sides] = True
    row = rows(thick(mask))
    # Distances are between centres: plates of an odd number of voxels come out one voxel thicker.
    assert row["mean [voxel]"] == sides + sides % 2
    assert row["standard deviation [voxel]"] == 0


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0), (0.5, 0.7, 0.4)])
def test_a_ball_is_as_thick_as_its_diameter(spacing):
    diameter, side = 24.0 * min(spacing), min(spacing)
    shape = tuple(math.ceil(diameter / size) + 6 for size in spacing)
    result = thick(ball(shape, diameter / 2, spacing), spacing=spacing)
    row = rows(result)
    assert row["largest [micrometer]"] == pytest.approx(diameter, abs=1.01 * max(spacing))
    assert row["median [micrometer]"] == pytest.approx(diameter, abs=1.01 * max(spacing))
    table = result.tables["thickness"].columns
    assert table["thickness [micrometer]"][0] == pytest.approx(2 * side)
    assert sum(table["volume share"]) == pytest.approx(1)
    # Nearly all of it is in the largest ball; what its voxels leave over is at the surface.
    assert table["volume share of at least this thickness"][-3] > 0.9


def test_a_cylinder_and_a_disc_are_as_thick_as_their_diameter():
    disc = ball((1, 40, 40), 12.0)
    for mask in (disc, np.broadcast_to(disc, (20, 40, 40)), np.ascontiguousarray(disc[0])):
        row = rows(thick(mask))
        assert row["median [voxel]"] == pytest.approx(24, abs=1)
        assert row["mean [voxel]"] == pytest.approx(24, abs=1.2)
    assert "area share" in thick(disc[0]).tables["thickness"].columns


@pytest.mark.parametrize("radius", [7, 12])
def test_the_union_of_spheres_is_nowhere_thinner_than_one(radius):
    grains = ~overlapping_spheres((80, 80, 80), radius, 0.6, 1)
    found = thickness_numbers(grains, (1.0, 1.0, 1.0), LARGEST)
    # At the border there are parts of spheres whose centres are outside.
    inner = found[(slice(radius, -radius),) * 3]
    inner = inner[inner > 0]
    assert np.mean(inner >= 2 * radius - 2) > 0.9
    assert np.median(inner) == pytest.approx(2 * radius, abs=1)
    assert np.mean(inner > 2 * radius + 1) < 0.01  # a ball fits into two spheres only where it fits into one


def test_the_distances_in_pores_of_spheres_are_those_of_chance():
    """Balls of radius r fit around a share exp(-eta ((1 + r / R)^3 - 1)) of the points of the pores."""
    radius, eta = 6, 0.4
    import edt

    pore = overlapping_spheres((96, 96, 96), radius, eta, 5)
    distance = edt.edt(pore, black_border=False)[10:-10, 10:-10, 10:-10]
    for r in (1.5, 2.5, 3.5):
        share = (distance >= r).sum() / (distance > 0).sum()
        # Distances are to centres of voxels, up to half a voxel behind the surface.
        low, high = (math.exp(-eta * ((1 + depth / radius) ** 3 - 1)) for depth in (r, r - 0.5))
        assert low < share < high


@pytest.mark.parametrize("most", ["8", "40"])
@pytest.mark.parametrize("spacing", [None, (0.4, 0.2, 0.3)])
def test_blocks_give_what_the_whole_array_gives(most, spacing):
    pore = overlapping_spheres((36, 40, 44), 7, 0.7, 3)
    options = {"spacing": spacing, "max_thickness": most}
    whole = thick(pore, **options)
    for block in ((18, 40, 44), (14, 20, 23)):
        cut = thick(pore, block_shape=block, **options)
        assert cut.tables["thickness"] == whole.tables["thickness"]
        assert cut.summary == whole.summary
    bound = rows(whole)["share at the largest tested"]
    assert (bound > 0.02) == (most == "8")
    assert any("at the largest diameter tested" in note for note in whole.summary["notes"]) == (most == "8")


def test_what_is_below_the_bound_does_not_depend_on_it():
    pore = overlapping_spheres((36, 40, 44), 5, 0.9, 3)
    every = thick(pore, max_thickness="60")
    largest = int(rows(every)["largest [voxel]"])
    bounded = thick(pore, max_thickness=str(largest + 1), block_shape=(12, 20, 22))
    assert bounded.tables["thickness"] == every.tables["thickness"]


def test_two_workers_measure_what_one_process_measures(tmp_path):
    labels = overlapping_spheres((24, 40, 44), 6, 0.7, 3).astype(np.uint8) + 1
    np.save(tmp_path / "labels.npy", labels)
    options = {**FAST, "thickness": True, "max_thickness": "20"}
    one = measure_labels(tmp_path / "labels.npy", **options)
    two = measure_labels(
        tmp_path / "labels.npy", block_shape=(12, 20, 44), engine="local", workers=2, **options
    )
    assert one.tables["thickness"] == two.tables["thickness"]


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_map_has_the_thickness_of_each_voxel(tmp_path, ndim):
    pore = overlapping_spheres((70, 30, 32), 6, 0.7, 3)[:: 1 if ndim == 3 else 70]
    spacing, path = (0.5, 0.2, 0.2), tmp_path / "map.ome.zarr"
    labels = pore[0] if ndim == 2 else pore
    options = {"spacing": spacing[-ndim:], "max_thickness": "20", "thickness_map": path}
    thick(labels, **options)
    image = open_volume(path)
    assert (image.ndim, image.unit, image.voxel_size[-ndim:]) == (ndim, "micrometer", spacing[-ndim:])
    sides = (1.0, 1.0, 1.0) if ndim == 2 else (2.5, 1.0, 1.0)
    np.testing.assert_allclose(image.read(), thickness_numbers(pore, sides, 20) * 0.2, rtol=1e-6)
    with pytest.raises(OutputExistsError, match="exists already"):
        thick(labels, **options)
    thick(labels, overwrite=True, **options)


def test_a_volume_of_one_class_is_at_the_bound():
    result = measure_labels(np.ones((6, 7, 8), np.uint8), **FAST, thickness=True)
    row = rows(result, "class 1")
    assert row["share at the largest tested"] == 1
    assert row["mean [voxel]"] == LARGEST
    assert "100 % of its voxels" in result.summary["notes"][-1]


def test_lengths_are_in_units_or_voxels():
    known = VoxelGrid(3, (0.5, 0.2, 0.2), "micrometer", "labels")
    assert largest_diameter("4um", known) == 20
    assert largest_diameter("4.1um", known) == 21
    assert largest_diameter("30", known) == 30
    with pytest.raises(UsageError, match="expected 2 to 1000"):
        largest_diameter("1", known)
    with pytest.raises(UsageError, match="expected sizes in voxels"):
        largest_diameter("4um", VoxelGrid(3, (1.0, 1.0, 1.0), None, "labels"))


def run(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)])


def test_the_command_writes_thickness(tmp_path):
    mask = ball((30, 30, 30), 10.0).astype(np.uint8) + 1
    tifffile.imwrite(tmp_path / "labels.tif", mask)
    voxel = ("--voxel-size", "0.5", "--unit", "um", "--engine", "serial", "--no-chords")
    source, out = tmp_path / "labels.tif", tmp_path / "out"
    done = run("measure", source, "-o", out, *voxel, "--thickness", "--class", "2", "--max-thickness", "12um")
    assert done.exit_code == 0, done.output
    assert "thickness [micrometer]" in done.output
    with (out / "thickness.csv").open() as file:
        (header, *found) = csv.reader(file)
    assert header[:3] == ["class", "thickness [voxel]", "thickness [micrometer]"]
    assert {row[0] for row in found} == {"class 2"}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["thickness"]["tested [voxel]"] == [2, 24]
    # A second measurement without it leaves no old table behind.
    assert run("measure", source, "-o", out, *voxel, "--fresh").exit_code == 0
    assert not (out / "thickness.csv").exists()


def test_odd_requests_are_one_line(tmp_path):
    labels = np.ones((4, 5, 6), np.uint8)
    labels[0] = 2
    tifffile.imwrite(tmp_path / "labels.tif", labels, photometric="minisblack")
    source = tmp_path / "labels.tif"
    for arguments, text in (
        (("--class", "9", "--thickness"), "found class '9', expected one of: 1 class 1, 2 class 2"),
        (("--class", "2"), "without thickness or tortuosity"),
        (("--max-thickness", "9"), "found it without thickness"),
        (("--thickness-map", "map.ome.zarr"), "found it without thickness"),
        (("--thickness", "--thickness-map", source), "is (or holds, or is inside) the input"),
        (("--thickness", "--max-thickness", "4um"), "found no voxel size"),
        (("--thickness", "--objects"), "found objects, expected classes"),
    ):
        done = run("measure", source, "--engine", "serial", *arguments)
        assert done.exit_code == 2, done.output
        assert text in " ".join(done.output.split())
        assert "Traceback" not in done.output
    with pytest.raises(InputError, match="found no voxels of the class 'background \\(0\\)'"):
        measure_labels(labels, **FAST, background=True, thickness=True, classes="0")


def test_blocks_that_do_not_fit_in_memory_are_refused():
    labels = open_volume(np.broadcast_to(np.ones((1, 1, 1), np.uint8), (4096, 65536, 65536)))
    from hrvol.analysis.measuring.measure_thickness import ThicknessJob, measure_thickness
    from hrvol.engine.spec import EngineSpec

    job = ThicknessJob(labels, (1,), (0,), (1.0, 1.0, 1.0), 1000)
    sizes = VoxelGrid.of(labels)
    with pytest.raises(ResourceError, match=r"smaller --max-thickness"):
        measure_thickness(job, ["one"], sizes, (4096, 65536, 65536), EngineSpec())
