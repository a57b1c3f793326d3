"""Batches that fit, and the memory of a tile: arithmetic, held against what torch and numpy really take."""

import tracemalloc

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from hrvol.features.deep import gpu_memory as batch
from hrvol.features.deep.alibi import distance_bias
from hrvol.features.deep.backbone import random_backbone
from hrvol.features.deep.gpu_memory import (
    MOST,
    SHARE,
    batch_for,
    device_need,
    fitting_batch,
    image_bytes,
    network_of,
)
from hrvol.features.deep.layout import layout_of
from hrvol.features.filters import bank as classical
from hrvol.recipe.recipe import PRESETS
from hrvol.recipe.specs import BATCH, ClassicalSpec, DeepSpec, FeatureSpec

VITS14 = batch.Network(14, 384, 22_056_192)
TILE = {"tokens": 38 * 38 + 1, "channels": 384, "pixels": 532**2, "precision": "fp16"}
GIB = 2**30

# Measured on an H100 (torch 2.11): most bytes that torch held while phantoms were labelled, in tiles of
# 518 x 518 px with stripes of 64 rows, by torch.cuda.max_memory_allocated. Taken off are the networks of the
# presets before, which that process held on to (88 224 768 bytes each in fp32, half of that in fp16).
ON_AN_H100 = {
    ("fast", "fp32"): 277_524_480,
    ("fast", "fp16"): 321_666_560 - 88_224_768,
    ("balanced", "fp32"): 651_980_288 - 132_337_152,
    ("balanced", "fp16"): 512_098_816 - 220_561_920,
    ("3 x 3", "fp32"): 1_172_983_808 - 264_674_304,
    ("3 x 3", "fp16"): 846_382_080 - 352_899_072,
}
MEASURED = {
    "fast": PRESETS["fast"],
    "balanced": PRESETS["balanced-0.1"],
    "3 x 3": PRESETS["balanced-0.1"].with_(**{"features.deep.offsets": 3}),
}


def peak_of(function):
    """Return the most bytes that tensors took at once, beyond those that were there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        function()
    events = [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    return int(held.max())


@pytest.mark.parametrize("blocks", [(9,), (6, 9)])
def test_memory_of_a_batch_is_what_the_network_takes(blocks):
    backbone = random_backbone("dinov2_vits14")
    peak = peak_of(lambda: backbone.tokens(torch.rand(2, 1, 168, 168), blocks=blocks))
    expected = 2 * image_bytes(145, 384, 168**2, "fp32", blocks=len(blocks))
    assert 0.97 * expected < peak < 1.03 * expected


def test_memory_of_the_filters_is_enough():
    tracemalloc.start()
    classical.classical_features(np.zeros((128, 128), np.float32), ClassicalSpec())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    need = device_need(PRESETS["classical"].features, (128, 128), None, batch=1, rows=64)
    assert 0.9 * need.filters < peak < need.filters
    assert need.weights == need.workspace == need.batch == need.tokens == 0
    assert need.torch == need.features == 2.75 * 64 * 128 * 58 * 4


def test_memory_of_features_is_theirs_and_what_checking_them_takes():
    def checked():
        features = torch.rand(64 * 128, 58)
        return torch.isfinite(features)

    assert (
        peak_of(checked)
        == device_need(PRESETS["classical"].features, (128, 128), None, batch=1, rows=64).torch
    )


@pytest.mark.parametrize(("preset", "precision"), ON_AN_H100)
def test_the_forecast_is_no_less_than_an_h100_took_and_not_much_more(preset, precision):
    features = MEASURED[preset].with_(**{"features.deep.precision": precision}).features
    need = device_need(features, (518, 518), VITS14, batch=MOST, rows=64)
    assert 1 <= need.torch / ON_AN_H100[preset, precision] < 1.35


def test_a_tile_has_no_more_images_than_passes_times_views():
    for preset, images in (("fast", 4), ("balanced", 8), ("best", 16), ("best-0.1", 32)):
        features = PRESETS[preset].features
        need = device_need(features, (518, 518), VITS14, batch=MOST, rows=64)
        assert need.batch == images * image_bytes(1370, 384, 518**2, "fp32")


def test_a_batch_is_a_power_of_two_that_leaves_half_of_the_memory():
    sizes = [fitting_batch(free, **TILE) for free in range(0, 6 * GIB, GIB // 16)]
    assert sizes == sorted(sizes)
    assert set(sizes) == {1, 2, 4, 8, 16, 32}
    one = image_bytes(**TILE)
    for fit in (1, 2, 4, 32):
        assert fitting_batch(int(fit * one / SHARE) + 1, **TILE) == fit
        assert fitting_batch(int(fit * one / SHARE) - 2, **TILE) == max(1, fit // 2)
    assert fitting_batch(80 * GIB, **TILE) == fitting_batch(40 * GIB, **TILE) == MOST


def test_float32_takes_twice_the_memory_of_half_precision_and_wide_networks_more():
    half, single = (image_bytes(1370, 384, 518**2, precision) for precision in ("bf16", "fp32"))
    assert 1.7 < single / half <= 2
    assert image_bytes(1370, 1024, 518**2, "bf16") > 2.5 * half
    free = 2 * GIB
    assert fitting_batch(free, **{**TILE, "channels": 1536}) < fitting_batch(free, **TILE)


def test_on_the_cpu_the_batch_is_what_it_was():
    backbone = random_backbone("dinov2_vits14")
    assert batch_for(backbone, PRESETS["balanced"].features.deep, (518, 518)) == BATCH


def test_a_networks_measures_are_known_without_its_weights():
    assert network_of("dinov2_vits14") == VITS14
    assert network_of("dino_vits8").patch == 8


@pytest.mark.parametrize(
    ("flips", "rotations", "views"), [(False, False, 1), (True, False, 4), (True, True, 8)]
)
def test_tokens_of_all_views_are_kept_and_one_more_while_it_is_woven(flips, rotations, views):
    spec = FeatureSpec(kind="deep", deep=DeepSpec(block=9, offsets=2, flips=flips, rotations=rotations))
    grid = len(layout_of(14, spec.deep, (518, 518)).centres[0]) ** 2
    need = device_need(spec, (518, 518), VITS14, batch=16, rows=64)
    assert need.tokens == (views + 1) * grid * 384 * 4
    assert need.features == 2.75 * 64 * 518 * 384 * 4
    assert (need.weights, need.filters) == (VITS14.parameters * 4, 0)
    assert (
        need.total
        == need.torch
        == need.weights + need.workspace + need.tokens + max(need.batch, need.features)
    )
    assert min(views, 4) * device_need(spec, (518, 518), VITS14, batch=4, rows=64).batch == need.batch


def test_where_tokens_outnumber_pixels_the_features_of_all_pixels_are_kept():
    spec = PRESETS["paper"].features
    need = device_need(spec, (518, 518), VITS14, batch=4, rows=64)
    whole = 518**2 * 442 * 4
    assert need.features == 2.75 * 64 * 518 * 442 * 4
    assert whole < need.tokens < whole + 17 * 127**2 * 384 * 4  # those of 17 views


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_takes_no_more_than_forecast():
    backbone = random_backbone("dinov2_vits14", device="cuda")
    spec = PRESETS["fast"].features.deep
    size = batch_for(backbone, spec, (518, 518))
    assert 1 <= size <= MOST
    images = torch.rand(size, 1, 532, 532)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    backbone.tokens(images, blocks=(9,))
    peak = torch.cuda.max_memory_allocated() - before
    assert peak < 1.3 * size * image_bytes(TILE["tokens"], 384, TILE["pixels"], "fp32")


def test_the_bias_of_alibi_is_counted():
    network = network_of("dinosaw_vits14_alibi")
    assert network.alibi
    assert not network_of("dinosaw_vits14_nope").alibi
    spec = PRESETS["dino-saw"].features
    without = batch.Network(network.patch, network.channels, network.parameters)
    need, plain = (device_need(spec, (518, 518), one, batch=1, rows=64) for one in (network, without))
    tokens = 37**2 + 1
    assert need.torch - plain.torch == 8 * tokens**2
    peak = peak_of(lambda: distance_bias((37, 37), 5, torch.device("cpu")))
    assert 0.95 < peak / (8 * tokens**2) < 1.05
    free = int(2 * image_bytes(tokens, 384, 518**2, "fp32") / SHARE) + 1
    assert batch.batch_in(free, without, spec.deep, (518, 518)) == 2
    assert batch.batch_in(free, network, spec.deep, (518, 518)) == 1
