"""Cubes that a student of planes labels along all axes, for the training of students of volumes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hrvol.distil.cubes import MOST, SIDE, Cube, CubeSource, cube_boxes, label_cubes, predict_planes
from hrvol.distil.examples import CropShape, LabelledTile
from hrvol.distil.planes import PlaneTile, layout
from hrvol.engine.stop import Stop
from hrvol.errors import StoppedError
from hrvol.recipe.specs import TileSpec
from hrvol.segment.student.network import StudentNetwork, folded, network_arrays
from hrvol.segment.student.runner import StudentRunner
from hrvol.segment.student.spec import StudentSpec
from hrvol.segment.student.student import StudentClassifier
from hrvol.volume.volume import open_volume

FLAT = StudentSpec(widths=(4, 6), pools=((1, 2, 2),), depth_kernels=(1, 1))

SHAPE = CropShape((8, 16, 16), (0, 36, 36))


def student(seed: int = 0) -> StudentClassifier:
    """Return a student of planes with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = StudentNetwork(FLAT, 3)
    return StudentClassifier(FLAT, (1, 2, 3), network_arrays(folded(network)))


def grey(shape: tuple[int, int, int]) -> np.ndarray:
    """Return random grey values."""
    return np.random.default_rng(1).integers(0, 255, shape, dtype=np.uint8)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_planes_across_an_axis_are_those_of_the_transposed_volume(axis: int) -> None:
    values, runner = grey((20, 30, 44)), StudentRunner(student())
    box = (slice(3, 18), slice(5, 30), slice(0, 41))
    found = predict_planes(runner, open_volume(values), (0.0, 255.0), box, axis)
    order = (axis, *(other for other in range(3) if other != axis))
    there = (box[order[0]], box[order[1]], box[order[2]])
    turned = open_volume(np.ascontiguousarray(values.transpose(order)))
    expected = predict_planes(runner, turned, (0.0, 255.0), there, 0)
    np.testing.assert_array_equal(found, expected.transpose(0, *(1 + order.index(n) for n in range(3))))
    assert found.shape == (3, 15, 25, 41)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)


def test_a_plane_is_predicted_as_without_cubes() -> None:
    values, runner = grey((5, 64, 64)), StudentRunner(student())
    whole = predict_planes(
        runner, open_volume(values), (0.0, 255.0), tuple(slice(0, n) for n in values.shape), 0
    )
    halo = FLAT.halo[1]
    window = np.pad(values[2:3] / np.float32(255), ((0, 0), (halo, halo), (halo, halo)), mode="reflect")
    np.testing.assert_allclose(whole[:, 2:3], runner.probabilities(window), atol=1e-5)
    part = (slice(2, 3), slice(10, 50), slice(20, 61))
    found = predict_planes(runner, open_volume(values), (0.0, 255.0), part, 0)
    np.testing.assert_allclose(found, whole[(slice(None), *part)], atol=1e-5)


def tile_at(shape: tuple[int, int, int], position: int, number: int) -> LabelledTile:
    """Return a tile of a plane along z."""
    tiles = layout(shape, 0, TileSpec(core=128, overlap=16))
    height, width = (stop - start for start, stop in (tiles[number].core[:2], tiles[number].core[2:]))
    return LabelledTile(PlaneTile(0, position, tiles[number]), np.zeros((2, height, width), np.float16))


def test_cubes_lie_in_the_volume_and_apart() -> None:
    shape = (700, 600, 500)
    rng = np.random.default_rng(0)
    count = len(layout(shape, 0, TileSpec(core=128, overlap=16)))
    tiles = [tile_at(shape, int(rng.integers(700)), int(rng.integers(count))) for _ in range(40)]
    boxes = cube_boxes(shape, tiles)
    assert len(boxes) == MOST
    centres = [tuple((span.start + span.stop) // 2 for span in box) for box in boxes]
    for number, box in enumerate(boxes):
        assert all(
            s.stop - s.start == SIDE and s.start >= 0 and s.stop <= n for s, n in zip(box, shape, strict=True)
        )
        held = [all(s.start <= c < s.stop for s, c in zip(box, centre, strict=True)) for centre in centres]
        assert held[number]
    assert len(set(centres)) == MOST
    small = (40, 100, 120)
    assert cube_boxes(small, [tile_at(small, z, 0) for z in (3, 20, 39)]) == [
        tuple(slice(0, n) for n in small)
    ]


def test_crops_hold_the_probabilities_and_grey_values_of_their_voxels() -> None:
    values = grey((6, 40, 50))  # thinner than a crop
    volume = open_volume(values)
    box = (slice(0, 6), slice(4, 40), slice(0, 44))
    source = label_cubes(volume, (0.0, 255.0), student(), [box], SHAPE, Stop())
    expected = sum(
        predict_planes(StudentRunner(student()), volume, (0.0, 255.0), box, axis) for axis in range(3)
    )
    (cube,) = source.cubes
    np.testing.assert_allclose(cube.probabilities, expected / 3, atol=1e-3)
    crop = cube.crop((0, 20, 10), SHAPE)
    assert crop.labelled[:6].all()
    assert not crop.labelled[6:].any()
    np.testing.assert_array_equal(
        crop.target[:, :6], cube.probabilities[:, :, 16:32, 10:26].astype(np.float32)
    )
    np.testing.assert_allclose(
        crop.grey[:6, 36:52, 36:52], values[:, 20:36, 10:26] / np.float32(255), atol=1e-6
    )
    assert crop.grey.shape == (8, 88, 88)
    rng = np.random.default_rng(0)
    for _ in range(20):
        drawn = source.draw(SHAPE, 0.5, rng)
        assert drawn.grey.shape == crop.grey.shape
        assert drawn.labelled.sum() == 6 * 16 * 16
        np.testing.assert_allclose(drawn.target.sum(axis=0)[drawn.labelled], 1, atol=5e-3)


def test_crops_around_a_rare_class_hold_it() -> None:
    probabilities = np.zeros((2, 30, 40, 40), np.float16)
    probabilities[0] = 1
    probabilities[:, 7, 30, 12] = 0, 1
    raw = np.zeros((30, 112, 112), np.uint8)
    cube = Cube((slice(0, 30), slice(0, 40), slice(0, 40)), probabilities, raw, (0, -36, -36), (0.0, 255.0))
    source, rng = CubeSource((cube,)), np.random.default_rng(0)
    held = [source.draw(SHAPE, 1.0, rng).target[1].any() for _ in range(20)]
    assert 3 <= sum(held) <= 17  # half of them, about
    np.testing.assert_allclose(source.shares, [1 - 1 / 48000, 1 / 48000], rtol=1e-3)


def test_labelling_can_be_stopped() -> None:
    stop = Stop()
    stop.request()
    with pytest.raises(StoppedError):
        label_cubes(
            open_volume(grey((6, 40, 50))), (0.0, 255.0), student(), [(slice(0, 6),) * 3], SHAPE, stop
        )
