"""Measures of labels: analytic shapes within tolerances, and blocks give what the whole array gives."""

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

from hrvol import measure_labels, open_volume
from hrvol.analysis.measuring.block_measures import MeasureJob, measure_labels_of
from hrvol.analysis.measuring.cells import coarser, deviations, intervals, plan_cells
from hrvol.analysis.measuring.chords import columns, count_chords
from hrvol.analysis.measuring.crofton import DIRECTIONS, area_per_crossing
from hrvol.analysis.measuring.totals import add_up
from hrvol.analysis.sizes import VoxelGrid
from hrvol.cli import main
from hrvol.errors import InputError, OutputExistsError, UsageError
from hrvol.volume.grid.tiling import grid


def blobs(shape=(12, 20, 22), seed=0, classes=3):
    noise = np.random.default_rng(seed).normal(size=(classes, *shape))
    smooth = [ndimage.gaussian_filter(plane, 1.2) for plane in noise]
    return np.argmax(smooth, axis=0).astype(np.uint8)


def sphere(radius, shape=(48, 48, 48), spacing=(1.0, 1.0, 1.0)):
    axes = [(np.arange(n) - n / 2 + 0.3) * s for n, s in zip(shape, spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return (z**2 + y**2 + x**2 < radius**2).astype(np.uint8) + 1


def column(result, table, name):
    return list(result.tables[table].columns[name])


def of_class(result, name):
    (row,) = [row for row in result.summary["classes"] if row["name"] == name]
    return row


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0), (1.0, 0.7, 1.3)])
def test_a_sphere_has_its_volume_and_surface(spacing):
    shape = tuple(round(48 / s) for s in spacing)
    volume = open_volume(sphere(20.0, shape, spacing), voxel_size=spacing, unit="um")
    result = measure_labels(volume, chords=False, correlation=False)
    row = of_class(result, "class 2")
    assert row["volume [micrometer^3]"] == pytest.approx(4 / 3 * math.pi * 20**3, rel=0.01)
    assert row["surface [micrometer^2]"] == pytest.approx(4 * math.pi * 20**2, rel=0.02)
    assert row["euler_number"] == 1
    numbers = column(result, "components", "class").index("class 2")
    assert column(result, "components", "sphericity")[numbers] == pytest.approx(1, abs=0.02)
    assert column(result, "components", "equivalent diameter [micrometer]")[numbers] == pytest.approx(
        40, rel=0.01
    )
    assert column(result, "components", "at border")[numbers] == 0
    centre = [column(result, "components", f"{axis} [micrometer]")[numbers] for axis in "zyx"]
    expected = [(n / 2 - 0.3) * s for n, s in zip(shape, spacing, strict=True)]
    np.testing.assert_allclose(centre, expected, atol=0.1)


def test_a_cylinder_percolates_along_its_axis_and_has_its_contact_area():
    y, x = np.mgrid[:50, :50] - 24.6
    labels = np.broadcast_to((y**2 + x**2 < 15**2).astype(np.uint8) + 1, (20, 50, 50))
    result = measure_labels(labels)
    row = of_class(result, "class 2")
    assert row["percolating_share"] == {"z": 1.0, "y": 0.0, "x": 0.0}
    # Lateral surface: lines that leave the volume at its ends see less of it.
    assert column(result, "contacts", "contact area [voxel^2]") == [
        pytest.approx(2 * math.pi * 15 * 20, rel=0.06)
    ]
    assert row["euler_number"] == 1
    assert of_class(result, "class 1")["euler_number"] == 0
    mean = result.summary["mean_chord [voxel]"]["class 2"]
    assert mean["x"] == pytest.approx(math.pi / 4 * 30, rel=0.03)
    assert "z" not in mean
    assert result.summary["notes"] == ["no voxel size: all lengths, areas and volumes are in voxels"]


def test_a_disc_of_an_image_has_its_area_and_boundary():
    y, x = np.mgrid[:100, :100] - 50.3
    image = (y**2 + x**2 < 40**2).astype(np.uint8) + 1
    for labels in (image, image[None]):
        result = measure_labels(open_volume(labels, voxel_size=(1, 0.5, 0.5)[-labels.ndim :], unit="nm"))
        row = of_class(result, "class 2")
        assert row["area [nanometer^2]"] == pytest.approx(math.pi * 20**2, rel=0.01)
        assert row["boundary [nanometer]"] == pytest.approx(2 * math.pi * 20, rel=0.01)
        assert row["percolating_share"].keys() == {"y", "x"}


def test_directions_share_the_sphere_evenly():
    cubes = VoxelGrid(3, (1.0, 1.0, 1.0), None, "")
    lengths = np.linalg.norm(np.array(DIRECTIONS), axis=1)
    shares = area_per_crossing(cubes) * lengths / 2
    assert shares.sum() == pytest.approx(1)
    # Lehmann and Legland 2012, table of weights for 26 neighbours.
    by_length = {1: 0.04577789120476 * 2, 2: 0.03698062787608 * 2, 3: 0.03519563978232 * 2}
    expected = [by_length[round(length**2)] for length in lengths]
    np.testing.assert_allclose(shares, expected, rtol=1e-6)


def totals(labels, block, values=(0, 1), cell=None, least=1, lags=(1, 2, 5)):
    """Measure an array by the functions that workers call, block by block."""
    volume = open_volume(labels)
    job = MeasureJob(volume, values, plan_cells(volume.shape, (1.0, 1.0, 1.0), cell), lags, bool(lags))
    reports = []
    for piece in grid(volume.shape, block):
        box = tuple(
            slice(max(span.start - 1, 0), min(span.stop + max(lags, default=1), side))
            for span, side in zip(piece.core, volume.shape, strict=True)
        )
        reports.append(measure_labels_of(volume.read(box), box, piece.core, job))
    return add_up(reports, job, least), job


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 99),
    block=st.tuples(st.integers(2, 9), st.integers(4, 14), st.integers(4, 14)),
    background=st.booleans(),
)
def test_blocks_give_what_the_whole_array_gives(seed, block, background):
    labels = blobs((9, 13, 14), seed)
    values = (0, 1, 2) if background else (1, 2)
    whole, _ = totals(labels, labels.shape, values)
    cut, _ = totals(labels, block, values)
    for name in ("planes", "in_cells", "in_plane", "crossings", "euler", "both", "labelled"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(whole, name), err_msg=name)
    for name in ("found", "largest", "percolating"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(whole, name), err_msg=name)
    for name in ("labels", "sizes", "boxes", "sums"):
        np.testing.assert_array_equal(getattr(cut.components, name), getattr(whole.components, name))


def test_measures_are_those_of_numpy_and_scikit_image():
    labels = blobs(seed=4)
    found, _ = totals(labels, (5, 8, 9), (0, 1, 2))
    np.testing.assert_array_equal(found.planes.sum(axis=0), np.bincount(labels.ravel()))
    np.testing.assert_array_equal(found.in_cells.sum(axis=(0, 1, 2)), np.bincount(labels.ravel()))
    assert found.euler.tolist() == [measure.euler_number(labels == k, connectivity=3) for k in range(3)]
    assert found.found.tolist() == [measure.label(labels == k, connectivity=3).max() for k in range(3)]
    for axis in range(3):
        a, b = (
            np.take(labels, range(5, labels.shape[axis]), axis),
            np.take(labels, range(labels.shape[axis] - 5), axis),
        )
        expected = [np.count_nonzero((a == k) & (b == k)) for k in range(3)]
        assert found.both[axis, 2].tolist() == expected
    axis_x = DIRECTIONS.index((0, 0, 1))
    assert found.crossings[axis_x].sum() == 2 * np.count_nonzero(labels[..., 1:] != labels[..., :-1])


def test_intervals_cover_the_truth_in_ninety_of_a_hundred_draws():
    """Independent cells of a known distribution, and a random field with correlated voxels."""
    covered = 0
    truth = 0.3
    for draw in range(100):
        generator = np.random.default_rng(draw)
        ones = generator.binomial(500, generator.beta(3, 7, 80))
        ((_, _), (low, high)) = intervals(np.stack([500 - ones, ones], axis=1), seed=draw)
        covered += low <= truth <= high
    assert covered >= 90
    covered = 0
    for draw in range(100):
        field = ndimage.uniform_filter(np.random.default_rng(draw).normal(size=(1, 96, 96)), (1, 3, 3))
        labels = (field > 0).astype(np.uint8)
        found, job = totals(labels, labels.shape, (0, 1), lags=())
        cells = coarser(found.in_cells, job.cells.side)
        low, high = intervals(cells.reshape(-1, 2), seed=draw)[1]
        covered += low <= 0.5 <= high
    assert covered >= 90


def test_deviations_of_independent_voxels_fall_with_the_root_of_the_volume():
    labels = np.random.default_rng(0).integers(0, 2, (64, 64, 64)).astype(np.uint8)
    found, job = totals(labels, labels.shape, lags=())
    curve = list(deviations(found.in_cells, job.cells))
    assert [times for times, _, _ in curve] == [1, 2, 3, 4]
    for times, cells, (deviation, _) in curve:
        assert cells == (8 // times) ** 3
        assert deviation == pytest.approx(0.5 / math.sqrt((8 * times) ** 3), rel=0.5)


def test_chords_are_runs_between_two_others():
    line = np.array([[0, 0, 1, 1, 1, 0, 2, 2, 1, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]], np.uint8)
    table = count_chords(line, 2)
    assert table.shape == (2, 11)
    assert table[0].nonzero()[0].tolist() == [1]  # the runs at both ends are not whole
    assert {int(n): int(table[1, n]) for n in table[1].nonzero()[0]} == {1: 1, 3: 1}
    for axis in range(3):
        boxes = [c.box for c in columns((40, 50, 60), (7, 16, 16), "labels") if c.axis == axis]
        assert sum(math.prod(s.stop - s.start for s in box) for box in boxes) == 40 * 50 * 60
        assert all((box[axis].start, box[axis].stop) == (0, (40, 50, 60)[axis]) for box in boxes)


def test_two_workers_measure_what_one_process_measures(tmp_path):
    labels = blobs((20, 40, 44), 3) + 1
    np.save(tmp_path / "labels.npy", labels)
    one = measure_labels(tmp_path / "labels.npy", tmp_path / "one", block_shape=(8, 16, 44))
    measure_labels(
        tmp_path / "labels.npy", tmp_path / "two", block_shape=(11, 40, 13), engine="local", workers=2
    )
    assert sorted(file.name for file in (tmp_path / "one").iterdir() if file.suffix == ".csv") == sorted(
        f"{name}.csv" for name in one.tables
    )
    for file in (tmp_path / "one").iterdir():
        if file.suffix != ".parquet":
            assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name


def run(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)])


def test_the_command_writes_tables_with_units(tmp_path):
    labels = blobs((16, 40, 40), 1)
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    source, out = tmp_path / "labels.tif", tmp_path / "out"
    options = ("--voxel-size", "0.5", "--unit", "um", "--background", "--engine", "serial")
    done = run("measure", source, "-o", out, *options)
    assert done.exit_code == 0, done.output
    assert "background (0)" in done.output
    assert "cells of 8 voxels a side" in done.output
    with (out / "components.csv").open() as file:
        first = next(csv.reader(file))
    assert "volume [micrometer^3]" in first
    summary = json.loads((out / "summary.json").read_text())
    fractions = [row["fraction"] for row in summary["classes"]]
    np.testing.assert_allclose(fractions, np.bincount(labels.ravel()) / labels.size)
    for row in summary["classes"]:
        low, high = row["fraction_95"]
        assert low < row["fraction"] < high
    again = run("measure", source, "-o", out, *options)
    assert again.exit_code == 1
    assert "--fresh" in again.output
    assert run("measure", source, "-o", out, *options, "--fresh", "--json").exit_code == 0
    (out / "mine.txt").write_text("x")
    with pytest.raises(OutputExistsError, match=r"found mine\.txt"):
        measure_labels(source, out, overwrite=True)


def test_parquet_holds_the_same_tables(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    result = measure_labels(blobs(seed=2) + 1, tmp_path / "out")
    for name, table in result.tables.items():
        stored = parquet.read_table(tmp_path / f"out/{name}.parquet")
        assert stored.column_names == list(table.columns)
        assert stored.num_rows == len(list(table.rows()))


def test_odd_labels_are_measured_or_one_line(tmp_path):
    labels = np.ones((1, 5, 5), np.uint8)
    result = measure_labels(labels)  # too small for intervals
    assert of_class(result, "class 1")["fraction_95"] is None
    assert of_class(result, "class 1")["fraction"] == 1
    labels = np.zeros((4, 5, 6), np.uint8)
    with pytest.raises(InputError, match="no labels above 0"):
        measure_labels(labels)
    with pytest.raises(InputError, match="expected whole numbers"):
        measure_labels(labels.astype(np.float32))
    with pytest.raises(InputError, match="at most 100 classes"):
        measure_labels(np.arange(1000, dtype=np.uint16).reshape(10, 10, 10))
    with pytest.raises(UsageError, match="found 0, expected at least 1"):
        measure_labels(labels + 1, min_size=0)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="expected a folder"):
        measure_labels(labels + 1, tmp_path / "file")
    with pytest.raises(UsageError, match="found no folder"):
        measure_labels(labels + 1, tmp_path / "a/b")
