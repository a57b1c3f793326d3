"""The bias of distances between tokens."""

import pytest
import torch

from hrvol.features.deep.alibi import distance_bias
from hrvol.features.deep.backbone import random_backbone

CPU = torch.device("cpu")


def test_distances_on_a_torus_by_hand():
    bias = distance_bias((2, 5), 3, CPU)
    assert bias.shape == (13, 13)
    assert not bias[:3].any()
    assert not bias[:, :3].any()
    farthest = 5**0.5  # one row and two columns
    first = -bias[3, 3:].reshape(2, 5) * farthest
    expected = torch.tensor([[0, 1, 4, 4, 1], [1, 2, 5, 5, 2]]).sqrt()
    torch.testing.assert_close(first, expected)
    assert torch.equal(bias, bias.T)


def test_every_place_of_the_torus_has_the_same_distances():
    bias = distance_bias((4, 6), 0, CPU)
    for row in bias:
        torch.testing.assert_close(row.sort().values, bias[0].sort().values)


def test_one_token_has_no_bias():
    assert torch.equal(distance_bias((1, 1), 5, CPU), torch.zeros(6, 6))


@pytest.mark.parametrize("name", ["dinosaw_vits14_alibi", "dinosaw_vits14_nope"])
def test_images_that_are_rolled_by_whole_patches_have_rolled_tokens(name):
    """Neither network knows where a token is; one with positional embeddings does."""
    backbone = random_backbone(name)
    for block in backbone.net.blocks:
        block.ls1.gamma.fill_(1)
        block.ls2.gamma.fill_(1)
    image = torch.rand((1, 1, 56, 84), generator=torch.Generator().manual_seed(0))
    both = (image, image.roll((14, 28), (2, 3)))
    tokens, rolled = (backbone.tokens(values).features for values in both)
    torch.testing.assert_close(rolled, tokens.roll((1, 2), (2, 3)), atol=1e-4, rtol=1e-4)
    positioned = random_backbone("dinov2_vits14_reg")
    tokens, rolled = (positioned.tokens(values).features for values in both)
    assert not torch.allclose(rolled, tokens.roll((1, 2), (2, 3)), atol=1e-4)


def test_half_precision_and_attention_of_the_class_token():
    exact = random_backbone("dinosaw_vits14_alibi")
    image = torch.rand((1, 1, 56, 56), generator=torch.Generator().manual_seed(0))
    for precision, bound in (("bf16", 5e-2), ("fp16", 1e-2)):
        found = random_backbone("dinosaw_vits14_alibi", precision=precision).tokens(image).features
        expected = exact.tokens(image).features
        assert (found - expected).norm() < bound * expected.norm()
    net, seen = exact.net, {}
    hook = net.blocks[-1].attn.register_forward_pre_hook(lambda module, args: seen.update(x=args[0]))
    attention = exact.tokens(image, attention=True).attention
    hook.remove()
    attn = net.blocks[-1].attn
    with torch.inference_mode():
        q, k, _ = attn.qkv(seen["x"]).reshape(1, -1, 3, 6, 64).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-2, -1) / 8 + distance_bias((4, 4), 5, CPU)
        full = scores.softmax(dim=-1)
    expected = full[:, :, 0, 5:] * full.shape[-1]
    torch.testing.assert_close(attention.flatten(2), expected, atol=1e-5, rtol=1e-4)
