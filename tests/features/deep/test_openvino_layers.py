"""Deep features computed by OpenVINO: torch's tokens, the same bits from any thread, one backend a run."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import zarr

from hrvol.backend import choose_backend
from hrvol.errors import OtherRunError, UsageError
from hrvol.features.choose_backend import choose_for_features
from hrvol.features.deep.backbone import random_backbone
from hrvol.phantom import draw_strokes, make_phantom
from hrvol.recipe.specs import DeepSpec, FeatureSpec
from hrvol.run.segment import segment_volume
from hrvol.segment.model.model import load_model, save_model
from hrvol.training.train import train_model

pytest.importorskip("openvino")

FAST = choose_backend("auto", "cpu").name
BFLOAT16 = FAST == "openvino-bf16"

NAMES = ("dinov2_vits14", "dinov2_vits14_reg", "dino_vits16", "dinov3_vits16", "dinosaw_vits14_alibi")


def images(shape=(112, 84), count=1):
    return torch.rand((count, 1, *shape), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def pair():
    return random_backbone("dinov2_vits14"), random_backbone("dinov2_vits14", backend="openvino")


@pytest.mark.parametrize("name", NAMES)
def test_openvino_computes_the_tokens_of_torch(name):
    expected = random_backbone(name).tokens(images(), blocks=(2, 5)).features
    found = random_backbone(name, backend="openvino").tokens(images(), blocks=(2, 5)).features
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("shape", "stride", "count"), [((42, 98), None, 1), ((56, 56), 7, 3), ((14, 14), None, 2)]
)
def test_images_of_any_size_and_number(pair, shape, stride, count):
    exact, other = pair
    options = {"stride": stride, "blocks": (1, 3), "positions": "published"}
    expected = exact.tokens(images(shape, count), **options).features
    found = other.tokens(images(shape, count), **options).features
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


def test_attention_and_its_tokens_are_computed_by_torch(pair):
    exact, other = (one.tokens(images(), attention=True, head_map="k") for one in pair)
    for name in ("features", "attention", "head_map"):
        assert torch.equal(getattr(exact, name), getattr(other, name))


@pytest.mark.skipif(not BFLOAT16, reason="this processor has no instructions for bfloat16")
def test_bfloat16_is_close():
    exact = random_backbone("dinov2_vits14").tokens(images(), blocks=(6,)).features
    rounded = random_backbone("dinov2_vits14", backend=FAST).tokens(images(), blocks=(6,)).features
    assert 0 < float((rounded - exact).norm() / exact.norm()) < 0.02


def test_threads_and_earlier_images_change_no_bit():
    backbone = random_backbone("dinov2_vits14", backend=FAST)
    windows = [images((56 + 14 * n, 84)) for n in range(4)]
    one_by_one = [backbone.tokens(window, blocks=(2,)).features for window in windows]
    with ThreadPoolExecutor(3) as pool:
        at_once = list(pool.map(lambda window: backbone.tokens(window, blocks=(2,)).features, windows * 3))
    for number, found in enumerate(at_once):
        assert torch.equal(found, one_by_one[number % 4])


def test_what_the_features_need_is_chosen():
    deep, half = FeatureSpec(kind="deep"), FeatureSpec(deep=DeepSpec(precision="bf16"))
    assert choose_for_features("auto", "cpu", deep).name == FAST
    assert choose_for_features("auto", "cuda", deep).name == "torch"
    assert choose_for_features("openvino", "cpu", FeatureSpec(kind="classical")).name == "torch"
    assert choose_for_features("auto", "cpu", half).name == "torch"
    with pytest.raises(
        UsageError, match=r"found openvino for features\.deep\.precision: bf16, expected torch"
    ):
        choose_for_features("openvino", "cpu", half)


def test_models_and_runs_record_the_backend(tmp_path):
    phantom = make_phantom((2, 96, 96))
    volume, strokes = phantom.image, draw_strokes(phantom.labels, [0])
    by_torch = train_model([(volume, strokes)], recipe="fast", backend="torch")
    model = train_model([(volume, strokes)], recipe="fast", backend=FAST)
    assert (by_torch.backend, model.backend) == ("torch", FAST)
    assert "openvino" in model.versions
    save_model(model, tmp_path / "m.hrvol")
    assert load_model(tmp_path / "m.hrvol").backend == FAST
    outs = {}
    for backend in ("torch", "auto"):
        out = tmp_path / backend
        assert not segment_volume(volume, out, tmp_path / "m.hrvol", backend=backend).failed
        outs[backend] = zarr.open_group(out)
    assert "backend" not in outs["torch"].attrs["hrvol"]
    assert outs["auto"].attrs["hrvol"]["backend"]["name"] == FAST
    labels = [out["labels/hrvol/0"][:] for out in outs.values()]
    assert np.mean(labels[0] != labels[1]) < 0.01
    with pytest.raises(OtherRunError, match=r"backend\.name was"):
        segment_volume(volume, tmp_path / "auto", tmp_path / "m.hrvol", backend="torch")
