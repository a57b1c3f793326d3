"""Tokens that are kept upsample to the bits of the whole image: any rows, columns and single pixels."""

import numpy as np
import pytest
import torch

from hrvol.features.deep.backbone import random_backbone
from hrvol.features.deep.image_tokens import kept_again, kept_shapes
from hrvol.features.deep.upsample import Linear, token_grids, upsample
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
