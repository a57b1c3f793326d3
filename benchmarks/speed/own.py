"""Measure hrvol for ``benchmarks.speed``: ``python -m benchmarks.speed.own JOB``.

A job is JSON; its figures are the last line printed, like those of ``benchmarks.speed.peers``.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.data import load_dense
from benchmarks.speed.peers import PATCH, figures, serve, timed
from benchmarks.speed.work import block_products, network_flop, work_of
from hrvol.features.deep.backbone import load_backbone
from hrvol.features.deep.views import views_of
from hrvol.features.featuriser import load_featuriser
from hrvol.phantom import draw_strokes
from hrvol.recipe.specs import DeepSpec, FeatureSpec
from hrvol.run.segment import segment_volume
from hrvol.segment.model.model import save_model
from hrvol.training.train import train_model
from hrvol.volume.volume import open_volume
from hrvol.volume.write_image import write_image

FEW = 4
"""Views to run where all would take too long."""

SQUARE = 2048
"""Side of the large matrices whose product is the machine's ceiling."""


def measure_hrvol(job: dict[str, Any]) -> dict[str, Any]:
    """Time hrvol's features, of one image and of as many at once as there are threads.

    Keys of ``job``: ``spec`` (a ``FeatureSpec`` as plain values), ``image``, ``threads``, ``repeats``,
    ``budget`` (seconds for repeats), ``time_limit`` and ``flop_rate`` (of all threads; of views
    estimated to take longer than the limit, four are run), ``together`` (whether to time several
    images at once).
    """
    spec, threads = FeatureSpec.model_validate(job["spec"]), job["threads"]
    image = np.load(job["image"]).astype(np.float32) / 255
    views = 1
    work = work_of(spec.deep, image.shape) if spec.uses_deep else None
    if work is not None:
        views = len(views_of(spec.deep))
        estimate = work.flop / job["flop_rate"]
        if views > FEW and estimate > job["time_limit"]:
            # Views are alike: some stand for all of them. Four, because views run side by side.
            deep = spec.deep.model_copy(update={"shifts": (), "flips": "published", "rotations": False})
            spec = spec.model_copy(update={"deep": deep})
            work = work_of(deep, image.shape)
            estimate *= FEW / views
        job["together"] &= threads * estimate <= job["time_limit"]
    featuriser = load_featuriser(spec)
    measured = len(views_of(spec.deep)) if work is not None else 1
    featuriser(image[:56, :56])
    timing = timed(lambda: featuriser(image), job["repeats"], job["budget"])
    found = figures(timing, work.tokens if work else (), 1, work.blocks if work else 0)
    found |= {"views": measured, "of": views}
    if job["together"]:
        with ThreadPoolExecutor(threads) as pool:
            both = timed(
                lambda: list(pool.map(lambda _: featuriser(image), range(threads))),
                job["repeats"],
                job["budget"],
            )
        found["together"] = [seconds / threads for seconds in both.seconds]
        found["together_peak_mb"] = both.peak_mb
    return found


def measure_ceiling(job: dict[str, Any]) -> dict[str, Any]:
    """Time hrvol's network passes, and matrix products of their shapes, on the same threads in one process.

    Each thread does its own product or pass, as hrvol does it; the large square is also done by all threads
    together. Keys of ``job``: ``spec`` (a ``DeepSpec``), ``side``, ``threads``, ``seconds`` (per product).
    Figures are FLOP/s of all threads.
    """
    spec, threads, side = DeepSpec.model_validate(job["spec"]), job["threads"], job["side"]
    stride = PATCH if spec.stride == "native" else spec.stride
    grid = 1 + (side - PATCH) // stride
    tokens = grid * grid + 1
    backbone = load_backbone(spec.weights)
    blocks = backbone.block_numbers(spec.block)
    image = torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(0))
    a = torch.rand(SQUARE, SQUARE)
    joint = timed(lambda: torch.mm(a, a), 6).seconds
    products: dict[str, float] = {}
    cost = total = 0.0
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for name, batch, (m, k, n) in block_products(tokens):
            products[name] = _rate(pool, threads, batch, (m, k, n), job["seconds"])
            flop = 2 * batch * m * k * n
            cost, total = cost + flop / products[name], total + flop
        square = _rate(pool, threads, 1, (SQUARE, SQUARE, SQUARE), job["seconds"])
        passes = max(1, round(job["seconds"] * square / network_flop(tokens, max(blocks)) / threads))

        def see(_: int) -> None:
            backbone.tokens(image, stride=stride, blocks=blocks)

        list(pool.map(see, range(threads)))
        began = time.perf_counter()
        list(pool.map(see, range(passes * threads)))
        seconds = time.perf_counter() - began
    return {
        "side": side,
        "tokens": tokens,
        "blocks": max(blocks),
        "products": products,
        "mix": total / cost,  # the network's products one after the other, nothing else
        "square": square,
        "square_joint": 2 * SQUARE**3 / min(joint),
        "network": passes * threads * network_flop(tokens, max(blocks)) / seconds,
    }


def _rate(
    pool: ThreadPoolExecutor, threads: int, batch: int, shape: tuple[int, int, int], seconds: float
) -> float:
    """Return FLOP/s of a product that every thread repeats for about some seconds."""
    m, k, n = shape
    pairs = [(torch.rand(batch, m, k), torch.rand(batch, k, n)) for _ in range(threads)]

    def repeat(pair: tuple[Tensor, Tensor], times: int) -> None:
        for _ in range(times):
            torch.mm(pair[0][0], pair[1][0]) if batch == 1 else torch.bmm(*pair)

    def run(times: int) -> float:
        began = time.perf_counter()
        for future in [pool.submit(repeat, pair, times) for pair in pairs]:
            future.result()
        return time.perf_counter() - began

    run(1)
    times = max(1, round(seconds / run(1)))
    return threads * times * 2 * batch * m * k * n / run(times)


def train_small(job: dict[str, Any]) -> dict[str, Any]:
    """Write a small volume, and a model trained on its first plane.

    Keys of ``job``: ``folder``, ``planes``, ``side`` (px), ``preset``. Returns the two files.
    """
    data, side, folder = load_dense("vnc"), job["side"], Path(job["folder"])
    part = (slice(0, job["planes"]), slice(0, side), slice(0, side))
    write_image(folder / "volume.ome.zarr", open_volume(np.ascontiguousarray(data.images[part])))
    corner = (slice(0, 1), slice(0, min(side, 518)), slice(0, min(side, 518)))
    images, truth = (np.ascontiguousarray(array[corner]) for array in (data.images, data.truth))
    model = train_model([(images, draw_strokes(truth, [0]))], recipe=job["preset"], classes=data.classes)
    save_model(model, folder / "model.hrvol")
    return {"volume": str(folder / "volume.ome.zarr"), "model": str(folder / "model.hrvol")}


def measure_volume(job: dict[str, Any]) -> dict[str, Any]:
    """Label a small volume with some workers.

    Keys of ``job``: ``volume`` and ``model`` (files), ``out``, ``workers``.
    """
    report = segment_volume(job["volume"], job["out"], job["model"], engine="local", workers=job["workers"])
    return {"seconds": [report.seconds], "voxels": report.voxels, "peak_mb": report.peak / 2**20}


JOBS = {
    "hrvol": measure_hrvol,
    "ceiling": measure_ceiling,
    "train": train_small,
    "volume": measure_volume,
}


if __name__ == "__main__":
    serve(JOBS)
