import numpy as np
import pytest
import torch

from hrvol.errors import InputError
from hrvol.features.backbone import random_backbone
from hrvol.features.classical import classical_features
from hrvol.features.featuriser import Featuriser, load_featuriser
from hrvol.features.upsample import Linear, upsample
from hrvol.recipe import DeepSpec, FeatureSpec


@pytest.fixture(scope="module")
def backbone():
    return random_backbone("dinov2_vits14")


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).random((40, 52), dtype=np.float32)


DEEP = DeepSpec(block=(1, 2), offsets=2)


def test_hybrid_is_deep_and_classical_side_by_side(backbone, image):
    featuriser = Featuriser(FeatureSpec(kind="hybrid", deep=DEEP), backbone)
    features = featuriser(image)
    assert features.shape == (len(featuriser.channels), 40, 52)
    assert features.dtype == torch.float32
    deep = upsample(backbone, torch.from_numpy(image), DEEP).features
    assert torch.equal(features[featuriser.groups["deep"]], deep)
    classical = classical_features(image, featuriser.spec.classical)
    np.testing.assert_array_equal(features[featuriser.groups["classical"]].numpy(), classical)
    assert featuriser.channels[0] == "dinov2_vits14/block1/0"
    assert featuriser.channels[384] == "dinov2_vits14/block2/0"
    assert len(set(featuriser.channels)) == len(featuriser.channels)


def test_estimators_get_their_layout_without_a_copy(backbone, image):
    features = Featuriser(FeatureSpec(kind="hybrid", deep=DEEP), backbone)(image)
    by_pixel = features.permute(1, 2, 0)
    assert by_pixel.is_contiguous()
    assert by_pixel.reshape(-1, features.shape[0]).data_ptr() == features.data_ptr()


def test_the_network_is_loaded_once_per_process():
    spec = FeatureSpec(kind="classical")
    assert load_featuriser(spec) is load_featuriser(FeatureSpec(kind="classical"))
    assert load_featuriser(spec).weights_sha256 is None


@pytest.mark.weights
def test_the_real_network_is_loaded_once_per_process():
    spec = FeatureSpec(kind="deep", deep=DeepSpec(offsets=1))
    featuriser = load_featuriser(spec)
    assert load_featuriser(FeatureSpec.model_validate(spec.to_dict())) is featuriser
    assert len(featuriser.weights_sha256) == 64


def test_attention_and_projection_come_apart_from_features(backbone, image):
    featuriser = Featuriser(FeatureSpec(kind="deep", deep=DeepSpec(block=1, offsets=1)), backbone)
    linear = Linear(torch.randn(3, 384), torch.zeros(3))
    result = featuriser.upsampled(image, linear=linear, attention=True)
    assert result.features.shape == (3, 40, 52)
    assert result.attention.shape == (6, 40, 52)
    assert float(result.attention.mean()) == pytest.approx(1, abs=0.3)
    with pytest.raises(InputError, match="classical has no attention"):
        Featuriser(FeatureSpec(kind="classical")).upsampled(image)


def test_only_planes_are_taken(backbone):
    featuriser = Featuriser(FeatureSpec(kind="classical"))
    for shape in ((3, 20, 20), (20,), (0, 5)):
        with pytest.raises(InputError, match="grey image"):
            featuriser(np.zeros(shape, np.float32))
