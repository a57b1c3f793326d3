"""DINOv3 and dino-saw against their reference codes: tokens with the same weights, and conversion of names.

``reference_tokens.npz`` was recorded from the reference codes; ``reference_networks.py`` says how.
"""

import os
import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from reference_networks import (
    CASES,
    CHANNELS,
    DINO_SAW,
    DINOV3,
    LAYERS,
    Case,
    dino_saw_state,
    dinov3_state,
    image,
    periods,
    recorded,
    reference,
    weight,
)
from safetensors.torch import load_file, save_file

from hrvol.errors import WeightsError
from hrvol.features.deep.backbone import load_backbone
from hrvol.features.weights import registry
from hrvol.features.weights.architecture import PERIODS
from hrvol.features.weights.digest import content_sha256

BOUND = 1e-5


def error(found, expected):
    """Return the relative error of tokens ``(layers, tokens, channels)``: the largest of all layers."""
    axes = (1, 2)
    return float((np.linalg.norm(found - expected, axis=axes) / np.linalg.norm(expected, axis=axes)).max())


def tokens(backbone, case):
    """Return the tokens of a case, those channels that were recorded."""
    passed = backbone.tokens(image(case.shape), stride=case.stride, blocks=LAYERS).features
    by_layer = passed[0].unflatten(0, (len(LAYERS), -1)).flatten(2).transpose(1, 2)
    return by_layer.numpy()[:, :, CHANNELS]


def state_of(case):
    return dinov3_state(case.network, case.rounded) if case.network in DINOV3 else dino_saw_state()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HRVOL_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Networks with weights by the formula, each loaded once."""

    @lru_cache
    def loaded(name, rounded, backend):
        case = Case(name, (0, 0), 0, rounded)
        with pytest.MonkeyPatch.context() as patch:
            folder = tmp_path_factory.mktemp(name)
            patch.setenv("HRVOL_CACHE_DIR", str(folder / "cache"))
            return load(folder, name, state_of(case), backend=backend)

    return lambda case, backend="torch": loaded(case.network, case.rounded, backend)


def load(folder, name, state, **options):
    torch.save(state, folder / "weights.pth")
    return load_backbone(name, weights_path=str(folder / "weights.pth"), **options)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
def test_tokens_are_those_of_the_reference_code(case, networks):
    assert error(tokens(networks(case), case), recorded()[case.key]) < BOUND


def test_the_record_can_tell_networks_apart(tmp_path):
    """What the cases are to show is far above the bound: positions, rounded periods, biases, registers."""
    record = recorded()
    alibi, nope = (Case(name, (84, 112), 14).key for name in DINO_SAW)
    assert error(record[alibi], record[nope]) > 1000 * BOUND
    exact, rounded = (Case("dinov3_vits16", (60, 52), 4, flag).key for flag in (False, True))
    assert error(record[rounded], record[exact]) > 20 * BOUND
    case = Case("dinov3_vits16", (96, 128), 16)
    for changed in ("blocks.2.attn.qkv.bias", "storage_tokens", "blocks.0.ls2.gamma"):
        state = state_of(case) | {changed: weight("another", state_of(case)[changed].shape)}
        assert error(tokens(load(tmp_path, case.network, state), case), record[case.key]) > 20 * BOUND


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
def test_the_record_is_what_the_reference_code_computes(case):
    """Only where ``HRVOL_REFERENCE_CODE`` names a folder with checkouts ``dinov3`` and ``dino-saw``."""
    if "HRVOL_REFERENCE_CODE" not in os.environ:
        pytest.skip("no reference code: set HRVOL_REFERENCE_CODE")
    folder = Path(os.environ["HRVOL_REFERENCE_CODE"])
    found = reference(case, folder / "dinov3", folder / "dino-saw")
    assert error(found, recorded()[case.key]) < BOUND


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.stride < 14 and case.network in ("dinov3_vits16plus", DINO_SAW[0])],
    ids=Case.key.fget,
)
def test_openvino_computes_the_same(case, networks):
    pytest.importorskip("openvino")
    assert error(tokens(networks(case, "openvino"), case), recorded()[case.key]) < BOUND


# Names of DINOv3


def transformers_state(name):
    """Return a checkpoint with the names of ``DINOv3ViTModel`` of transformers."""
    gated = name.endswith("plus")
    perceptron = {"w1": "gate_proj", "w2": "up_proj", "w3": "down_proj"}
    if not gated:
        perceptron = {"fc1": "up_proj", "fc2": "down_proj"}
    state = {}
    for key, values in dinov3_state(name).items():
        if key in ("cls_token", "mask_token", "storage_tokens"):
            state[f"embeddings.{key.replace('storage', 'register')}"] = values
        elif key.startswith("patch_embed.proj"):
            state[key.replace("patch_embed.proj", "embeddings.patch_embeddings")] = values
        elif ".qkv." in key:
            kind = key.rsplit(".", 1)[1]
            for letter, part in zip("qkv", values.chunk(3), strict=True):
                if kind == "weight" or (kind == "bias" and letter != "k"):
                    number = key.split(".")[1]
                    state[f"layer.{number}.attention.{letter}_proj.{kind}"] = part
        elif key.startswith("blocks."):
            new = key.replace("blocks.", "layer.").replace(".attn.proj.", ".attention.o_proj.")
            new = re.sub(r"\.ls(\d)\.gamma", r".layer_scale\1.lambda1", new)
            state[re.sub(r"\.mlp\.(\w+)\.", lambda found: f".mlp.{perceptron[found[1]]}.", new)] = values
        elif not key.startswith("rope"):
            state[key] = values
    return state


@pytest.mark.parametrize("name", ["dinov3_vits16", "dinov3_vits16plus"])
def test_all_spellings_give_the_same_weights(name, tmp_path):
    files = {"original": dinov3_state(name), "transformers": transformers_state(name)}
    files["transformers 5"] = {
        re.sub(r"^layer\.", "model.layer.", key): values for key, values in files["transformers"].items()
    }
    found = {}
    for kind, state in files.items():
        torch.save(state, tmp_path / f"{kind}.pth")
        found[kind] = registry.load_verified(name, path=tmp_path / f"{kind}.pth")
    converted = found["original"][0]
    save_file(converted, tmp_path / "timm.safetensors")
    found["timm"] = registry.load_verified(name, path=tmp_path / "timm.safetensors")
    assert len({digest for _, digest in found.values()}) == 1
    assert registry.fetch_weights(name, path=tmp_path / "timm.safetensors") == tmp_path / "timm.safetensors"


def test_biases_that_are_zero_are_left_out_as_timm_does(tmp_path):
    state = dinov3_state("dinov3_vits16")
    torch.save(state, tmp_path / "with.pth")
    state = {key: values * (not key.endswith("qkv.bias")) for key, values in state.items()}
    torch.save(state, tmp_path / "without.pth")
    with_biases, without = (
        registry.load_verified("dinov3_vits16", path=tmp_path / f"{kind}.pth")[0]
        for kind in ("with", "without")
    )
    assert set(with_biases) - set(without) == {
        f"blocks.{number}.attn.{letter}_bias" for number in range(12) for letter in "qv"
    }


def test_rounded_periods_are_kept_in_half_precision_too(tmp_path):
    state = dinov3_state("dinov3_vits16", rounded=True)
    backbone = load(tmp_path, "dinov3_vits16", state, precision="bf16")
    assert torch.equal(backbone.net.rope.periods, periods(rounded=True))
    file = next((tmp_path / "cache" / "weights").glob("*.safetensors"))
    assert torch.equal(load_file(file)[PERIODS], periods(rounded=True))
    exact = load(tmp_path, "dinov3_vits16", dinov3_state("dinov3_vits16"), precision="bf16")
    torch.testing.assert_close(exact.net.rope.periods, periods(), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        (
            "dinov3_vits16",
            {"rope_embed.periods": 2 * periods()},
            "periods are those of another rotary embedding",
        ),
        (
            "dinov3_vits16",
            {"rope_embed.periods": torch.ones(8)},
            "periods are those of another rotary embedding",
        ),
        ("dinov3_vits16", {"blocks.3.attn.qkv.bias_mask": torch.ones(1152)}, "has a bias of keys"),
        (
            "dinov3_vits16",
            {"blocks.3.attn.qkv.weight": torch.ones(1152, 768)},
            r"qkv\.weight is \(1152, 768\)",
        ),
        ("dinov3_vits16plus", {}, r"mlp\.fc1_g\.weight is missing"),
        ("dinov3_vitb16", {}, "does not hold dinov3_vitb16"),
        ("dinov2_vits14", {}, "does not hold dinov2_vits14"),
        ("dinosaw_vits14_nope", {}, "does not hold dinosaw_vits14_nope"),
    ],
)
def test_another_network_is_one_line(name, change, problem, tmp_path):
    torch.save(dinov3_state("dinov3_vits16") | change, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=problem) as caught:
        registry.fetch_weights(name, path=tmp_path / "odd.pth")
    assert str(caught.value).startswith(str(tmp_path / "odd.pth"))
    assert "\n" not in str(caught.value)


# dino-saw


def test_checkpoints_of_dino_saw_in_a_wrapper_are_the_same(tmp_path):
    digests = set()
    for prefix in ("", "vit.", "model."):
        state = {f"{prefix}{key}": values for key, values in dino_saw_state().items()}
        state[f"{prefix}pos_embed"] = torch.zeros(1, 1369, 384)
        torch.save(state, tmp_path / "weights.pth")
        digests.add(registry.load_verified("dinosaw_vits14_alibi", path=tmp_path / "weights.pth")[1])
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"pos_embed": torch.ones(1, 1369, 384)}, "pos_embed is not zero"),
        ({"blocks.0.attn.m": torch.ones(6, 1, 1)}, "learned slope of ALiBi"),
        ({"reg_token": torch.ones(1, 2, 384)}, r"reg_token is \(1, 2, 384\)"),
    ],
)
def test_other_networks_of_dino_saw_are_refused(change, problem, tmp_path):
    torch.save(dino_saw_state() | change, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=f"odd.pth: does not hold dinosaw_vits14_alibi: .*{problem}"):
        registry.fetch_weights("dinosaw_vits14_alibi", path=tmp_path / "odd.pth")


def test_periods_of_a_converted_file_are_checked_again(tmp_path):
    torch.save(dinov3_state("dinov3_vits16", rounded=True), tmp_path / "original.pth")
    converted, digest = registry.load_verified("dinov3_vits16", path=tmp_path / "original.pth")
    file = tmp_path / "converted.safetensors"
    save_file(converted, file)
    assert registry.fetch_weights("dinov3_vits16", path=file) == file
    assert load_backbone("dinov3_vits16", weights_path=str(file)).sha256 == digest
    for odd in (torch.ones(16), torch.ones(3), torch.ones(())):
        save_file(converted | {PERIODS: odd}, file)
        with pytest.raises(WeightsError, match="periods are those of another rotary embedding"):
            registry.fetch_weights("dinov3_vits16", path=file)


def test_periods_are_nothing_to_other_networks(tmp_path):
    state = dino_saw_state() | {PERIODS: periods()}
    save_file(state, tmp_path / "odd.safetensors")
    file = registry.fetch_weights("dinosaw_vits14_nope", path=tmp_path / "odd.safetensors")
    assert PERIODS not in load_file(file)
    digest = content_sha256(state)
    cached = registry.cache_file("dinosaw_vits14_nope")
    save_file(state, cached)
    cached.with_suffix(".json").write_text(f'{{"content_sha256": "{digest}"}}')
    with pytest.raises(WeightsError, match="holds another network"):
        load_backbone("dinosaw_vits14_nope")
