"""Tortuosity: channels with exact values, arrays and packings with analytic and published ones, messages."""

import csv
import json
import math

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from sphere_data import ball, overlapping_spheres, separate_spheres, serpentine

from hrvol import measure_labels, open_volume
from hrvol.analysis.measuring.measure_tortuosity import (
    SIZE,
    Tortuosities,
    box_to_solve,
    tortuosity_notes,
)
from hrvol.analysis.measuring.tortuosity import CLOSED, CONVERGED, EMPTY, UNFINISHED, diffuse
from hrvol.cli import main
from hrvol.errors import ResourceError, UsageError

pytest.importorskip("taufactor")

FAST = {"components": False, "chords": False, "correlation": False}
CUBES = (1.0, 1.0, 1.0)


def test_a_straight_channel_has_the_tortuosity_1():
    mask = np.zeros((20, 16, 18), bool)
    mask[:, 4:9, 3:10] = True
    along = diffuse(mask, 0, CUBES)
    assert along.status == CONVERGED
    assert along.factor == pytest.approx(1, abs=1e-3)
    assert along.diffusivity == pytest.approx(mask.mean(), rel=1e-3)
    assert along.through == 1
    for axis in (1, 2):
        across = diffuse(mask, axis, CUBES)
        assert (across.status, across.factor, across.diffusivity) == (CLOSED, None, 0.0)
    for axis in range(3):
        turned = diffuse(np.moveaxis(mask, 0, axis), axis, CUBES)
        assert turned.factor == pytest.approx(along.factor, rel=1e-5)


@pytest.mark.parametrize(("rows", "side"), [(2, 4), (3, 6)])
def test_a_channel_that_winds_has_the_square_of_its_length(rows, side):
    mask = serpentine(rows, side)
    length = mask.sum()
    found = diffuse(mask, 0, CUBES)
    assert found.factor == pytest.approx((length / len(mask)) ** 2, rel=2e-3)


def test_dead_ends_count_in_the_fraction_only():
    mask = np.zeros((20, 9, 9), bool)
    mask[:, 2, 2] = True
    mask[3:17, 6, 6] = True  # touches no end
    found = diffuse(mask, 0, CUBES)
    assert found.through == pytest.approx(20 / 34)
    assert found.factor == pytest.approx(34 / 20, rel=1e-3)


def test_voxels_touch_by_faces():
    mask = np.zeros((4, 2, 2), bool)
    mask[:2, 0, 0] = mask[2:, 1, 1] = True
    assert diffuse(mask, 0, CUBES).status == CLOSED
    assert diffuse(np.zeros((4, 2, 2), bool), 0, CUBES).status == EMPTY


def test_a_row_of_discs_has_the_diffusivity_of_rayleigh():
    """Insulating cylinders in a square array, to the eighth power (Perrins et al. 1979)."""
    for radius in (20.0, 34.0):
        mask = ~ball((1, 101, 101), radius, shift=0.0)
        f = 1 - mask.mean()
        expected = 1 - 2 * f / (1 + f - 0.305827 * f**4 - 0.013362 * f**8)
        for axis in (1, 2):
            found = diffuse(mask, axis, CUBES)
            assert found.diffusivity == pytest.approx(expected, rel=0.015)


def test_a_lattice_of_balls_has_the_diffusivity_of_rayleigh():
    """Insulating balls in a simple cubic lattice (Meredith and Tobias 1960: constant of the third term)."""
    mask = ~ball((51, 51, 51), 18.0, shift=0.0)
    f = 1 - mask.mean()
    expected = 1 - 3 * f / (2 + f - 1.306 * 0.75 * f ** (10 / 3))
    assert diffuse(mask, 1, CUBES).diffusivity == pytest.approx(expected, rel=0.015)


@pytest.mark.parametrize("eta", [0.15, 0.5])
def test_overlapping_spheres_are_near_the_bound_of_weissberg(eta):
    """No tortuosity factor is below 1 - ln(fraction) / 2 (Weissberg 1963)."""
    pore = overlapping_spheres((80, 80, 80), 10, eta, 2)
    mean = float(np.mean([diffuse(pore, axis, CUBES).factor for axis in range(3)]))
    bound = 1 - math.log(pore.mean()) / 2
    assert bound < mean < 1.15 * bound


def test_separate_spheres_have_the_tortuosity_of_bruggeman():
    """The fraction to the power of -0.5: for suspended spheres also measured (De La Rue and Tobias 1959)."""
    pore = separate_spheres((80, 80, 80), 10, 0.25, 1)
    mean = float(np.mean([diffuse(pore, axis, CUBES).factor for axis in range(3)]))
    fraction = pore.mean()
    assert mean == pytest.approx(fraction**-0.5, rel=0.05)
    assert mean > (3 - fraction) / 2  # Maxwell's, a bound


def test_voxels_may_be_longer_along_an_axis():
    pore = overlapping_spheres((24, 30, 28), 6, 0.5, 1)
    # Along z the voxels are divided, and the same problem is solved as with cubes.
    divided = diffuse(pore, 0, (2.0, 1.0, 1.0))
    assert divided.factor == pytest.approx(diffuse(np.repeat(pore, 2, axis=0), 0, CUBES).factor, rel=1e-6)
    # Along y they are one long voxel; as cubes there are two, and fluxes around corners differ a little.
    long = diffuse(pore, 1, (2.0, 1.0, 1.0))
    assert long.factor == pytest.approx(diffuse(np.repeat(pore, 2, axis=0), 1, CUBES).factor, rel=0.03)
    channel = np.ones((9, 5, 5), bool)
    for spacing in ((3.0, 1.0, 1.0), (1.0, 2.0, 4.0), (1.0, 0.3, 0.3)):
        assert diffuse(channel, 0, spacing).factor == pytest.approx(1, abs=1e-3)


def test_what_does_not_converge_has_no_number():
    pore = overlapping_spheres((40, 40, 40), 5, 0.9, 1)
    found = diffuse(pore, 0, CUBES, most=100)
    assert found.status == UNFINISHED
    assert found.factor is None
    assert found.diffusivity is None
    assert found.iterations == 100
    whole = tuple(slice(0, side) for side in pore.shape)
    (note,) = tortuosity_notes(Tortuosities(whole, pore.shape, 0.0, (("pore", 0, found),), "cpu"))
    assert note.startswith("tortuosity of pore along z: not converged after 100 iterations, flux varies by")
    assert diffuse(pore, 0, CUBES).status == CONVERGED


def test_threads_do_not_change_the_bits():
    import torch

    pore = overlapping_spheres((32, 32, 32), 5, 0.5, 1)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(diffuse(pore, 0, CUBES))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


def test_a_central_part_is_solved_and_named():
    labels = overlapping_spheres((30, 32, 34), 5, 0.4, 1).astype(np.uint8) + 1
    result = measure_labels(labels, **FAST, tortuosity="y", tortuosity_size=20, classes="class 2")
    summary = result.summary["tortuosity"]
    assert summary["part"] == "central part"
    assert summary["box [voxel]"] == {"z": [5, 25], "y": [6, 26], "x": [7, 27]}
    assert (
        "tortuosity: of the central part z 5:25, y 6:26, x 7:27 of 30 x 32 x 34 voxels"
        in result.summary["notes"]
    )
    expected = diffuse(labels[5:25, 6:26, 7:27] == 2, 1, CUBES)
    assert result.tables["tortuosity"].columns["tortuosity factor"] == [expected.factor]


def test_what_does_not_fit_in_memory_is_refused_or_cut():
    huge = open_volume(np.broadcast_to(np.ones((1, 1, 1), np.uint8), (2**14, 2**14, 2**14)))
    middle = slice(2**13 - SIZE // 2, 2**13 + SIZE // 2)
    assert box_to_solve(huge, None) == (middle,) * 3
    with pytest.raises(ResourceError, match="smaller --tortuosity-size"):
        box_to_solve(huge, 2**14)


def test_unlabelled_voxels_are_closed_and_told():
    labels = np.ones((10, 8, 8), np.uint8)
    labels[:, :4] = 0
    result = measure_labels(labels, **FAST, tortuosity="all")
    rows = {row["axis"]: row for row in result.summary["tortuosity"]["results"]}
    assert rows["z"]["tortuosity factor"] == pytest.approx(1, abs=1e-3)
    assert rows["z"]["relative diffusivity"] == pytest.approx(0.5, rel=1e-3)
    assert rows["y"]["status"] == CLOSED
    assert "tortuosity: 50 % of the voxels are of no class, and closed" in result.summary["notes"]


def test_planes_have_two_axes():
    image = np.ones((12, 14), np.uint8)
    for labels in (image, image[None]):
        result = measure_labels(labels, **FAST, tortuosity="all")
        assert [row["axis"] for row in result.summary["tortuosity"]["results"]] == ["y", "x"]
        with pytest.raises(UsageError, match="expected several planes for tortuosity along z"):
            measure_labels(labels, **FAST, tortuosity="z")


def test_the_command_writes_tortuosity(tmp_path):
    labels = np.full((12, 10, 10), 2, np.uint8)
    labels[:, 2:8, 2:8] = 1
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    out = tmp_path / "out"
    arguments = ("measure", tmp_path / "labels.tif", "-o", out, "--engine", "serial", "--tortuosity", "all")
    done = CliRunner().invoke(main, [*map(str, arguments), "--class", "class 1", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert "none (does not percolate)" in done.output
    assert "Warning" not in done.output
    with (out / "tortuosity.csv").open() as file:
        found = list(csv.DictReader(file))
    assert [row["axis"] for row in found] == ["z", "y", "x"]
    assert float(found[0]["tortuosity factor"]) == pytest.approx(1, abs=1e-3)
    assert found[1]["tortuosity factor"] == ""
    assert found[0]["z1 [voxel]"] == "12"
    summary = json.loads((out / "summary.json").read_text())
    assert summary["tortuosity"]["part"] == "whole volume"
    plain = CliRunner().invoke(main, [*map(str, arguments[:2]), "--tortuosity", "z", "--json"])
    assert json.loads(plain.stdout)["tortuosity"]["results"][0]["class"] == "class 1"
