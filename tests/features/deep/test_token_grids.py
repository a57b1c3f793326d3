"""Tokens that are kept upsample to the bits of the whole image: any rows, columns and single pixels."""

import numpy as np
import pytest
import torch

from hrvol.features.deep.backbone import random_backbone
from hrvol.features.deep.image_tokens import grouped, kept_again, kept_shapes
from hrvol.features.deep.joint_grid import JointTokens
from hrvol.features.deep.layout import layout_of
from hrvol.features.deep.token_grids import TokenGrids
from hrvol.features.deep.upsample import Linear, _grids, token_grids, upsample
from hrvol.recipe.specs import DeepSpec

SPECS = {
    "plain": DeepSpec(block=1, offsets=2),
    "mirrored and turned": DeepSpec(block=1, offsets=2, flips=True, rotations=True),
    "published": DeepSpec(block=1, offsets=1, shifts=(1,), placement="stretch", interpolation="nearest"),
}


@pytest.fixture(scope="module")
def backbone():
    return random_backbone("dinov2_vits14")


@pytest.fixture(scope="module")
def image():
    return torch.from_numpy(np.random.default_rng(0).random((75, 93), np.float32))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_single_pixels_have_the_bits_of_the_whole_image(backbone, image, spec):
    whole = upsample(backbone, image, spec).features
    tokens = token_grids(backbone, image, spec)
    rng = np.random.default_rng(1)
    y, x = rng.integers(0, 75, 50), rng.integers(0, 93, 50)
    found = tokens.at(torch.from_numpy(y), torch.from_numpy(x))
    assert np.array_equal(found.numpy(), whole[:, y, x].numpy().T)
    assert tokens.nbytes == sum(grid.nbytes for grid in tokens.grids) > 0


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_views_that_are_added_up_are_those_one_by_one(backbone, image, spec):
    layout = layout_of(backbone.patch, spec, (75, 93))
    views = [grids["features"] for grids in _grids(backbone, image, spec, None, False, 4)]
    expected = torch.empty(75, 93, 384)
    grouped(views, spec, layout).spread(slice(0, 75), slice(0, 93), expected)
    found = upsample(backbone, image, spec).features.permute(1, 2, 0)
    assert (found - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (SPECS["plain"], JointTokens),
        (SPECS["mirrored and turned"], JointTokens),
        (DeepSpec(block=1, stride=4, shifts=(1,), flips="published"), TokenGrids),
        (DeepSpec(block=1, offsets=7, flips=True), TokenGrids),  # as many knots as pixels
    ],
)
def test_views_are_added_up_where_that_keeps_fewer_values(spec, kind):
    shapes = kept_shapes(14, spec, (75, 93))
    views = [torch.zeros(*shape, 2) for shape in shapes]
    tokens = kept_again(views, 14, spec, (75, 93))
    assert type(tokens) is kind
    layout = layout_of(14, spec, (75, 93))
    by_view = grouped([torch.zeros(len(layout.centres[0]), len(layout.centres[1]), 2)] * 99, spec, layout)
    assert tokens.nbytes <= by_view.nbytes


def test_sums_have_the_same_bits_in_any_number_of_threads(backbone, image):
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(token_grids(backbone, image, SPECS["mirrored and turned"]).grids[0])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_tokens_that_were_stored_are_used_again(backbone, image, spec):
    tokens = token_grids(backbone, image, spec)
    again = kept_again(tokens.grids, backbone.patch, spec, (75, 93))
    shapes = kept_shapes(backbone.patch, spec, (75, 93))
    assert shapes == tuple(grid.shape[:2] for grid in tokens.grids)
    y, x = torch.arange(70), torch.arange(70)
    assert torch.equal(again.at(y, x), tokens.at(y, x))


def test_a_map_of_tokens_is_that_of_the_upsampled_image(backbone, image):
    spec = SPECS["plain"]
    torch.manual_seed(0)
    weight, bias = torch.randn(3, 384), torch.randn(3)
    expected = upsample(backbone, image, spec, linear=Linear(weight, bias)).features
    found = torch.empty(38, 31, 3)
    tokens = token_grids(backbone, image, spec).mapped(weight, bias)
    tokens.spread(slice(0, 75, 2), slice(0, 93, 3), found)
    assert torch.allclose(found.permute(2, 0, 1), expected[:, ::2, ::3], atol=1e-5)
