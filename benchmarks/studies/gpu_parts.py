"""Measure single steps on a GPU: ``python -m benchmarks.studies.gpu_parts [--hrdv2 PATH]``.

Features of one image beside the reference code's on the same GPU; ``torch.compile``; fits and trees beside
scikit-learn's on the CPUs of the same machine; the filter bank. Weights and images are random: times do not
depend on them. Prints Markdown as it measures.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.markdown import line, table
from benchmarks.speed.peers import Network, colour, hub_gives
from hrvol.features.deep.backbone import random_backbone
from hrvol.features.featuriser import Featuriser
from hrvol.features.filters.bank import classical_features
from hrvol.recipe.recipe import PRESETS
from hrvol.recipe.specs import ClassicalSpec, ClassifierSpec, FeatureSpec
from hrvol.segment.estimators.estimators import fit_classifier, kmeans, probabilities
from hrvol.segment.estimators.on_device import device_probabilities

SIDES = (336, 518)
SETTINGS = [("paper", "fp32"), ("paper", "fp16")] + [
    (preset, precision) for preset in ("fast", "balanced", "best") for precision in ("fp32", "bf16", "fp16")
]
CHANNELS = 470
"""About what a pixel has with one block's tokens and the default filters."""

TRAINED, CLUSTERED, PREDICTED = 20_000, 50_000, 20_000


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure each part."""
    args = _parser().parse_args(arguments)
    if not torch.cuda.is_available():
        raise SystemExit("found no GPU")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n")
    compare_features(args.hrdv2)
    compare_compiled()
    time_filters()
    compare_fits()


def clock(run: Callable[[], Any], repeats: int = 5, warm: int = 2) -> float:
    """Return the median seconds of a run on the GPU."""
    for _ in range(warm):
        run()
    found = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        began = time.perf_counter()
        run()
        torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def compare_features(checkout: Path | None) -> None:
    """Print the time and the memory of the features of one image, beside the reference code's."""
    _head("image", "what", "precision", "ms", "times as fast", "most memory, MB")
    rng = np.random.default_rng(0)
    for side in SIDES:
        image = rng.integers(0, 255, (side, side), dtype=np.uint8)
        reference = None if checkout is None else _reference(checkout, image)
        if reference is not None:
            _line(f"{side} px", "reference code", "fp32", *reference)
            _tidy()
        for preset, precision in SETTINGS:
            backbone = random_backbone("dinov2_vits14", device="cuda", precision=precision)
            featuriser = Featuriser(FeatureSpec(kind="deep", deep=PRESETS[preset].features.deep), backbone)
            unit, batch = image.astype(np.float32) / 255, 4 if preset == "paper" else 32
            torch.cuda.reset_peak_memory_stats()
            took = clock(lambda f=featuriser, u=unit, b=batch: f(u, batch_size=b))
            times = "" if reference is None else f"{float(reference[0]) / took / 1e3:.1f}"
            _line(f"{side} px", f"`{preset}`", precision, f"{took * 1e3:.1f}", times, _peak())
            del backbone, featuriser
            _tidy()


def _reference(checkout: Path, image: NDArray[np.uint8]) -> tuple[str, str, str]:
    """Time the published settings of the reference code: stride 4, the image and 16 shifts."""
    sys.path.insert(0, str(checkout))
    from hr_dv2 import HighResDV2, transform

    network = Network().eval().requires_grad_(False)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    with hub_gives(network):
        model = HighResDV2("dinov2_vits14", 4).cuda()
    model.set_transforms(*transform.get_shift_transforms([1, 2], "Moore"))
    image_colour = colour(image).cuda()
    torch.cuda.reset_peak_memory_stats()
    took = clock(lambda: model.forward_sequential(image_colour), repeats=3, warm=1)
    return f"{took * 1e3:.1f}", "1", _peak()


def compare_compiled() -> None:
    """Print times of the network with ``torch.compile`` of each layer: 16 images of 518 px, 6 layers."""
    _head("precision", "plain, ms", "compiled, ms", "times as fast", "first call, s")
    for precision in ("fp32", "fp16"):
        backbone = random_backbone("dinov2_vits14", device="cuda", precision=precision)
        images = torch.rand(16, 1, 518, 518, device="cuda")

        def run(backbone: Any = backbone, images: Any = images) -> None:
            backbone.tokens(images, blocks=(6,))

        plain, blocks = clock(run, 10), backbone.net.blocks
        for number, block in enumerate(blocks):
            blocks[number] = torch.compile(block, dynamic=False)
        began = time.perf_counter()
        run()
        torch.cuda.synchronize()
        first, compiled = time.perf_counter() - began, clock(run, 10)
        cells = f"{plain * 1e3:.1f}", f"{compiled * 1e3:.1f}", f"{plain / compiled:.2f}", f"{first:.1f}"
        _line(precision, *cells)
        del backbone, images, blocks
        _tidy()


def time_filters() -> None:
    """Print the time of each filter of the default bank for a tile of 518 px, beside one CPU thread."""
    import cupy

    spec = ClassicalSpec()
    image = np.random.default_rng(0).random((518, 518), dtype=np.float32)
    there = cupy.asarray(image)
    _head("filters", "GPU, ms", "CPU, ms")
    for filters in (*((name,) for name in spec.filters), spec.filters):
        part = spec.model_copy(update={"filters": filters})
        took = clock(lambda part=part: classical_features(there, part))
        began = time.perf_counter()
        classical_features(image, part)
        cpu = time.perf_counter() - began
        _line(filters[0] if len(filters) == 1 else "all", f"{took * 1e3:.1f}", f"{cpu * 1e3:.0f}")


def compare_fits() -> None:
    """Print times of fits and of predictions of a tile, beside scikit-learn's: all CPUs fit, one predicts."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, CHANNELS)).astype(np.float32) / 4

    def draw(count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        labels = rng.integers(0, len(centres), count)
        noise = rng.normal(size=(count, CHANNELS)).astype(np.float32)
        return (centres[labels] + noise).astype(np.float32), labels + 1

    features, labels = draw(TRAINED)
    tile, _ = draw(518 * 518)
    there = torch.from_numpy(tile).cuda()
    _head("what", "GPU", "CPU", "labels that differ")
    for kind in ("forest", "logistic"):
        spec = ClassifierSpec(kind=kind, class_weight=None)
        fits = {}
        for device in ("cuda", "cuda", "cpu"):  # the first call initialises
            began = time.perf_counter()
            estimator = fit_classifier(spec, features, labels, 0, n_jobs=-1, device=device)
            fits[device] = time.perf_counter() - began
        rows = f"{TRAINED} x {CHANNELS}"
        _line(f"{kind}: fit of {rows}", f"{fits['cuda']:.2f} s", f"{fits['cpu']:.2f} s", "")
        took = clock(lambda e=estimator, k=kind: device_probabilities(k, e, there))
        found = device_probabilities(kind, estimator, there)[:PREDICTED].cpu().numpy().argmax(axis=1)
        began = time.perf_counter()
        expected = probabilities(estimator, tile[:PREDICTED]).argmax(axis=1)
        cpu = (time.perf_counter() - began) * len(tile) / PREDICTED
        differ = f"{(found != expected).mean():.4%}"
        _line(f"{kind}: tile of 518 x 518", f"{took * 1e3:.1f} ms", f"{cpu:.1f} s", differ)
    many = draw(CLUSTERED)[0]
    times = {}
    for device in ("cuda", "cuda", "cpu"):
        began = time.perf_counter()
        kmeans(many, 80, 0, device=device)
        times[device] = f"{time.perf_counter() - began:.2f} s"
    _line(f"k-means of {CLUSTERED} x {CHANNELS}, 80 clusters", times["cuda"], times["cpu"], "")


def _peak() -> str:
    return f"{torch.cuda.max_memory_allocated() / 1e6:.0f}"


def _tidy() -> None:
    gc.collect()
    torch.cuda.empty_cache()


def _head(*cells: str) -> None:
    print(f"\n{table(cells, ())}", end="", flush=True)


def _line(*cells: str) -> None:
    print(line(cells), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.gpu_parts", description=__doc__)
    parser.add_argument("--hrdv2", type=Path, help="a checkout of the reference code")
    return parser


if __name__ == "__main__":
    main()
