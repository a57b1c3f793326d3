"""Overlapping spheres at random places (Boolean model): all measures have their analytic values."""

import math

import numpy as np
import pytest
from sphere_data import overlapping_spheres

from hrvol import measure_labels, open_volume
from hrvol.analysis.measuring.block_measures import MeasureJob, measure_labels_of
from hrvol.analysis.measuring.cells import coarser, intervals, plan_cells
from hrvol.analysis.measuring.totals import add_up
from hrvol.volume.grid.tiling import grid

RADIUS, ETA, SIDE = 8, 0.6, 128
"""Voxels; volumes of spheres per volume; voxels of the side of the box."""


@pytest.fixture(scope="module")
def measured():
    pore = overlapping_spheres((SIDE,) * 3, RADIUS, ETA, 11)
    labels = open_volume(pore.astype(np.uint8) + 1, voxel_size=(0.5, 0.5, 0.5), unit="um")
    return measure_labels(labels, components=False)


def pores(measured):
    (row,) = [row for row in measured.summary["classes"] if row["name"] == "class 2"]
    return row


def test_the_fraction_of_pores_falls_exponentially(measured):
    row = pores(measured)
    assert row["fraction"] == pytest.approx(math.exp(-ETA), rel=0.04)
    low, high = row["fraction_95"]
    assert low < math.exp(-ETA) < high


def test_the_surface_is_that_of_the_spheres_left_free(measured):
    row = pores(measured)
    per_volume = 3 * ETA / (0.5 * RADIUS) * row["fraction"]
    assert row["surface per volume of sample [micrometer^-1]"] == pytest.approx(per_volume, rel=0.04)


def test_chords_of_pores_have_the_mean_free_path(measured):
    expected = 4 * 0.5 * RADIUS / (3 * ETA)
    found = measured.summary["mean_chord [micrometer]"]["class 2"]
    for axis in "zyx":
        # Chords that end at the border are left out; long ones more often than short ones.
        assert 0.8 * expected < found[axis] < 1.08 * expected


def test_the_correlation_is_that_of_two_spheres(measured):
    columns = measured.tables["correlation"].columns
    for axis, lag, found in zip(
        columns["axis"], columns["distance [voxel]"], columns["class 2: probability"], strict=True
    ):
        r = min(lag / RADIUS, 2.0)
        union = 1 + 0.75 * r - r**3 / 16
        assert found == pytest.approx(math.exp(-ETA * union), abs=0.02), (axis, lag)


def test_intervals_of_packings_cover_the_truth_in_ninety_of_a_hundred_draws():
    covered, truth = 0, math.exp(-0.5)
    for draw in range(100):
        labels = overlapping_spheres((60, 60, 60), 3, 0.5, draw).astype(np.uint8)
        volume = open_volume(labels)
        job = MeasureJob(volume, (0, 1), plan_cells(volume.shape, (1.0, 1.0, 1.0)), (), False)
        (piece,) = grid(volume.shape, volume.shape)
        found = add_up([measure_labels_of(labels, piece.core, piece.core, job)], job, 1)
        cells = coarser(found.in_cells, job.cells.side)
        low, high = intervals(cells.reshape(-1, 2), seed=draw)[1]
        covered += low <= truth <= high
    assert covered >= 90
