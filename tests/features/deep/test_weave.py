"""Woven views: their tokens lie where the layout says, and neighbours of one grid are averaged."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator

from hrvol.errors import RecipeError
from hrvol.features.deep.backbone import random_backbone
from hrvol.features.deep.image_tokens import joint_grid_of, kept_again, kept_shapes
from hrvol.features.deep.layout import view_layouts
from hrvol.features.deep.upsample import token_grids, upsample
from hrvol.features.deep.views import transposes
from hrvol.features.featuriser import Featuriser
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import DeepSpec, FeatureSpec

PATCH = 14

SPECS = {
    "mirrored": DeepSpec(offsets=2, flips=True, weave=1),
    "turned, too": DeepSpec(offsets=2, flips=True, rotations=True, weave=1),
    "two passes": DeepSpec(offsets=2, flips=True, rotations=True, weave=2),
    "reduced": DeepSpec(offsets=2, flips=True, weave=2, input_scale=0.4),
    "enlarged": DeepSpec(offsets=2, flips=True, rotations=True, weave=1, input_scale=1.7),
}

SHAPES = st.tuples(st.integers(1, 70), st.integers(1, 70))


def places_of(view, layout):
    """Rows and columns of tokens on the image, in pixels: by passing coordinates through the view."""
    height, width = layout.canvas
    own = layout.transposed if transposes(view) else layout
    (top, left), (tall, wide) = own.starts[0], own.pass_shape
    found = []
    for coordinates, axis in zip(np.mgrid[:height, :width] + 0.5, layout.pixels, strict=True):
        crop = view.apply(coordinates)[top : top + tall, left : left + wide]
        centres = crop.reshape(tall // PATCH, PATCH, wide // PATCH, PATCH).mean((1, 3))
        step = (axis[-1] - axis[0]) / (len(axis) - 1) if len(axis) > 1 else layout.scaled[len(found)]
        on_image = (centres - axis[0]) / step
        found.append(on_image.T if transposes(view) else on_image)
    return found


def by_hand(passes, tokens, shape):
    """Merge the tokens of each grid, average 2 x 2 neighbours, and interpolate; the mean over grids."""
    grids = {}
    for (view, layout), values in zip(passes, tokens, strict=True):
        grids.setdefault((transposes(view), layout.starts), []).append((*places_of(view, layout), values))
    total = 0
    for views in grids.values():
        ys = np.unique(np.concatenate([y[:, 0].round(6) for y, _, _ in views]))
        xs = np.unique(np.concatenate([x[0].round(6) for _, x, _ in views]))
        merged = np.full((len(ys), len(xs), tokens[0].shape[2]), np.nan)
        for y, x, values in views:
            merged[np.ix_(np.searchsorted(ys, y[:, 0].round(6)), np.searchsorted(xs, x[0].round(6)))] = values
        assert not np.isnan(merged).any()
        means = (merged[1:, 1:] + merged[:-1, 1:] + merged[1:, :-1] + merged[:-1, :-1]) / 4
        middles = [(axis[1:] + axis[:-1]) / 2 for axis in (ys, xs)]
        at = np.stack(
            np.meshgrid(
                *(np.clip(np.arange(n), axis[0], axis[-1]) for n, axis in zip(shape, middles, strict=True)),
                indexing="ij",
            ),
            -1,
        )
        for axis, places in enumerate(middles):  # one row of tokens is no grid for scipy
            if len(places) == 1:
                middles[axis] = np.append(places, places + 1)
                means = np.repeat(means, 2, axis)
        total = total + RegularGridInterpolator(middles, means)(at)
    return total / len(grids)


@pytest.mark.parametrize("name", SPECS)
@settings(max_examples=12, deadline=None)
@given(shape=SHAPES)
def test_pixels_are_those_of_grids_merged_by_hand(name, shape):
    spec = SPECS[name]
    passes = view_layouts(PATCH, spec, shape)
    rng = torch.Generator().manual_seed(0)
    tokens = [torch.randn((len(own.centres[0]), len(own.centres[1]), 3), generator=rng) for _, own in passes]
    joint = joint_grid_of(PATCH, spec, shape, torch.device("cpu"))
    assert joint.knots[0] <= shape[0]
    assert joint.knots[1] <= shape[1]
    found = torch.empty(*shape, 3)
    joint.add_up(tokens).spread(slice(None), slice(None), found)
    np.testing.assert_allclose(found.numpy(), by_hand(passes, [t.numpy() for t in tokens], shape), atol=2e-5)


@pytest.mark.parametrize(("name", "passes"), [("mirrored", 4), ("turned, too", 8), ("two passes", 16)])
def test_a_grid_takes_few_passes_and_has_a_knot_every_seven_pixels(name, passes):
    layouts = view_layouts(PATCH, SPECS[name], (518, 518))
    assert sum(len(layout.starts) for _, layout in layouts) == passes
    assert max(kept_shapes(PATCH, SPECS[name], (518, 518))[0]) <= 518 // 7 + 2


@pytest.fixture(scope="module")
def backbone():
    return random_backbone("dinov2_vits14")


def image_of(shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["mirrored", "turned, too", "two passes"])
@pytest.mark.parametrize("axis", [0, 1])
def test_features_of_a_mirrored_image_are_mirrored(backbone, name, axis):
    image = image_of((45, 60))
    expected = upsample(backbone, image, SPECS[name]).features.flip(axis + 1)
    found = upsample(backbone, image.flip(axis), SPECS[name]).features
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_features_of_a_turned_image_are_turned(backbone):
    image = image_of((52, 52))
    expected = upsample(backbone, image, SPECS["two passes"]).features.transpose(1, 2)
    found = upsample(backbone, image.T.contiguous(), SPECS["two passes"]).features
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_regions_stripes_and_kept_tokens_have_the_same_bits(backbone):
    spec, image = SPECS["turned, too"], image_of((61, 47))
    whole = upsample(backbone, image, spec).features.permute(1, 2, 0)
    rows, columns = slice(9, 50), slice(3, 44)
    part = torch.empty(41, 41, 384)
    token_grids(backbone, image, spec, rows=rows, columns=columns).spread(rows, columns, part)
    assert torch.equal(part, whole[rows, columns])
    again = kept_again(token_grids(backbone, image, spec).grids, PATCH, spec, (61, 47))
    y, x = torch.tensor([0, 33, 60]), torch.tensor([46, 0, 21])
    assert torch.equal(again.at(y, x), whole[y, x])
    featuriser = Featuriser(FeatureSpec(kind="deep", deep=spec), backbone)
    stripes = [
        torch.from_numpy(s.copy()) for _, s in featuriser.stripes(image.numpy(), (rows, columns), rows=16)
    ]
    assert torch.equal(torch.cat(stripes), whole[rows, columns])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"flips": False}, "found 1 with flips: false, expected flips: true"),
        ({"flips": "published"}, 'found 1 with flips: "published", expected flips: true'),
        ({"offsets": 4}, "found 1 with offsets: 4, expected offsets: 2"),
        ({"shifts": [1]}, r"found 1 with shifts: \[1\], expected shifts: \[\]"),
        (
            {"interpolation": "nearest"},
            'found 1 with interpolation: "nearest", expected interpolation: "bilinear"',
        ),
        ({"weave": 3}, "weave: "),
    ],
)
def test_settings_that_exclude_each_other_are_named(settings, expected):
    deep = {"offsets": 2, "flips": True, "weave": 1} | settings
    with pytest.raises(RecipeError, match=expected):
        Recipe.from_dict({"features": {"deep": deep}})


def test_recipes_without_it_are_written_as_before():
    assert "weave" not in Recipe().to_dict()["features"]["deep"] or Recipe().features.deep.weave
    assert "weave" not in DeepSpec().to_dict()
    assert DeepSpec(offsets=2, flips=True, weave=2).to_dict()["weave"] == 2
