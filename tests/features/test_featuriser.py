import gc
import weakref

import numpy as np
import pytest
import torch

from hrvol.errors import InputError
from hrvol.features import featuriser as featuriser_module
from hrvol.features.deep.backbone import random_backbone
from hrvol.features.deep.upsample import Linear, token_grids, upsample
from hrvol.features.featuriser import Featuriser, load_featuriser
from hrvol.features.filters.bank import classical_features
from hrvol.recipe.specs import DeepSpec, FeatureSpec
from hrvol.segment.attention import ClusterTally


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


MIRRORED = DEEP.model_copy(update={"flips": True})
MANY = DeepSpec(block=1, stride=4, shifts=(1,))  # more tokens, of all views, than pixels


@pytest.mark.parametrize(
    ("kind", "deep"),
    [
        ("hybrid", DEEP),
        ("deep", DEEP.model_copy(update={"flips": True})),
        ("classical", DEEP),
        ("deep", MANY),
    ],
    ids=["hybrid", "deep with flips", "classical", "deep with many views"],
)
@pytest.mark.parametrize("rows", [1, 7, 64])
def test_stripes_have_the_bits_of_the_whole_image(backbone, image, kind, deep, rows):
    featuriser = Featuriser(FeatureSpec(kind=kind, deep=deep), None if kind == "classical" else backbone)
    whole = featuriser(image).permute(1, 2, 0).numpy()
    inside = (slice(3, 38), slice(5, 50))
    found = np.full((35, 45, len(featuriser.channels)), np.nan, np.float32)
    for where, stripe in featuriser.stripes(image, inside, rows=rows):
        assert len(stripe) <= rows
        found[where] = stripe
    np.testing.assert_array_equal(found, whole[inside])


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


@pytest.mark.weights
def test_specs_share_a_network_where_it_is_the_same():
    deep = DeepSpec(offsets=1)
    one, other = (load_featuriser(FeatureSpec(kind=kind, deep=deep)) for kind in ("deep", "hybrid"))
    assert one is not other
    assert one.backbone is other.backbone
    half = deep.model_copy(update={"precision": "bf16"})
    assert load_featuriser(FeatureSpec(kind="deep", deep=half)).backbone is not one.backbone


def test_nothing_of_a_tile_is_held_when_it_is_done(backbone, image, monkeypatch):
    made = []

    def keep(*arguments, **options):
        found = token_grids(*arguments, **options)
        made.extend(weakref.ref(grid) for grid in found.grids)
        return found

    monkeypatch.setattr(featuriser_module, "token_grids", keep)
    featuriser = Featuriser(FeatureSpec(kind="deep", deep=DeepSpec(block=1, offsets=2)), backbone)
    gc.disable()  # what only the collector finds stays for who knows how long
    try:
        for _, stripe in featuriser.stripes(image, (slice(0, 40), slice(0, 52)), rows=16):
            made.append(weakref.ref(stripe.base))
        del stripe
        assert len(made) == 4
        assert [reference() for reference in made] == [None] * 4
    finally:
        gc.enable()


def test_attention_and_projection_come_apart_from_features(backbone, image):
    featuriser = Featuriser(FeatureSpec(kind="deep", deep=DeepSpec(block=1, offsets=1)), backbone)
    linear = Linear(torch.randn(3, 384), torch.zeros(3))
    result = featuriser.upsampled(image, linear=linear, attention=True)
    assert result.features.shape == (3, 40, 52)
    assert result.attention.shape == (6, 40, 52)
    assert float(result.attention.mean()) == pytest.approx(1, abs=0.3)
    with pytest.raises(InputError, match="classical has no attention"):
        Featuriser(FeatureSpec(kind="classical")).upsampled(image)


KINDS = ["deep", "classical", "hybrid"]


def featuriser_of(kind, backbone):
    spec = FeatureSpec(kind=kind, deep=DEEP)
    return Featuriser(spec, backbone if spec.uses_deep else None)


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_some_pixels_are_those_of_the_whole_image(backbone, image, kind, unit):
    featuriser = featuriser_of(kind, backbone)
    y, x = np.array([0, 39, 7, 7]), np.array([0, 51, 20, 20])
    found, paid = featuriser.pixels(image, y, x, unit=unit, attention=True)
    assert found.dtype == np.float32
    assert found.shape == (4, len(featuriser.channels))
    expected = featuriser(image)
    if featuriser.backbone is not None:
        whole = featuriser.upsampled(image, unit=unit, attention=True)
        expected[featuriser.groups["deep"]] = whole.features
        assert paid.dtype == np.float32
        np.testing.assert_array_equal(paid, whole.attention[:, y, x].mean(dim=0).numpy())
        assert featuriser.pixels(image, y, x)[1] is None
    else:
        assert paid is None
    np.testing.assert_array_equal(found, expected[:, y, x].T.numpy())


def random_maps(featuriser, count=6):
    rng = np.random.default_rng(3)
    return {
        name: Linear(
            torch.from_numpy(rng.normal(size=(count, part.stop - part.start)).astype(np.float32)),
            torch.from_numpy(rng.normal(size=count).astype(np.float32)),
        )
        for name, part in featuriser.groups.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_a_linear_map_of_unit_features(backbone, image, kind):
    featuriser = featuriser_of(kind, backbone)
    maps = random_maps(featuriser)
    found = featuriser.scores(image, maps)
    assert found.shape == (6, 40, 52)
    assert found.permute(1, 2, 0).is_contiguous()
    y, x = np.indices(image.shape).reshape(2, -1)
    features, _ = featuriser.pixels(image, y, x, unit=True)
    expected = 0
    for name, part in featuriser.groups.items():
        weight, bias = (values.double().numpy() for values in (maps[name].weight, maps[name].bias))
        expected = expected + features[:, part].astype(np.float64) @ weight.T + bias
    np.testing.assert_allclose(found.permute(1, 2, 0).reshape(-1, 6).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_the_same_bits_each_time_and_leave_the_image_alone(backbone, image, kind):
    featuriser = featuriser_of(kind, backbone)
    maps, kept = random_maps(featuriser), image.copy()
    assert torch.equal(featuriser.scores(image, maps), featuriser.scores(image, maps))
    np.testing.assert_array_equal(image, kept)


def two_textures(side):
    """Patches of two textures, one of the first for three of the second; which pixel is of which."""
    first, second = (np.random.default_rng(seed).random((14, 14)) for seed in (0, 1))
    count = side // 14
    odd = np.arange(count) % 2 == 1
    texture = np.kron(odd[:, None] & odd, np.ones((14, 14), int))
    image = np.where(texture, np.tile(first, (count, count)), np.tile(second / 3, (count, count)))
    return image.astype(np.float32), texture


def test_attention_density_of_a_texture_is_the_same_in_tiles_of_any_size():
    net = random_backbone("dinov2_vits14")
    net.net.pos_embed.zero_()  # the same patch is then the same token, wherever it is
    net.net.blocks[-1].attn.qkv.weight.mul_(200)  # random weights attend to all alike
    featuriser = Featuriser(
        FeatureSpec(kind="deep", deep=DeepSpec(block=1, offsets=1, interpolation="nearest")), net
    )
    densities = {}
    for side in (56, 84, 168):
        image, texture = two_textures(side)
        y, x = np.indices(image.shape).reshape(2, -1)
        _, attention = featuriser.pixels(image, y, x, unit=True, attention=True)
        densities[side] = ClusterTally.of(texture, attention, 2).density
    assert max(densities[56]) > 1.5 * min(densities[56])
    # The CLS token's attention to itself is a smaller part of more tokens: that is all that differs.
    for side in (56, 84):
        np.testing.assert_allclose(densities[side], densities[168], rtol=0.1)


def test_only_planes_are_taken(backbone):
    featuriser = Featuriser(FeatureSpec(kind="classical"))
    for shape in ((3, 20, 20), (20,), (0, 5)):
        with pytest.raises(InputError, match="grey image"):
            featuriser(np.zeros(shape, np.float32))
