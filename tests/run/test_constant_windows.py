"""Windows of one grey value are classified once, and to the same probabilities."""

import numpy as np
import pytest
from run_data import make_volume

from hrvol.features.featuriser import load_featuriser
from hrvol.run import predict
from hrvol.run.options import PredictOptions
from hrvol.run.predict import predict_part, read_window
from hrvol.volume.grid.tiling import Block, whole
from hrvol.volume.volume import open_volume


@pytest.fixture
def classified(monkeypatch):
    """The mean grey value of each window that was classified."""
    means, classify = [], predict.classify

    def counted(image, *arguments):
        means.append(float(image.mean()))
        return classify(image, *arguments)

    monkeypatch.setattr(predict, "classify", counted)
    return means


def predicted(image, model):
    volume = open_volume(image)
    box = whole(volume.shape)
    block = Block((0, 0, 0), box)
    raw = read_window(volume, block, box, model)
    featuriser = load_featuriser(model.recipe.features, device="cpu")
    return predict_part(raw, volume, block, box, model, featuriser, PredictOptions(probabilities=True))


def test_windows_of_one_value_are_classified_once(model, classified):
    image = make_volume(shape=(4, 150, 330))[0]
    image[:, :, 180:] = 0  # air
    image[2, :, 180:] = 7
    image[3] = 0
    whole_run = predicted(image, model)
    together = len(classified)
    classified.clear()
    planes = [predicted(plane[None], model) for plane in image]
    # Of 18 tiles 9 are air. Plane 1 has the air of plane 0; where plane 3 is cut as air was, it is known.
    assert together == 18 + 9 + 18 + 3
    assert len(classified) == 18 + 18 + 18 + 12
    np.testing.assert_array_equal(whole_run.labels, np.concatenate([one.labels for one in planes]))
    np.testing.assert_array_equal(
        whole_run.probabilities, np.concatenate([one.probabilities for one in planes], axis=1)
    )
    assert (whole_run.labels > 0).all()


def test_two_values_are_two_windows(model, classified):
    image = np.zeros((2, 90, 90), np.uint8)
    image[1] = 255
    labels = predicted(image, model).labels
    assert classified == [0, 0, 0, 0, 1, 1, 1, 1]  # four tiles
    assert labels[0, 50, 50] != labels[1, 50, 50]
    classified.clear()
    image[1] = 0
    image[1, 0, 40] = 1  # in two of the tiles
    predicted(image, model)
    assert len(classified) == 6
