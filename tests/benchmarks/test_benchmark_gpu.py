"""``benchmarks.speed.gpu`` and ``benchmarks.studies.precision``, as small as they go, on the CPU."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.quality.crops import Seen
from benchmarks.speed import gpu
from benchmarks.speed.work import network_flop
from benchmarks.studies import precision
from hrvol.features.deep import upsample
from hrvol.features.deep.backbone import random_backbone

SMALL = (
    "--device cpu --presets fast --precisions fp32 --planes 2 --block-planes 1 --across 1 --core 64 --trees 3"
)


@pytest.fixture(autouse=True)
def threads():
    """The benchmarks hold torch to one thread."""
    before = torch.get_num_threads()
    upsample._threads.cache_clear()
    upsample._pool.cache_clear()  # tests before may have made one of more threads, whose seconds add up
    yield
    upsample._threads.cache_clear()
    upsample._pool.cache_clear()
    torch.set_num_threads(before)


def rows_of(text):
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]


@pytest.mark.weights
def test_the_benchmark_of_gpus_runs_on_the_cpu_and_says_so(tmp_path):
    out = tmp_path / "gpu.md"
    gpu.main([*SMALL.split(), "--batches", "1", "--product", "64", "--workers", "1", "-o", str(out)])
    text = out.read_text()
    assert "nothing here is about GPUs" in text
    head, row, _, batch, _, workers = rows_of(text)
    shares = [float(cell.rstrip("%")) for cell in row[3:9]]
    assert len(shares) == len(gpu.STAGES) + 1 == 6
    assert sum(shares) == pytest.approx(100, abs=0.5)
    assert shares[head.index("network") - 3] > 1
    assert all(share > -0.1 for share in shares)
    assert batch[:2] == ["fp32", "1"]
    assert workers[0] == "1"
    assert float(workers[3]) == 1


def test_operations_are_counted_where_the_network_runs():
    from collections import Counter

    backbone, work = random_backbone("dinov2_vits14"), Counter()
    with gpu.counted(work, "cpu"):
        backbone.tokens(torch.rand(3, 1, 28, 42), blocks=(2,))
    backbone.tokens(torch.rand(1, 1, 28, 28), blocks=(1,))  # counted no more
    assert work["flop"] == 3 * network_flop(7, 2)


def seen(features):
    return Seen({}, {}, features, np.zeros(len(features), np.uint8), {"deep": slice(0, 2)}, (), 0.0, 0.0)


def test_errors_are_relative_to_length_and_to_variation():
    exact = np.array([[10, 0, 5], [10, 2, 7]], np.float32)
    off = exact + np.array([[0, 0, 9], [0, 1, 9]], np.float32)  # the last column is not deep
    found = precision.relative_error(seen(off), seen(exact))
    assert found["of_length"] == pytest.approx(1 / np.sqrt(204), abs=1e-6)
    assert found["of_variation"] == pytest.approx(1 / np.sqrt(2), abs=1e-6)
