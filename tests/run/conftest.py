"""Fixtures of the run tests."""

import pytest
from run_data import QUICK, draw, make_volume

from hrvol.run.pipeline import train_model


@pytest.fixture(scope="session")
def quick():
    return QUICK


@pytest.fixture(scope="session")
def data():
    image, truth = make_volume()
    return image, truth, draw(truth)


@pytest.fixture(scope="session")
def model(data, quick):
    image, _, strokes = data
    return train_model([(image, strokes)], recipe=quick, classes=["matrix", "disc"])
