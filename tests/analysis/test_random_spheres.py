"""Overlapping spheres at random places (Boolean model): all measures have their analytic values."""

import math

import numpy as np
import pytest
from sphere_data import overlapping_spheres

from hrvol import measure_labels, open_volume
from hrvol.analysis.measuring.cells import intervals

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
    # Lines of voxels miss edges between spheres that are thinner than a voxel.
    assert row["surface per volume of sample [micrometer^-1]"] == pytest.approx(per_volume, rel=0.08)


def test_chords_of_pores_have_the_mean_free_path(measured):
    mean, side = 4 * 0.5 * RADIUS / (3 * ETA), 0.5 * SIDE
    found = measured.summary["mean_chord [micrometer]"]["class 2"]
    # Lengths are exponential. Those that end at the border are left out, long ones more often.
    expected = mean * (side - 2 * mean) / (side - mean)
    for axis in "zyx":
        assert found[axis] == pytest.approx(expected, rel=0.1)


def test_the_correlation_is_that_of_two_spheres(measured):
    columns = measured.tables["correlation"].columns
    for axis, lag, found in zip(
        columns["axis"], columns["distance [voxel]"], columns["class 2: probability"], strict=True
    ):
        r = min(lag / RADIUS, 2.0)
        union = 1 + 0.75 * r - r**3 / 16
        assert found == pytest.approx(math.exp(-ETA * union), abs=0.02), (axis, lag)


def test_intervals_of_packings_cover_the_truth_in_ninety_of_a_hundred_draws():
    covered, side = 0, 16
    for draw in range(100):
        pore = overlapping_spheres((64, 64, 64), 3, 0.5, draw)
        inside = pore.reshape(4, side, 4, side, 4, side).sum(axis=(1, 3, 5)).ravel()
        low, high = intervals(np.stack([side**3 - inside, inside], axis=1), seed=draw)[1]
        covered += low <= math.exp(-0.5) <= high
    assert covered >= 90
