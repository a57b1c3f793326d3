import pytest
import torch

from hrvol.errors import UsageError
from hrvol.features.deep.backbone import random_backbone

NAMES = [
    "dinov2_vits14",
    "dinov2_vits14_reg",
    "dino_vits8",
    "dino_vits16",
    "deit_small_patch16",
    "vit_small_patch16",
]


@pytest.fixture(scope="module", params=NAMES)
def backbone(request):
    return random_backbone(request.param)


def test_every_family_gives_tokens_and_attention_at_any_stride(backbone):
    images = torch.rand(2, 1, 64, 48)
    for stride in (None, 5):
        step = stride or backbone.patch
        h, w = (1 + (side - backbone.patch) // step for side in (64, 48))
        tokens = backbone.tokens(images, stride=stride, attention=True, head_map="k")
        assert tokens.features.shape == (2, 384, h, w)
        assert tokens.attention.shape == tokens.head_map.shape == (2, 6, h, w)
        assert torch.isfinite(tokens.features).all()


def test_tokens_equal_timms_own(backbone):
    side = backbone.net.patch_embed.img_size[0]
    images = torch.rand(1, 3, side, side)
    normalised = (images - backbone._mean) / backbone._std
    with torch.inference_mode():
        expected = backbone.net.forward_features(normalised)[:, backbone.net.num_prefix_tokens :]
    found = backbone.tokens(images).features.flatten(2).transpose(1, 2)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_attention_is_the_class_tokens_row_of_the_last_block(backbone):
    images = torch.rand(1, 1, 48, 48)
    net = backbone.net
    seen = {}
    hook = net.blocks[-1].attn.register_forward_pre_hook(lambda module, args: seen.update(x=args[0]))
    found = backbone.tokens(images, attention=True).attention
    hook.remove()
    attn = net.blocks[-1].attn
    with torch.inference_mode():
        q, k, _ = attn.qkv(seen["x"]).reshape(1, -1, 3, 6, 64).permute(2, 0, 3, 1, 4).unbind(0)
        full = (q @ k.transpose(-2, -1) / 8).softmax(dim=-1)
    expected = full[:, :, 0, net.num_prefix_tokens :] * full.shape[-1]
    torch.testing.assert_close(found.flatten(2), expected, atol=1e-5, rtol=1e-4)


def test_intermediate_blocks_stop_early_and_stack():
    backbone = random_backbone("dinov2_vits14")
    images = torch.rand(1, 1, 42, 42)
    ran = []
    hooks = [
        block.register_forward_hook(lambda *_, n=n: ran.append(n))
        for n, block in enumerate(backbone.net.blocks, 1)
    ]
    both = backbone.tokens(images, blocks=(3, 5)).features
    assert ran == [1, 2, 3, 4, 5]
    for hook in hooks:
        hook.remove()
    five = backbone.tokens(images, blocks=(5,)).features
    three = backbone.tokens(images, blocks=(3,)).features
    torch.testing.assert_close(both, torch.cat([three, five], dim=1))
    with_attention = backbone.tokens(images, blocks=(3,), attention=True)
    assert with_attention.attention is not None
    torch.testing.assert_close(with_attention.features, three)


def test_precisions_agree_with_float32():
    images = torch.rand(1, 1, 56, 56)
    exact = random_backbone("dinov2_vits14_reg").tokens(images).features
    for precision, bound in (("bf16", 5e-2), ("fp16", 1e-2)):
        found = random_backbone("dinov2_vits14_reg", precision=precision).tokens(images).features
        assert found.dtype == torch.float32
        assert (found - exact).norm() < bound * exact.norm()


def test_rotary_networks_give_tokens_but_no_attention():
    backbone = random_backbone("dinov3_vits16")
    assert backbone.tokens(torch.rand(1, 1, 48, 64)).features.shape == (1, 384, 3, 4)
    with pytest.raises(UsageError, match="dinov3_vits16"):
        backbone.tokens(torch.rand(1, 1, 48, 64), attention=True)
