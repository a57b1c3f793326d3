"""The student network sees as far as its spec says, and windows of one lattice agree exactly."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from student_data import CUBIC, MIXED, SPECS, random_network, student

from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import TileSpec
from hrvol.segment.student.lattice import (
    WINDOW_BYTES,
    bytes_per_voxel,
    lattice_of,
    reflected,
    student_tiles,
)
from hrvol.segment.student.network import folded, network_arrays, network_of
from hrvol.segment.student.normalise import network_input
from hrvol.segment.student.runner import StudentRunner
from hrvol.segment.student.shapes import array_shapes, flop_per_voxel
from hrvol.segment.student.spec import SIZES, StudentSpec


@pytest.mark.parametrize("spec", [*SPECS, *SIZES.values()])
def test_the_network_sees_exactly_as_far_as_its_spec_says(spec: StudentSpec) -> None:
    network = random_network(spec).double()
    z, y, _ = spec.alignment
    reach = [spec._reach(axis) for axis in range(3)]
    sides = [
        -(-2 * (around + step) // step) * step for around, step in zip(reach, spec.alignment, strict=True)
    ]
    shape = sides if spec.is_3d else sides[1:]
    grey = torch.randn(1, spec.channels, *shape, dtype=torch.double, requires_grad=True)
    logits = network(grey)
    seen = [0] * len(shape)
    for offset in range(max(z, y)):
        at = [
            side // 2 + offset % step for side, step in zip(shape, spec.alignment[-len(shape) :], strict=True)
        ]
        (gradient,) = torch.autograd.grad(logits[(0, 1, *at)], grey, retain_graph=True)
        used = (gradient[0] != 0).any(0).nonzero()
        for axis, centre in enumerate(at):
            low, high = int(used[:, axis].min()), int(used[:, axis].max())
            seen[axis] = max(seen[axis], centre - low, high - centre)
    assert seen == reach[-len(shape) :]


@pytest.mark.parametrize("spec", SPECS)
def test_folding_keeps_what_the_network_computes(spec: StudentSpec) -> None:
    network = random_network(spec)
    grey = torch.rand(2, spec.channels, *([4] if spec.is_3d else []), 16, 16)
    arrays = network_arrays(folded(network))
    with torch.inference_mode():
        torch.testing.assert_close(network_of(spec, 3, arrays)(grey), network(grey), rtol=1e-4, atol=1e-5)
    assert {name: values.shape for name, values in arrays.items()} == array_shapes(spec, 3)


def test_sizes_cost_what_their_description_says() -> None:
    cost = {name: flop_per_voxel(spec, 3) / 1e3 for name, spec in SIZES.items()}
    assert cost["small"] == pytest.approx(6, abs=0.5)
    assert cost["medium"] == pytest.approx(22, abs=1)
    assert cost["large"] == pytest.approx(48, abs=1)


def test_local_normalisation_is_the_mean_and_deviation_of_the_surroundings() -> None:
    rng = np.random.default_rng(0)
    grey = rng.random((1, 1, 144, 144), np.float32)
    local = network_input(torch.from_numpy(grey), "alone", 40)[0, 0].numpy()
    # The two box filters of 9 x 9 pools, as one kernel of pixels around a pool's centre.
    box = np.convolve(np.ones(9), np.ones(9)) / 81
    kernel = np.outer(box, box)
    pools = grey[0, 0].reshape(36, 4, 36, 4)
    around = (slice(5, 22), slice(5, 22))  # 17 pools, of which the middle one is pool (13, 13)
    mean = (pools.mean((1, 3))[around] * kernel).sum()
    square = ((pools**2).mean((1, 3))[around] * kernel).sum()
    expected = (grey[0, 0, 52:56, 52:56].mean() - mean) * 0.5 / (np.sqrt(square - mean**2) + 0.02)
    assert local[12:16, 12:16].mean() == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_normalised_values_survive_drift_of_brightness_and_contrast(factor: float) -> None:
    grey = torch.rand(1, 1, 144, 144)
    local, drifted = (network_input(values, "alone", 40) for values in (grey, grey * factor + 0.1))
    assert (local - drifted).abs().max() < 0.15 * local.abs().max()


@given(st.integers(1, 9), st.integers(-40, 40), st.integers(1, 30))
def test_mirroring_equals_numpys(length: int, start: int, count: int) -> None:
    around = 100
    expected = np.pad(np.arange(length), around, mode="reflect")[start + around : start + count + around]
    assert reflected(start, start + count, length).tolist() == expected.tolist()


@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 90), st.integers(1, 90)),
    number=st.integers(0, len(SPECS) - 1),
    data=st.data(),
)
@settings(max_examples=25, deadline=None)
def test_any_box_has_the_bits_of_the_whole_volume(
    shape: tuple[int, int, int], number: int, data: st.DataObject
) -> None:
    spec = SPECS[number]
    volume = np.random.default_rng(sum(shape)).random(shape, np.float32)
    box = tuple(
        slice(a, b)
        for a, b in (
            sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in shape
        )
    )
    runner, lattice = StudentRunner(student(spec)), lattice_of(shape, spec)
    whole = np.zeros((3, *shape), np.float32)
    everything = tuple(slice(0, n) for n in shape)
    for target, region in ((whole, everything), (part := np.zeros_like(whole), box)):
        reads = lattice.reads(region)
        values = volume[reads]
        origin = tuple(span.start for span in reads)
        for cell in lattice.cells(region):
            proba = runner.probabilities(lattice.cut(lattice.window(cell), values, origin))
            shared = [
                slice(max(c.start, b.start), min(c.stop, b.stop)) for c, b in zip(cell, region, strict=True)
            ]
            inside = [slice(s.start - c.start, s.stop - c.start) for s, c in zip(shared, cell, strict=True)]
            target[(slice(None), *shared)] = proba[(slice(None), *inside)]
    assert np.array_equal(part[(slice(None), *box)], whole[(slice(None), *box)])
    assert np.allclose(whole.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize("spec", [SIZES["small"], MIXED, CUBIC])
@pytest.mark.parametrize("shape", [(1, 100, 100), (115, 250, 250), (400, 2100, 4200), (4000, 10000, 10000)])
def test_tiles_of_a_run_hold_what_its_students_cells_need(
    spec: StudentSpec, shape: tuple[int, int, int]
) -> None:
    lattice = lattice_of(shape, spec)
    tiles = student_tiles(lattice)
    assert tiles.overlap >= lattice.halo[1]
    assert tiles.overlap_planes == lattice.halo[0]
    assert tiles.planes % lattice.cell[0] == 0
    assert lattice.cell[1] % spec.alignment[1] == 0
    assert Recipe(tiles=tiles).with_(seed=1).tiles == tiles


def test_cells_are_as_large_as_memory_and_time_allow() -> None:
    shape = (64, 4000, 4000)
    for spec in (*SIZES.values(), MIXED, CUBIC):
        for classes in (3, 200):
            lattice = lattice_of(shape, spec, 1, classes)
            window = [c + 2 * h for c, h in zip(lattice.cell, spec.network_halo, strict=True)]
            assert prod(window) * bytes_per_voxel(spec, classes) <= WINDOW_BYTES
    # Without arrays that are mapped anew for each window, if these do not see much more than their cells.
    assert lattice_of((16, 2048, 2048), SIZES["small"]).cell == (1, 1024, 1024)
    assert lattice_of((16, 2048, 2048), SIZES["medium"]).cell == (1, 2048, 2048)


def test_recipes_without_planes_of_context_are_written_as_before() -> None:
    assert "overlap_planes" not in Recipe().to_dict()["tiles"]
    assert TileSpec(overlap_planes=3).to_dict()["overlap_planes"] == 3
