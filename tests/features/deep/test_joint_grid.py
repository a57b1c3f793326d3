"""The joint grid has the sums of the views' own interpolations, everywhere in an image of any size."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hrvol.features.deep import joint_grid as module
from hrvol.features.deep.image_tokens import grouped
from hrvol.features.deep.joint_grid import joint_grid, knots_of
from hrvol.features.deep.layout import layout_of
from hrvol.features.deep.views import views_of
from hrvol.recipe.recipe import PRESETS
from hrvol.recipe.specs import DeepSpec

PATCH = 14

SPECS = {
    name: PRESETS[name].features.deep
    for name in ("fast-0.1", "balanced-0.1", "best-0.1", "paper", "cas-paper")
} | {
    "shifts that wrap around, bilinear": DeepSpec(stride=4, shifts=(1, 2), placement="stretch"),
    "shifts in a margin": DeepSpec(offsets=2, shifts=(1, 3), flips=True),
    "four offsets": DeepSpec(offsets=4, flips=True, rotations=True),
    "nearest": DeepSpec(offsets=2, flips=True, rotations=True, interpolation="nearest"),
    "enlarged": DeepSpec(offsets=2, flips=True, input_scale=1.7),
    "reduced": DeepSpec(offsets=2, rotations=True, input_scale=0.3),
}

ANY_SHAPE = st.tuples(st.integers(1, 64), st.integers(1, 64))
STRETCHED = st.tuples(st.integers(PATCH, 64), st.integers(PATCH, 64))


def tokens_of(spec, shape, channels=3):
    layout = layout_of(PATCH, spec, shape)
    views = views_of(spec)
    rng = torch.Generator().manual_seed(0)
    size = (len(layout.centres[0]), len(layout.centres[1]), channels)
    return layout, views, [torch.randn(size, generator=rng) for _ in views]


def spread_by_view(grids, spec, layout, shape):
    result = torch.empty(*shape, grids[0].shape[-1])
    grouped(grids, spec, layout).spread(slice(None), slice(None), result)
    return result


def spread_jointly(tokens, shape):
    result = torch.full((*shape, tokens.grid.shape[-1]), torch.nan)
    tokens.spread(slice(None), slice(None), result)
    return result


def assert_same(found, expected):
    """1e-5 relative to the values of the image, at every pixel."""
    assert found.shape == expected.shape
    if expected.numel():
        assert (found - expected).abs().max() <= 1e-5 * max(1e-3, expected.square().mean().sqrt())


def boxes(shape):
    def one(side):
        ends = st.tuples(st.integers(0, side), st.integers(0, side), st.integers(1, 4))
        return ends.map(lambda found: slice(min(found[:2]), max(found[:2]), found[2]))

    return st.tuples(one(shape[0]), one(shape[1]))


@pytest.mark.parametrize("name", SPECS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_sums_are_those_of_the_views_one_by_one(name, data):
    spec = SPECS[name]
    shape = data.draw(STRETCHED if spec.placement == "stretch" else ANY_SHAPE, "shape")
    layout, views, grids = tokens_of(spec, shape)
    expected = spread_by_view(grids, spec, layout, shape)
    joint = joint_grid(layout, views, spec.interpolation)
    assert joint.knots[0] <= shape[0]
    assert joint.knots[1] <= shape[1]
    tokens = joint.add_up(grids)
    found = spread_jointly(tokens, shape)
    assert_same(found, expected)
    # A part of the same sums has the same bits, and so have sums that are made for a part.
    rows, columns = data.draw(boxes(shape), "box")
    part = torch.full_like(expected[rows, columns], torch.nan)
    tokens.spread(rows, columns, part)
    assert torch.equal(part, found[rows, columns])
    own = joint.add_up(grids, slice(rows.start, rows.stop), slice(columns.start, columns.stop))
    again = torch.full_like(part, torch.nan)
    own.spread(rows, columns, again)
    assert torch.equal(again, part)


@pytest.mark.parametrize("name", ["fast-0.1", "balanced-0.1", "best-0.1", "paper", "cas-paper"])
def test_sums_of_presets_are_those_of_the_views_to_a_millionth(name):
    spec, shape = SPECS[name], (100, 90)
    layout, views, grids = tokens_of(spec, shape, channels=16)
    found = spread_jointly(joint_grid(layout, views, spec.interpolation).add_up(grids), shape)
    expected = spread_by_view(grids, spec, layout, shape)
    assert (found - expected).norm() <= 1e-6 * expected.norm()


def test_knots_at_the_size_of_a_tile():
    """As many as tokens of all views, or fewer: what is kept of a tile does not grow."""
    found = {}
    for name in ("fast-0.1", "balanced-0.1", "best-0.1"):
        spec = SPECS[name]
        found[name] = joint_grid(layout_of(PATCH, spec, (518, 518)), views_of(spec)).knots
    assert found == {"fast-0.1": (74, 74), "balanced-0.1": (148, 148), "best-0.1": (148, 148)}


def test_a_region_keeps_only_the_knots_that_its_pixels_need():
    spec = SPECS["balanced-0.1"]
    layout, views, grids = tokens_of(spec, (100, 90))
    joint = joint_grid(layout, views)
    tokens = joint.add_up(grids, slice(40, 50), slice(3, 4))
    height, width, _ = tokens.grid.shape
    assert height <= 6  # 28 in 100 pixels
    assert width <= 2
    out = torch.empty(1, 1, 3)
    for rows, columns in ((slice(39, 40), slice(3, 4)), (slice(40, 41), slice(3, 5))):
        with pytest.raises(ValueError, match="found pixels"):
            tokens.spread(rows, columns, out)
    with pytest.raises(ValueError, match="found pixels outside of 40:50"):
        tokens.at(torch.tensor([39]), torch.tensor([3]))
    with pytest.raises(ValueError, match="found a step of 2"):
        joint.add_up(grids, slice(0, 10, 2))


def test_single_pixels_have_the_bits_of_the_whole_image():
    spec = SPECS["best-0.1"]
    layout, views, grids = tokens_of(spec, (61, 47), channels=37)
    tokens = joint_grid(layout, views).add_up(grids)
    whole = spread_jointly(tokens, (61, 47))
    rng = np.random.default_rng(0)
    y, x = (torch.from_numpy(rng.integers(0, side, 80)) for side in (61, 47))
    assert torch.equal(tokens.at(y, x), whole[y, x])
    assert tokens.nbytes == tokens.grid.numel() * 4


@pytest.mark.parametrize("name", ["balanced-0.1", "paper"])
def test_linear_maps_of_tokens_before_and_after_the_sum(name):
    """K logits made of tokens, features mapped at the knots, and features mapped at pixels agree."""
    spec, shape = SPECS[name], (45, 52)
    layout, views, grids = tokens_of(spec, shape, channels=24)
    rng = torch.Generator().manual_seed(1)
    weight, bias = torch.randn(4, 24, generator=rng), torch.randn(4, generator=rng)
    at_pixels = F.linear(spread_by_view(grids, spec, layout, shape), weight, bias)
    joint = joint_grid(layout, views, spec.interpolation)
    before = joint.add_up([F.linear(grid, weight, bias) for grid in grids])
    after = joint.add_up(grids).mapped(weight, bias)
    assert_same(spread_jointly(before, shape), at_pixels)
    assert_same(spread_jointly(after, shape), at_pixels)


def test_a_stripe_may_be_some_columns_of_a_wider_matrix():
    spec, shape = SPECS["balanced-0.1"], (40, 41)
    layout, views, grids = tokens_of(spec, shape, channels=5)
    features = torch.zeros(*shape, 8)
    joint_grid(layout, views).add_up(grids).spread(slice(None), slice(None), features[:, :, 2:7])
    assert_same(features[:, :, 2:7], spread_by_view(grids, spec, layout, shape))
    assert not features[:, :, :2].any()
    assert not features[:, :, 7:].any()


def test_sums_agree_however_many_rows_are_added_up_at_once(monkeypatch):
    spec = SPECS["best-0.1"]
    layout, views, grids = tokens_of(spec, (64, 50))
    joint = joint_grid(layout, views)
    expected = joint.add_up(grids).grid
    for rows in (1, 7, 1000):
        monkeypatch.setattr(module, "ROWS_OF_KNOTS", rows)
        assert_same(joint.add_up(grids).grid, expected)


def test_tokens_are_not_changed():
    spec = SPECS["fast-0.1"]
    layout, views, grids = tokens_of(spec, (40, 40))
    before = [grid.clone() for grid in grids]
    joint_grid(layout, views).add_up(grids)
    assert all(torch.equal(a, b) for a, b in zip(before, grids, strict=True))


def test_views_must_match():
    spec = SPECS["balanced-0.1"]
    layout, views, grids = tokens_of(spec, (40, 40))
    with pytest.raises(ValueError, match="found the tokens of 3 views, expected 4"):
        joint_grid(layout, views).add_up(grids[:3])
    with pytest.raises(ValueError, match="found no views"):
        joint_grid(layout, ())


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(1, 60), st.floats(-30, 30), st.booleans())
def test_a_single_view_is_interpolated_as_by_numpy(tokens, pixels, start, mirrored):
    centres = 7.0 * np.arange(tokens) + 3.5
    at = np.arange(pixels) + 0.5 + start
    at = at[::-1] if mirrored else at
    knots = knots_of(centres, [at], "bilinear")
    values = torch.from_numpy(np.sin(np.arange(tokens))).float()
    at_knots, axis = knots.weights[0] @ values, knots.pixels
    found = torch.lerp(at_knots[axis.low], at_knots[axis.high], axis.fraction)
    np.testing.assert_allclose(found.numpy(), np.interp(at, centres, values.numpy()), atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["balanced-0.1", "best-0.1", "paper"])
def test_a_gpu_has_the_sums_of_the_cpu(name):
    spec, shape = SPECS[name], (120, 130)
    layout, views, grids = tokens_of(spec, shape, channels=64)
    found = torch.empty(*shape, 64, device="cuda")
    joint = joint_grid(layout, views, spec.interpolation, device="cuda")
    joint.add_up([grid.cuda() for grid in grids]).spread(slice(None), slice(None), found)
    assert_same(found.cpu(), spread_by_view(grids, spec, layout, shape))
