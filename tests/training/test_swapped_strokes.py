"""A grey volume as strokes is refused in seconds; dense and sparse labels of any kind are not."""

import time

import numpy as np
import pytest
import tifffile
import zarr
from run_data import QUICK, SHAPE, draw, make_volume

from hrvol.analysis.evaluate import evaluate_volumes
from hrvol.classes import default_colour, default_colours
from hrvol.errors import InputError, StrokesError
from hrvol.phantom import make_phantom
from hrvol.training.strokes import TrainingPair, stroke_blocks
from hrvol.training.train import train_model
from hrvol.volume.strokes.open_strokes import open_strokes
from hrvol.volume.volume import open_volume


def regions(classes, shape=(8, 200, 220), side=20, drawn=1.0):
    """Label regions of a grid, of which a share is drawn."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(1, classes + 1, [-(-n // side) for n in shape]).astype(np.uint16)
    labels = coarse.repeat(side, 0).repeat(side, 1).repeat(side, 2)[: shape[0], : shape[1], : shape[2]]
    return np.where(rng.random(shape) < drawn, labels, 0)


def test_swapped(tmp_path, data):
    image, _, strokes = data
    tifffile.imwrite(tmp_path / "image.tif", image)
    tifffile.imwrite(tmp_path / "strokes.tif", strokes)
    began = time.process_time()
    with pytest.raises(
        StrokesError, match=r"image\.tif: found \d+ different values on .*swapped\?"
    ) as caught:
        train_model([(tmp_path / "strokes.tif", tmp_path / "image.tif")], recipe=QUICK)
    assert time.process_time() - began < 5
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", ["8 bits", "16 bits", "smooth", "masked", "large"])
def test_grey_volumes_as_strokes(kind):
    rng = np.random.default_rng(0)
    shape = (64, 512, 512) if kind == "large" else (6, 200, 220)
    grey = rng.normal(120, 25, shape).clip(1, 255).astype(np.uint8)
    if kind == "16 bits":
        grey = rng.normal(20_000, 3000, shape).astype(np.uint16)
    if kind == "smooth":
        ramp = np.linspace(1, 255, shape[2])
        grey = np.broadcast_to(ramp, shape).astype(np.uint8).copy()
    if kind == "masked":
        y, x = np.indices(shape[1:])
        grey[:, (y - 100) ** 2 + (x - 110) ** 2 > 60**2] = 0
    began = time.process_time()
    with pytest.raises(StrokesError, match="swapped"):
        train_model([(np.zeros(shape, np.uint8), grey)], recipe=QUICK)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "labels",
    [
        regions(20),
        regions(60),
        regions(3, drawn=0.01),
        regions(90, drawn=0.05),
        regions(20, side=1),
        draw(make_volume()[1]),
        make_phantom((4, 128, 128)).labels,
    ],
    ids=["dense", "many classes", "sparse", "sparse of many", "noise of few", "strokes", "phantom"],
)
def test_labels_stay_accepted(labels):
    pair = TrainingPair(open_volume(np.zeros(labels.shape, np.uint8)), open_strokes(labels))
    assert list(stroke_blocks([pair]))


def test_strokes_of_absurd_size_or_value(tmp_path):
    for name in ("volume", "strokes"):
        # What is not stored is drawn: all of it would be read.
        zarr.create_array(
            tmp_path / f"{name}.zarr", shape=[100_000] * 3, chunks=[64] * 3, dtype="u1", fill_value=1
        )
    with pytest.raises(StrokesError, match="strokes of shape"):
        train_model([(tmp_path / "volume.zarr", tmp_path / "strokes.zarr")], recipe=QUICK)
    with pytest.raises(InputError, match=r"strokes\.zarr: found shape \(100000, 100000, 100000\)"):
        evaluate_volumes(tmp_path / "volume.zarr", tmp_path / "strokes.zarr")
    strokes = np.zeros(SHAPE, np.uint32)
    strokes[0, :9, :9], strokes[0, 20:29, :9] = 1, 10**9
    with pytest.raises(StrokesError, match="found label 1000000000"):
        train_model([(np.zeros(SHAPE, np.uint8), strokes)], recipe=QUICK)


@pytest.mark.parametrize("value", [10**9, -3])
@pytest.mark.parametrize("which", ["pred", "truth"])
def test_labels_to_compare_are_classes(tmp_path, value, which):
    good = np.ones((5, 30, 40), np.int32)
    bad = good.copy()
    bad[2, 3, 4] = value
    tifffile.imwrite(tmp_path / "good.tif", good)
    tifffile.imwrite(tmp_path / "bad.tif", bad)
    pair = {"pred": tmp_path / "good.tif", "truth": tmp_path / "good.tif", which: tmp_path / "bad.tif"}
    with pytest.raises(InputError, match=rf"bad\.tif: found label {value}, expected 0 to 4095"):
        evaluate_volumes(**pair)


def test_a_colour_is_that_of_its_value():
    assert tuple(map(default_colour, range(1, 40))) == default_colours(39)
    assert max(default_colour(10**9)) < 256
