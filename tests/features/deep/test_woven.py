"""Geometry of woven grids: each offset has its own symmetry, and every token lies where its patch is."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hrvol.features.deep.layout import canvas_of, layout_of
from hrvol.features.deep.views import symmetries
from hrvol.features.deep.woven import smooth, weave, woven, woven_crops, woven_tokens
from hrvol.recipe.specs import DeepSpec

PATCH = 14
SPEC = DeepSpec(offsets=2)
PASSES = [4, 8, 16]
SHAPES = st.tuples(st.integers(1, 70), st.integers(1, 70))
EIGHT = [view.apply(np.arange(4).reshape(2, 2)).tobytes() for view in symmetries()]


def symmetry(view):
    """Which of the eight symmetries a view is."""
    return EIGHT.index(view.apply(np.arange(4).reshape(2, 2)).tobytes())


def network(crop):
    """A network whose token is the mean of its patch, ``(1, h, w)``."""
    return F.avg_pool2d(crop[None], PATCH)


def spread(tokens, shape):
    result = torch.empty(*shape, tokens.grid.shape[-1])
    tokens.spread(slice(None), slice(None), result)
    return result


def axes_of(layout):
    """Sub-patch phases of the tokens of both offsets along each axis."""
    return [sorted({centre % PATCH for centre in centres}) for centres in layout.centres]


def corners_of(layout):
    """First rows and first columns of the patches."""
    return [[int(centre - PATCH / 2) for centre in centres] for centres in layout.centres]


@pytest.mark.parametrize("passes", PASSES)
def test_symmetries_cover_the_offsets_evenly(passes):
    grids = woven(passes)
    assert sum(map(len, grids)) == passes
    at = [(offset, symmetry(view)) for grid in grids for offset, view in enumerate(grid)]
    assert len(set(at)) == passes  # no pass twice
    assert set(Counter(offset for offset, _ in at).values()) == {passes // 4}
    used = Counter(number for _, number in at)
    assert len(used) == min(passes, 8)
    assert len(set(used.values())) == 1
    for grid in grids:  # within a grid, each symmetry has an offset of its own
        assert len({symmetry(view) for view in grid}) == 4


def test_a_symmetry_of_two_grids_is_at_offsets_that_differ_along_both_axes():
    places = {}
    for grid in woven(16):
        for offset, view in enumerate(grid):
            places.setdefault(symmetry(view), []).append(divmod(offset, 2))
    for (y0, x0), (y1, x1) in places.values():
        assert y0 != y1
        assert x0 != x1


def test_more_passes_include_the_fewer():
    four, eight, sixteen = (set(woven(passes)) for passes in PASSES)
    assert four < eight < sixteen


@pytest.mark.parametrize("passes", PASSES)
def test_views_are_always_the_same_and_hashable(passes):
    assert woven(passes) == woven(passes)
    assert hash(woven(passes)) == hash(woven(passes))


def test_the_first_pass_is_the_image_itself():
    image = torch.arange(6).reshape(2, 3)
    assert torch.equal(woven(4)[0][0].apply(image), image)
    assert torch.equal(woven(8)[1][3].apply(image), image.T)


def test_other_numbers_of_passes_are_refused():
    with pytest.raises(ValueError, match="found 5 passes, expected one of 4, 8, 16"):
        woven(5)


@settings(max_examples=20, deadline=None)
@given(SHAPES)
def test_tokens_of_a_woven_grid_are_half_a_patch_apart(shape):
    layout = layout_of(PATCH, SPEC, shape)
    for phases, centres in zip(axes_of(layout), layout.centres, strict=True):
        assert len(phases) == 2
        assert set(np.diff(centres)) == {PATCH / 2}


@pytest.mark.parametrize("passes", PASSES)
@settings(max_examples=8, deadline=None)
@given(shape=SHAPES)
def test_every_token_lies_where_its_patch_is(passes, shape):
    """Means of patches do not depend on the symmetry: the grid is that of the image without views."""
    image = torch.from_numpy(np.random.default_rng(0).random(shape, np.float32))
    layout = layout_of(PATCH, SPEC, shape)
    canvas = canvas_of(image, layout)
    tops, lefts = corners_of(layout)
    expected = F.avg_pool2d(canvas[None], PATCH, 1)[0][tops][:, lefts]
    for grid in woven(passes):
        found = weave([network(crop) for crop in woven_crops(canvas, layout, grid)], grid)
        torch.testing.assert_close(found[:, :, 0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("passes", PASSES)
def test_each_pass_sees_its_own_symmetry(passes):
    """Tokens that are the grey value in a corner of their patch show through which view it was seen."""
    image = torch.from_numpy(np.random.default_rng(0).random((40, 50), np.float32))
    layout = layout_of(PATCH, SPEC, (40, 50))
    canvas = canvas_of(image, layout)
    tops, lefts = corners_of(layout)
    for grid in woven(passes):
        crops = woven_crops(canvas, layout, grid)
        found = weave([crop[None, ::PATCH, 1::PATCH] for crop in crops], grid)[:, :, 0]
        for (y, top), (x, left) in product(enumerate(tops), enumerate(lefts)):
            patch = canvas[top : top + PATCH, left : left + PATCH]
            assert found[y, x] == grid[2 * (y % 2) + x % 2].apply(patch)[0, 1]


@pytest.mark.parametrize("passes", PASSES)
@settings(max_examples=10, deadline=None)
@given(shape=SHAPES)
def test_smoothed_values_have_all_symmetries_in_equal_parts(passes, shape):
    layout = layout_of(PATCH, SPEC, shape)
    height, width = layout.pass_shape[0] // PATCH, layout.pass_shape[1] // PATCH
    grids = []
    for grid in woven(passes):
        tokens = []
        for view in grid:
            one = torch.zeros(8, height, width)
            one[symmetry(view)] = 1
            tokens.append(view.apply(one))
        grids.append(weave(tokens, grid))
    found = spread(woven_tokens(grids, layout), shape)
    parts = min(passes, 8)
    assert set(found.unique().tolist()) <= {0, 1 / parts}
    assert (found > 0).sum(-1).eq(parts).all()
    # Without smoothing, pixels beside a token see mostly one of them.
    plain = spread(woven_tokens(grids, layout, smoothed=False), shape)
    assert plain.max() > 1.5 / parts or min(shape) < PATCH


@settings(max_examples=15, deadline=None)
@given(SHAPES)
def test_smoothing_keeps_linear_images(shape):
    """Means of neighbours lie at the middle between them: a ramp inside of the image stays what it is."""
    layout = layout_of(PATCH, SPEC, shape)
    y, x = (torch.from_numpy(centres).float() for centres in layout.centres)
    ramp = (2 * y[:, None] - x)[:, :, None]
    found = spread(woven_tokens([ramp, ramp], layout), shape)[:, :, 0]
    middles = [
        np.clip(pixels, centres[0] + 3.5, centres[-1] - 3.5)
        for pixels, centres in zip(layout.pixels, layout.centres, strict=True)
    ]
    expected = 2 * middles[0][:, None] - middles[1]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-3)


def test_smoothing_averages_four_neighbours():
    grid = torch.arange(12.0).reshape(3, 4, 1)
    assert torch.equal(smooth(grid)[:, :, 0], grid[:2, :3, 0] + 2.5)


def test_a_layout_of_other_offsets_is_refused():
    layout = layout_of(PATCH, DeepSpec(offsets=4), (40, 40))
    with pytest.raises(ValueError, match="found a layout of 4 offsets per axis, expected 2"):
        woven_crops(torch.zeros(layout.canvas), layout, woven(4)[0])
