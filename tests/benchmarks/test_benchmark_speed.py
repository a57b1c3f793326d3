"""``benchmarks.speed`` and ``benchmarks.studies.gpu_forecast``: arithmetic, and tables of made-up figures."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.speed.peers import Network, figures, hub_gives, load_network, timed
from benchmarks.speed.tables import entries
from benchmarks.speed.work import Work, block_products, network_flop, work_of
from benchmarks.studies.gpu_forecast import GPUS, outlook
from hrvol.features.deep.backbone import Backbone, random_backbone
from hrvol.recipe.recipe import PRESETS
from hrvol.recipe.specs import DeepSpec


def row(who="hrvol", name="balanced", when="before", seconds=(10.0,), **others):
    made = {
        "who": who,
        "name": name,
        "side": 336,
        "round": when,
        "seconds": list(seconds),
        "views": 1,
        "of": 1,
    }
    return made | {"peak_mb": 500.0, "passes": 16, "tokens": 577, "blocks": 9} | others


def test_operations_of_a_pass_are_the_textbook_count():
    n, c, blocks = 577, 384, 9
    expected = blocks * (24 * n * c**2 + 4 * n**2 * c) + 2 * (n - 1) * 3 * 14**2 * c
    assert network_flop(n, blocks) == expected
    assert {name: shape for name, _, shape in block_products(n)}["scores"] == (n, 64, n)


def test_operations_are_those_that_torch_counts():
    from torch.utils.flop_counter import FlopCounterMode

    backbone = random_backbone("dinov2_vits14")
    for block in backbone.net.blocks:
        block.attn.fused_attn = False  # torch does not count what is fused on a CPU
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        # nor does it see into inference mode
        Backbone.tokens.__wrapped__(backbone, torch.rand(1, 1, 56, 140), blocks=(3,))
    assert counter.get_total_flops() == network_flop(4 * 10 + 1, 3)


@pytest.mark.parametrize(
    ("preset", "passes", "tokens", "blocks"),
    [
        ("fast", 4, 577, 6),
        ("balanced", 8, 577, 6),
        ("best", 16, 577, 6),
        ("balanced-0.1", 16, 577, 6),
        ("paper", 17, 6562, 12),
    ],
)
def test_work_of_presets(preset, passes, tokens, blocks):
    work = work_of(PRESETS[preset].features.deep, (336, 336))
    assert (work.passes, set(work.tokens), work.blocks) == (passes, {tokens}, blocks)


def test_work_counts_padding_and_views_of_any_recipe():
    assert work_of(DeepSpec(offsets=2, flips=True), (56, 60)).tokens == (4 * 5 + 1,) * 16
    assert work_of(DeepSpec(block=(3, 6), offsets=1), (56, 56)).blocks == 6


def test_memory_is_the_bound_where_arithmetic_is_quick():
    gpu, spec = GPUS[1], DeepSpec(block=9)
    work = Work((1370,) * 16, 9, 518 * 518)
    slow, quick = (outlook(work, spec, "deep", gpu, part) for part in (0.01, 1.0))
    assert slow.seconds == slow.arithmetic == pytest.approx(work.flop / (0.01 * gpu.flops))
    assert quick.seconds == quick.memory > quick.arithmetic
    assert (
        outlook(work, spec, "deep", gpu, 0.2).arithmetic
        == 2 * outlook(work, spec, "deep", gpu, 0.4).arithmetic
    )


def test_the_network_of_the_peers_is_the_network_of_hrvol(tmp_path):
    backbone = random_backbone("dinov2_vits14", seed=1)
    file = tmp_path / "weights.npz"
    np.savez(file, **{name: value.numpy() for name, value in backbone.net.state_dict().items()})
    network = load_network(file)
    image = torch.rand(1, 1, 56, 84, generator=torch.Generator().manual_seed(0))
    expected = backbone.tokens(image, positions="published").features
    colour = (image.expand(-1, 3, -1, -1) - backbone._mean) / backbone._std
    with torch.inference_mode():
        found = network.forward_features(colour)["x_norm_patchtokens"]
    torch.testing.assert_close(found[0].T.reshape(384, 4, 6), expected[0], rtol=1e-4, atol=1e-4)
    assert network.seen == [25]


def test_the_hub_is_itself_again_afterwards():
    network, original = Network(), torch.hub.load
    with hub_gives(network):
        assert torch.hub.load("facebookresearch/dinov2", "dinov2_vits14") is network
    assert torch.hub.load is original


def test_runs_are_repeated_within_the_budget_and_memory_is_seen():
    runs = []

    kept = [np.ones(100_000, np.uint8) for _ in range(1000)]  # freed, it would do for what is measured
    del kept
    timing = timed(lambda: runs.append(np.ones(40_000_000, np.uint8).sum()), repeats=3, budget=60)
    assert len(timing.seconds) == len(runs) == 3
    assert 30 < timing.peak_mb < 120
    assert len(timed(lambda: None, repeats=9, budget=0).seconds) == 1
    assert figures(timing, [5, 5, 5, 5, 5, 5], 3, 9)["passes"] == 2


def test_views_that_were_not_run_are_counted_in():
    few = row("reference", "published", "once", [20.0], views=2, of=17, passes=2, tokens=6562, blocks=12)
    (entry,) = entries([few])
    assert entry.seconds == 170
    assert entry.work == "17 x 6562"
    assert entry.flop == 17 * network_flop(6562, 12)
    assert entry.partly == "2 of 17 views"
