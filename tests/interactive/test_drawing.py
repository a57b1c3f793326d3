"""Strokes of a version: only changed planes are read, and pixels are chosen as training chooses them."""

import numpy as np
import pytest
from session_data import ReadDrawing, classes

from hrvol.errors import StrokesError
from hrvol.interactive.array_drawing import ArrayDrawing
from hrvol.interactive.drawing import DrawnStrokes
from hrvol.segment.strokes import StrokeBlock, choose_listed, choose_pixels
from hrvol.training.strokes import TrainingPair, stroke_blocks
from hrvol.volume.volume import open_volume


@pytest.fixture
def labels():
    rng = np.random.default_rng(0)
    return np.where(rng.random((4, 30, 40)) < 0.1, rng.integers(1, 4, (4, 30, 40)), 0).astype(np.uint8)


def test_only_changed_planes_are_read(labels):
    drawing = ReadDrawing(labels, classes())
    strokes = DrawnStrokes(drawing)
    first = strokes.read()
    assert strokes.version == first.version
    assert strokes.read() is first
    drawing.paint((slice(1, 3), slice(5, 9), slice(5, 9)), 2)
    drawing.paint((slice(3, 4), slice(0, 30), slice(0, 40)), 0)  # the whole plane is erased
    assert strokes.version == 2
    second = strokes.read()
    assert drawing.reads == [None, (1, 2, 3)]
    now = drawing.read((slice(0, 4), slice(0, 30), slice(0, 40)))
    assert np.array_equal(second.painted.places, np.argwhere(now))
    assert np.array_equal(second.painted.values, now[now > 0])
    assert (first.version, second.version) == (0, 2)
    drawing.paint((slice(0, 4), slice(0, 30), slice(0, 40)), 0)
    assert strokes.read().values == ()


@pytest.mark.parametrize("per_class", [None, 5, 60])
def test_the_choice_is_that_of_training(labels, per_class):
    drawn = DrawnStrokes(ReadDrawing(labels, classes())).read()
    expected = choose_pixels([StrokeBlock(0, (0, 0, 0), labels)], per_class, 7)
    found = drawn.choose(per_class, 7)
    for name in ("where", "labels"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))
    assert found.drawn == expected.drawn
    pair = TrainingPair(open_volume(labels), drawn.strokes())
    again = choose_pixels(stroke_blocks([pair]), per_class, 7)
    assert np.array_equal(again.where, expected.where)


def test_nothing_and_one_class_can_be_chosen_from(labels):
    nothing = choose_listed(np.empty((0, 4), np.int64), np.empty(0, np.uint16), 5, 0)
    assert len(nothing) == 0
    drawn = DrawnStrokes(ReadDrawing((labels == 1).astype(np.uint8))).read()
    assert drawn.values == (1,)
    assert len(drawn.choose(5, 0)) == 5
    with pytest.raises(StrokesError, match="found 1 classes drawn"):
        drawn.check()


def test_classes_are_named_by_the_drawing_or_numbered(labels):
    assert [info.name for info in DrawnStrokes(ReadDrawing(labels, classes())).read().infos()] == [
        "pore",
        "binder",
        "particle",
    ]
    assert DrawnStrokes(ReadDrawing(labels)).read().infos()[1].name == "class 2"


def test_strokes_in_memory_are_volumes_of_integers():
    for labels in (np.zeros((3, 4), np.uint8), np.zeros((1, 3, 4))):
        with pytest.raises(StrokesError, match="expected 3-D integers"):
            ArrayDrawing(labels)
