"""Parts of a distillation: choice of tiles, crops, augmentation, the training step, the check, the cache."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hrvol.distil.augment import augmented
from hrvol.distil.cache import DistilCache, distil_dir, tidy
from hrvol.distil.check import agreement, fit_temperature
from hrvol.distil.choose import Turns, candidates
from hrvol.distil.examples import (
    Crop,
    CropShape,
    Example,
    LabelledTile,
    MixedSource,
    TileSource,
    class_weights,
    draw_crop,
    draw_place,
    read_example,
)
from hrvol.distil.fit import Fit, FitSettings
from hrvol.distil.planes import PlaneTile, layout
from hrvol.distil.rarity import factors_of, weighed
from hrvol.distil.sample import TeacherSample
from hrvol.distil.teach import problems_of
from hrvol.errors import ModelError
from hrvol.quality.calibration import tempered
from hrvol.recipe.specs import TileSpec
from hrvol.segment.student.network import StudentNetwork, folded, network_arrays
from hrvol.segment.student.runner import StudentRunner
from hrvol.segment.student.spec import StudentSpec
from hrvol.segment.student.student import StudentClassifier
from hrvol.volume.volume import open_volume

TILES = TileSpec(core=64, overlap=16)
SHAPE = CropShape((1, 32, 32), (0, 4, 4))
SMALL = CropShape((1, 64, 64), (0, 36, 36))
TINY = StudentSpec(widths=(4, 8), pools=((1, 2, 2),), depth_kernels=(1, 1))


def volume_of(shape: tuple[int, int, int]) -> np.ndarray:
    """Return a volume in which each voxel has a value of its own."""
    return np.arange(np.prod(shape), dtype=np.uint32).reshape(shape)


def labelled(volume: np.ndarray, axis: int, position: int, number: int = 0) -> LabelledTile:
    """Return a tile whose probability of class 1 tells the place of each voxel."""
    tile = PlaneTile(axis, position, layout(volume.shape, axis, TILES)[number])
    first = (volume[tile.core] / volume.size).squeeze(axis)
    return LabelledTile(tile, np.stack([first, 1 - first]).astype(np.float16))


@given(axis=st.integers(0, 2), position=st.integers(0, 9), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_crops_have_the_grey_values_and_targets_of_their_voxels(axis: int, position: int, seed: int) -> None:
    volume = volume_of((10, 70, 90))
    shape = SHAPE if axis == 0 else CropShape((4, 16, 16), (0, 4, 4))
    tiles = [labelled(volume, axis, position), labelled(volume, 0, 5)]
    examples = [read_example(open_volume(volume), (0.0, volume.size), tile, shape) for tile in tiles]
    crop = draw_crop(examples, 0, shape, np.random.default_rng(seed))
    assert crop.labelled.any()
    inner = tuple(slice(m, m + s) for m, s in zip(shape.margin, shape.side, strict=True))
    # Half precision of targets; grey values are exact.
    difference = np.abs(crop.grey[inner] - crop.target[0])[crop.labelled]
    assert difference.max() < 1e-3
    assert np.abs(crop.target.sum(0) - 1)[crop.labelled].max() < 2e-3
    assert crop.grey.shape == tuple(s + 2 * m for s, m in zip(shape.side, shape.margin, strict=True))


@given(axis=st.integers(0, 2), position=st.integers(0, 9), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_tiles_of_all_axes_are_turned_for_students_of_planes(axis: int, position: int, seed: int) -> None:
    volume = volume_of((40, 70, 90))
    tile = labelled(volume, axis, position)
    example = read_example(open_volume(volume), (0.0, volume.size), tile, SHAPE, turned=True)
    crop = draw_crop([example], 0, SHAPE, np.random.default_rng(seed))
    assert crop.labelled.sum() == min(tile.probabilities.shape[1], 32) * 32
    difference = np.abs(crop.grey[:, 4:-4, 4:-4] - crop.target[0])[crop.labelled]
    assert difference.max() < 1e-3
    rows, columns = (np.abs(np.diff(crop.grey[0], axis=number)).max() for number in (0, 1))
    if crop.labelled.all() and position > 5:
        steps = [stride / volume.size for stride in (70 * 90, 90, 1)]
        del steps[axis]
        assert np.allclose([rows, columns], steps, rtol=0.05, atol=1e-6)


def test_sources_are_drawn_from_as_often_as_they_have_weight() -> None:
    sources = [TileSource(examples_to_learn(1)), TileSource(examples_to_learn(2))]
    mixed = MixedSource(sources, [1.0, 3.0])
    expected = (sources[0].shares + 3 * sources[1].shares) / 4
    np.testing.assert_allclose(mixed.shares, expected)
    assert mixed.draw(SMALL, 0.0, np.random.default_rng(0)).grey.shape == (1, 136, 136)


def test_tiles_that_cross_are_averaged() -> None:
    volume = volume_of((40, 64, 64))
    shape = CropShape((32, 32, 32), (0, 0, 0))
    along_z, along_y = labelled(volume, 0, 16), labelled(volume, 1, 16)
    ones = np.zeros_like(along_y.probabilities)
    ones[0] = 1
    along_y = replace(along_y, probabilities=ones)
    examples = [read_example(open_volume(volume), (0.0, volume.size), t, shape) for t in (along_z, along_y)]
    rng = np.random.default_rng(0)
    crops = [draw_crop(examples, 0, shape, rng) for _ in range(100)]
    shares = [crop.target[0][crop.labelled] for crop in crops if (crop.target[0] == 1).any()]
    assert shares  # some crops see both
    counts = [crop.labelled.sum() for crop in crops]
    assert max(counts) == 2 * 32 * 32 - 32


@given(seed=st.integers(0, 10_000))
def test_augmentation_moves_grey_values_and_targets_alike(seed: int) -> None:
    rng = np.random.default_rng(seed)
    inner = rng.random((2, 8, 8)).astype(np.float32)
    grey = np.pad(inner, ((0, 0), (3, 3), (3, 3)))
    crop = Crop(grey, np.stack([inner, 1 - inner]), inner > 0.5)
    moved = augmented(crop, rng, 0)
    centre = moved.grey[:, 3:-3, 3:-3]
    assert np.array_equal(centre, moved.target[0])
    assert np.array_equal(centre > 0.5, moved.labelled)
    changed = augmented(crop, np.random.default_rng(seed), 1)
    assert changed.grey.dtype == np.float32
    assert np.isfinite(changed.grey).all()


def test_tiles_are_taken_from_all_clusters_and_more_where_the_teacher_is_unsure() -> None:
    rng = np.random.default_rng(0)
    planes = np.concatenate([rng.integers(0, 60, (40, 64, 64)), rng.integers(100, 250, (4, 64, 64))])
    volume = open_volume(planes.astype(np.uint8))
    found = candidates(volume, (0.0, 255.0), TILES, (0,), 0)
    assert len(found.tiles) == 44
    odd = {number for number, tile in enumerate(found.tiles) if tile.position >= 40}
    first = Turns(found, 0).take(10)
    assert first == Turns(found, 0).take(10)
    assert odd & set(first)
    assert len(set(Turns(found, 0).take(100))) == 44

    unsure, plain = Turns(found, 0), Turns(found, 0)
    for number in unsure.take(8):
        unsure.report(number, 1.0 if number in odd else 0.01)
    plain.take(8)
    assert len(odd & set(unsure.take(8))) >= len(odd & set(plain.take(8)))


def examples_to_learn(count: int = 3) -> list[Example]:
    """Return tiles in which bright voxels are class 2."""
    rng = np.random.default_rng(1)
    volume = rng.integers(0, 256, (count, 12, 12)).astype(np.uint8).repeat(8, 1).repeat(8, 2)
    opened = open_volume(volume)
    shape = SMALL
    tiles = []
    for z in range(count):
        tile = PlaneTile(0, z, layout(volume.shape, 0, TileSpec(core=96, overlap=0))[0])
        bright = (volume[z] > 128).astype(np.float16)
        tiles.append(LabelledTile(tile, np.stack([1 - bright, bright])))
    return [read_example(opened, (0.0, 255.0), tile, shape) for tile in tiles]


@given(axis=st.integers(0, 2), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_crops_around_a_rare_class_hold_it(axis: int, seed: int) -> None:
    volume = volume_of((70, 80, 90))
    shape = SHAPE if axis == 0 else CropShape((4, 16, 16), (0, 4, 4))
    rng = np.random.default_rng(seed)
    tiles = [labelled(volume, axis, position) for position in (3, 5, 8)]
    rows, columns = tiles[0].probabilities.shape[1:]
    rare, place = int(rng.integers(3)), (int(rng.integers(rows)), int(rng.integers(columns)))
    for number, tile in enumerate(tiles):
        first = np.ones((rows, columns), np.float16)
        first[place] -= number == rare  # one pixel of class 2 in all tiles
        tiles[number] = LabelledTile(tile.where, np.stack([first, 1 - first]))
    examples = [read_example(open_volume(volume), (0.0, volume.size), tile, shape) for tile in tiles]
    drawn = [draw_place(examples, 1.0, rng) for _ in range(20)]
    of_rare = [entry for entry in drawn if entry == (rare, place)]
    assert 3 <= len(of_rare) <= 17  # half of them, about
    crop = draw_crop(examples, rare, shape, rng, place)
    assert crop.target[1].max() > 0
    assert not any(entry[1] for entry in (draw_place(examples, 0.0, rng) for _ in range(5)))


def test_training_has_the_same_bits_whether_interrupted_or_not() -> None:
    examples, wanted = examples_to_learn(), FitSettings(steps=6)
    whole = Fit(TINY, 2, wanted, shape=SMALL)
    for _ in range(6):
        whole.run_step(TileSource(examples))
    first = Fit(TINY, 2, wanted, shape=SMALL)
    for _ in range(3):
        first.run_step(TileSource(examples))
    second = Fit(TINY, 2, replace(wanted), shape=SMALL)
    torch.manual_seed(99)  # nothing depends on the global generator
    second.restore(first.state())
    for _ in range(3):
        second.run_step(TileSource(examples))
    assert second.step == 6
    for name, value in whole.state().items():
        assert torch.equal(value, second.state()[name]), name


def test_rare_classes_count_more_and_the_mean_voxel_counts_once() -> None:
    examples = examples_to_learn()
    found = []
    for example in examples:
        first = np.zeros((96, 96), np.float16)
        first[:6, :16] = 1  # a 96th
        tile = replace(example.tile, probabilities=np.stack([first, 1 - first]))
        found.append(replace(example, tile=tile))
    weights = class_weights(TileSource(found).shares, 0.5)
    np.testing.assert_allclose(weights @ [1 / 96, 95 / 96], 1, rtol=1e-3)
    np.testing.assert_allclose(weights[0] / weights[1], 95**0.5, rtol=1e-3)
    np.testing.assert_allclose(class_weights(TileSource(found).shares, 0.0), 1)
    even, weighed = (
        Fit(TINY, 2, FitSettings(steps=2), shape=SMALL).run_step(TileSource(found), entry)
        for entry in (None, weights)
    )
    assert even != weighed


def test_states_are_compared_by_what_the_training_minimises() -> None:
    fit = Fit(TINY, 2, FitSettings(steps=2), shape=SMALL)
    sure = np.array([0.95, 0.05], np.float16)
    teacher = [np.tile(sure[:, None, None], (1, 8, 8)), np.tile(sure[::-1, None, None], (1, 8, 2))]
    tiles = [
        replace(one, tile=replace(one.tile, probabilities=p))
        for one, p in zip(examples_to_learn(2), teacher, strict=True)
    ]
    weights = class_weights(TileSource(tiles).shares, 1.0)

    def unsure(share: float) -> list[np.ndarray]:
        """Return what a student predicts that cannot tell the two apart."""
        return [np.tile(np.array([1 - share, share], np.float32)[:, None, None], (1, 8, n)) for n in (8, 2)]

    shares = np.linspace(0.1, 0.9, 17)
    plain = shares[np.argmin([fit.loss_on(teacher, unsure(share)) for share in shares])]
    weighed = shares[np.argmin([fit.loss_on(teacher, unsure(share), weights) for share in shares])]
    np.testing.assert_allclose(plain, 0.25, atol=0.05)
    np.testing.assert_allclose(weighed, 0.5, atol=0.05)
    same = [one.astype(np.float32) for one in teacher]
    entropy = -(0.95 * np.log(0.95) + 0.05 * np.log(0.05))
    np.testing.assert_allclose(fit.loss_on(teacher, same), entropy, rtol=1e-2)


def test_training_learns_what_the_tiles_show() -> None:
    fit = Fit(TINY, 2, FitSettings(steps=60, augmentation=0, learning_rate=1e-2), shape=SMALL)
    examples = examples_to_learn()
    losses = [fit.run_step(TileSource(examples)) for _ in range(60)]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])


def test_a_loss_that_is_not_finite_is_one_line() -> None:
    examples = examples_to_learn(1)
    tile = examples[0].tile
    broken = replace(examples[0], tile=replace(tile, probabilities=np.full_like(tile.probabilities, np.nan)))
    with pytest.raises(ModelError, match=r"found a loss of nan at step 0, expected a finite one"):
        Fit(TINY, 2, FitSettings(steps=2), shape=SMALL).run_step(TileSource([broken]))


def test_a_student_that_loses_a_class_is_rejected() -> None:
    teacher = np.zeros((3, 64, 64), np.float32)
    teacher[0] = 1
    teacher[:, :16, :32] = np.array([0, 1, 0])[:, None, None]  # 512 pixels of class 2
    teacher[:, 60:, 60:] = np.array([0, 0, 1])[:, None, None]  # 16 of class 3
    names = ["matrix", "pore", "crack"]
    for kept, problems in ((200, 0), (100, 1), (0, 1)):
        student = teacher.copy()
        student[:, 60:, 60:] = np.array([1, 0, 0])[:, None, None]
        lost = student[:, :16, :32].reshape(3, -1)
        lost[:, kept:] = np.array([1, 0, 0])[:, None]
        student[:, :16, :32] = lost.reshape(3, 16, 32)
        found = agreement([teacher], [student])
        told = [line for line in problems_of(found, found, names) if line.startswith("class")]
        assert len(told) == problems
        assert all(f"class pore: the student finds {2 * kept:,} pixels, the teacher 1,024" in x for x in told)


def test_agreement_counts_pixels_and_tiles() -> None:
    one = np.zeros((2, 10, 10), np.float32)
    one[0] = 1
    other = one.copy()
    other[:, :5] = other[::-1, :5]  # half of the pixels are of the other class
    found = agreement([one, one, one], [one, one, other])
    assert found.share == pytest.approx(250 / 300)
    assert found.tiles.tolist() == [1, 1, 0.5]
    assert found.far_tiles == (2,)
    assert found.calibration_error == pytest.approx(50 / 300)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_of_too_sure_and_unsure_students_is_found(temperature: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (3, 60, 60))
    truth = np.exp(logits) / np.exp(logits).sum(0)
    found = np.exp(temperature * logits) / np.exp(temperature * logits).sum(0)
    fitted = fit_temperature([truth], [found.astype(np.float32)], 0)
    assert fitted == pytest.approx(temperature, rel=0.02)
    assert np.allclose(tempered(found.astype(np.float32), fitted), truth, atol=0.02)


def test_the_cache_keeps_whole_tiles_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HRVOL_CACHE_DIR", str(tmp_path))
    tile = labelled(volume_of((10, 70, 90)), 0, 3)
    cache = DistilCache.of({"teacher": "a"})
    assert cache.read_tile(tile.where, "g", 2) is None
    cache.write_tile(tile.where, "g", tile.probabilities)
    again = DistilCache.of({"teacher": "a"}).read_tile(tile.where, "g", 2)
    assert again is not None
    assert np.array_equal(again, tile.probabilities)
    assert DistilCache.of({"teacher": "b"}).read_tile(tile.where, "g", 2) is None
    assert cache.read_tile(tile.where, "g", 3) is None
    assert cache.read_tile(tile.where, "other", 2) is None
    (file,) = cache.folder.glob("*.npy")
    data = file.read_bytes()
    for damaged in (data[:-10], b"", b"\x93NUMPY", data[:200] + bytes(200) + data[400:]):
        file.write_bytes(damaged)
        assert cache.read_tile(tile.where, "g", 2) is None
    assert cache.read_state({"a": 1}) is None
    cache.write_state({"a": 1}, {"step": torch.tensor(3)})
    state = cache.read_state({"a": 1})
    assert state is not None
    assert int(state["step"]) == 3
    for file in cache.folder.glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-3])
    assert cache.read_state({"a": 1}) is None


def test_the_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HRVOL_CACHE_DIR", str(tmp_path))
    tile = labelled(volume_of((10, 70, 90)), 0, 3)
    caches = [DistilCache.of({"teacher": str(number)}) for number in range(3)]
    for number, cache in enumerate(caches):
        cache.write_tile(tile.where, "g", tile.probabilities)
        os.utime(cache.folder, (number, number))
    size = sum(file.stat().st_size for file in caches[0].folder.iterdir())
    tidy(caches[0], most=2 * size)
    assert {folder.name for folder in distil_dir().iterdir()} == {
        caches[0].folder.name,
        caches[2].folder.name,
    }


def test_a_students_odds_are_multiplied_by_factors() -> None:
    torch.manual_seed(0)
    arrays = network_arrays(folded(StudentNetwork(TINY, 3)))
    plain = StudentClassifier(TINY, (1, 2, 3), arrays, temperature=1.7)
    window = np.random.default_rng(0).random((1, 96, 96)).astype(np.float32)
    factors = np.array([0.5, 1.0, 0.1])
    before, after = (
        np.asarray(StudentRunner(s).probabilities(window)) for s in (plain, weighed(plain, factors))
    )
    expected = before * factors[:, None, None, None].astype(np.float32)
    assert np.allclose(after, expected / expected.sum(0), atol=1e-5)


def test_rare_classes_become_rarer_but_do_not_vanish():
    shares = np.array([0.8, 0.2])
    sure, unsure, no = (np.full((1, 100), values, np.float32) for values in (0.9, 0.55, 0.1))
    teacher = [np.stack([1 - rare, rare]) for rare in (sure, no)]
    np.testing.assert_allclose(factors_of(shares, 0.4, teacher, teacher), shares**0.4)
    student = [np.stack([1 - rare, rare]) for rare in (unsure, no)]
    factors = factors_of(shares, 0.4, teacher, student)  # 0.55 / 0.45 > (0.8 / 0.2) ** 0.12
    np.testing.assert_allclose(factors, shares**0.12)
    assert (student[0] * factors[:, None, None]).argmax(0).all()
    nowhere = [np.stack([1 - rare, rare]) for rare in (no, no)]
    np.testing.assert_allclose(factors_of(shares, 0.4, teacher, nowhere), 1)


@pytest.mark.parametrize(
    ("axes", "kept"), [((0, 0, 0, 0), {0}), ((1, 2, 1, 2), {1, 2}), ((1, 0, 2, 2, 1, 2), {0, 1})]
)
def test_some_tile_is_kept_back_whatever_the_axes(axes, kept):
    volume = volume_of((64, 64, 64))
    tiles = [labelled(volume, axis, position) for position, axis in enumerate(axes)]
    sample = TeacherSample(open_volume(volume), None, tiles, [1.0] * len(tiles), {}, "")
    assert {tile.where.axis for tile in sample.kept_back} <= kept
    assert len(sample.kept_back) == (1 if len(tiles) < 6 else 2)
    assert len(sample.training) + len(sample.kept_back) == len(tiles)
