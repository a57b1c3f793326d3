"""Half precision beside float32, on a real micrograph where it is there; and the patch embedding of GPUs."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[3]))

from hrvol.errors import UsageError
from hrvol.features.deep.backbone import check_precision, load_backbone, random_backbone
from hrvol.features.deep.embedding import embed_patches

BOUNDS = {"bf16": 0.03, "fp16": 0.004}
"""Of the relative error of tokens of block 9: about twice what is found (benchmarks/studies/precision.md)."""


@pytest.fixture(scope="module")
def crop(data_dir):
    from benchmarks.quality.crops import crops_of

    return torch.from_numpy(crops_of("super1", train=1, test=1, side=112).images[0] / np.float32(255))[
        None, None
    ]


@pytest.mark.weights
@pytest.mark.data
@pytest.mark.parametrize("precision", BOUNDS)
def test_half_precision_is_near_float32_on_a_micrograph(crop, vits14, precision):
    exact = vits14.tokens(crop, blocks=(9,)).features
    found = load_backbone("dinov2_vits14", precision=precision).tokens(crop, blocks=(9,)).features
    assert found.dtype == torch.float32
    error = float((found - exact).norm() / exact.norm())
    assert 0 < error < BOUNDS[precision]


def test_fp16_that_overflows_is_an_error_and_not_a_class():
    backbone = random_backbone("dinov2_vits14", precision="fp16")
    backbone.net.patch_embed.proj.weight.fill_(30_000)
    with pytest.raises(UsageError, match=r"dinov2_vits14 beyond the range of fp16.*use bf16 or fp32"):
        backbone.tokens(torch.rand(1, 1, 28, 28), blocks=(1,))


def test_bf16_is_refused_where_a_gpu_would_only_emulate_it():
    with pytest.raises(UsageError, match=r"compute capability 8\.0, found 7\.5; use fp16 or fp32"):
        check_precision("bf16", (7, 5))
    for precision, capability in (("bf16", (8, 0)), ("bf16", (12, 0)), ("fp16", (7, 5)), ("fp32", (7, 5))):
        check_precision(precision, capability)


@pytest.mark.parametrize("stride", [14, 4])
def test_patches_as_a_product_of_matrices_are_those_of_the_convolution(stride):
    proj = random_backbone("dinov2_vits14").net.patch_embed.proj
    images = torch.rand(2, 3, 45, 61)
    convolved, grid = embed_patches(images, proj, stride, convolve=True)
    product, same = embed_patches(images, proj, stride, convolve=False)
    assert grid == same == tuple(1 + (side - 14) // stride for side in (45, 61))
    torch.testing.assert_close(product, convolved, atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_float32_on_a_gpu_is_float32_and_half_precision_is_near_it():
    images = torch.rand(2, 1, 112, 112)
    exact = random_backbone("dinov2_vits14").tokens(images, blocks=(9,)).features

    def error(precision):
        backbone = random_backbone("dinov2_vits14", device="cuda", precision=precision)
        return float((backbone.tokens(images, blocks=(9,)).features.cpu() - exact).norm() / exact.norm())

    assert error("fp32") < 1e-4  # TF32 would be ten times as far off
    assert error("fp16") < 0.01
    if torch.cuda.get_device_capability() >= (8, 0):
        assert error("bf16") < 0.05
