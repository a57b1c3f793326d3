"""Features of colour: what the network and the filters see of it."""

import numpy as np
import pytest
import torch
from colour_data import make_coloured
from skimage.color import rgb2gray

from hrvol.arrays import luminance
from hrvol.errors import InputError
from hrvol.features.deep.backbone import random_backbone
from hrvol.features.deep.upsample import image_tensor, upsample
from hrvol.features.featuriser import Featuriser
from hrvol.features.filters.bank import channel_names, classical_features, grey_columns
from hrvol.recipe.recipe import PRESETS
from hrvol.recipe.specs import ClassicalSpec, DeepSpec, FeatureSpec

COLOURS = make_coloured((1, 61, 75))[0][0].astype(np.float32) / 255
FILTERS = ClassicalSpec(filters=("gaussian", "hessian"), sigmas=(1, 2))
EACH = FILTERS.model_copy(update={"colour": "channels"})
DEEPS = {
    "woven": DeepSpec(block=1, offsets=2, flips=True, weave=1),
    "turned": DeepSpec(block=1, offsets=2, flips=True, rotations=True, weave=2),
    "offsets": DeepSpec(block=(1, 2), offsets=2),
    "shifts": DeepSpec(block=1, stride=7, shifts=(1,), placement="stretch", interpolation="nearest"),
    "smaller": DeepSpec(block=1, offsets=1, input_scale=0.7),
}


@pytest.fixture(scope="module")
def backbone():
    return random_backbone("dinov2_vits14")


def test_luminance_is_that_of_scikit_image():
    np.testing.assert_allclose(luminance(COLOURS), rgb2gray(COLOURS), atol=1e-6)
    assert luminance(COLOURS).dtype == np.float32


def test_filters_of_luminance():
    found = classical_features(COLOURS, FILTERS)
    np.testing.assert_array_equal(found, classical_features(luminance(COLOURS), FILTERS))
    assert len(found) == len(channel_names(FILTERS, colour=True)) == len(channel_names(FILTERS))


def test_filters_of_each_channel():
    names = channel_names(EACH, colour=True)
    found = dict(zip(names, classical_features(COLOURS, EACH), strict=True))
    assert len(names) == 3 * len(channel_names(FILTERS))
    assert channel_names(EACH) == channel_names(FILTERS)  # of grey images
    for number, colour in enumerate(("red", "green", "blue")):
        single = classical_features(np.ascontiguousarray(COLOURS[..., number]), FILTERS)
        for name, values in zip(channel_names(FILTERS), single, strict=True):
            np.testing.assert_array_equal(found[f"{colour}_{name}"], values)
    grey = {names[column] for column in grey_columns(EACH, colour=True)}
    assert {"red_original", "blue_gaussian_2"} <= grey
    assert not any("hessian" in name for name in grey)


@pytest.mark.parametrize("name", DEEPS)
def test_grey_as_colour_has_the_tokens_of_grey(backbone, name):
    """Three equal channels are what the network has always seen of grey images."""
    grey = np.ascontiguousarray(COLOURS[..., 0])
    threefold = np.repeat(grey[..., None], 3, axis=2)
    expected = upsample(backbone, image_tensor(grey), DEEPS[name], attention=True)
    found = upsample(backbone, image_tensor(threefold), DEEPS[name], attention=True)
    torch.testing.assert_close(found.features, expected.features)
    torch.testing.assert_close(found.attention, expected.attention)


@pytest.mark.parametrize("name", DEEPS)
def test_the_network_sees_the_channels(backbone, name):
    features = FeatureSpec(kind="deep", deep=DEEPS[name], input="colour")
    of_colour = Featuriser(features, backbone)(COLOURS)
    swapped = Featuriser(features, backbone)(np.ascontiguousarray(COLOURS[..., ::-1]))
    assert of_colour.shape[1:] == COLOURS.shape[:2]
    assert (of_colour - swapped).abs().max() > 0.1


def test_normalisation_is_that_of_training(backbone):
    """Mean and deviation of ImageNet are of red, green and blue in this order."""
    image = torch.rand(1, 3, 28, 28)
    tokens = backbone.tokens(image, blocks=(1,)).features
    mean, std = (values.flatten() for values in (backbone._mean, backbone._std))
    assert mean.tolist() == pytest.approx([0.485, 0.456, 0.406])
    bare = random_backbone("dinov2_vits14")
    bare._mean, bare._std = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
    normalised = (image - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    torch.testing.assert_close(bare.tokens(normalised, blocks=(1,)).features, tokens)


@pytest.mark.parametrize("classical", [FILTERS, EACH])
def test_stripes_and_pixels_are_those_of_a_call(backbone, classical):
    spec = FeatureSpec(kind="hybrid", deep=DEEPS["woven"], classical=classical, input="colour")
    featuriser = Featuriser(spec, backbone)
    whole = featuriser(COLOURS)
    assert len(whole) == len(featuriser.channels) == len(set(featuriser.channels))
    inside = (slice(5, 50), slice(11, 70))
    rows = [np.array(part) for _, part in featuriser.stripes(COLOURS, inside, rows=16)]
    np.testing.assert_array_equal(np.concatenate(rows), whole.permute(1, 2, 0).numpy()[inside])
    y, x = np.array([0, 7, 60]), np.array([3, 74, 1])
    features, attention = featuriser.pixels(COLOURS, y, x, attention=True)
    np.testing.assert_allclose(features, whole[:, y, x].numpy().T, atol=1e-5)
    assert attention.shape == (3,)


def test_openvino_sees_the_channels(backbone):
    pytest.importorskip("openvino")
    fast = random_backbone("dinov2_vits14", backend="openvino")
    image = image_tensor(COLOURS)
    expected = upsample(backbone, image, DEEPS["woven"]).features
    torch.testing.assert_close(upsample(fast, image, DEEPS["woven"]).features, expected, atol=2e-3, rtol=1e-3)


def test_the_kind_of_image_has_to_fit():
    grey, colour = (Featuriser(FeatureSpec(kind="classical", input=kind)) for kind in ("grey", "colour"))
    with pytest.raises(InputError, match=r"expected a grey image \(Y, X\), found .*\(61, 75, 3\)"):
        grey(COLOURS)
    with pytest.raises(InputError, match=r"expected a colour image \(Y, X, 3\), found .*\(61, 75\)"):
        colour(COLOURS[..., 0])


def test_recipes_of_grey_are_written_as_before():
    for recipe in PRESETS.values():
        features = recipe.to_dict()["features"]
        assert "input" not in features
        assert "colour" not in features["classical"]
