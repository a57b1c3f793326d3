"""Measure classes found without labels on the shared micrographs: ``python -m benchmarks.cas``.

Writes a Markdown document, the figures behind it as JSON beside it, and with ``--pictures`` a PNG for each
image. A run that was interrupted goes on: what was measured is kept in ``--cache``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.cas.cache import Cache, pixels_key, scoring_key
from benchmarks.cas.data import Scene, load_scenes, reduced_scenes
from benchmarks.cas.fit import KINDS, Fit, fit_scene, look_of
from benchmarks.cas.pictures import draw_scene
from benchmarks.cas.scores import LAMBDAS, alone, score, true_boxes
from benchmarks.cas.tables import render
from benchmarks.machine import describe_machine
from hrvol.device import cpus
from hrvol.errors import HrvolError, UsageError
from hrvol.features.weights.registry import cache_dir
from hrvol.segment.model.model import current_versions

FEATURES = ("deep", "classical", "intensity")
DENSITIES = ("deep", "last", "strided")
_BEGAN = time.monotonic()


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    try:
        return _run(args)
    except HrvolError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


@dataclass(frozen=True, eq=False)
class Bench:
    """What measurements share.

    Attributes
    ----------
    cache
        Of results and clusters.
    seeds
        Of k-means and its sample.
    machine
        What it is, with versions.
    """

    cache: Cache
    seeds: tuple[int, ...]
    machine: str

    def result(self, scene: Scene, kind: str, part: str) -> dict[str, Any]:
        """Return what is known of a scene with some features, measured now or before."""
        name = _name(scene, kind, part)
        how = {"truths": pixels_key(scene)["truths"], "lambdas": LAMBDAS, "scoring": scoring_key()}
        key = self._key(scene, kind) | how
        found = self.cache.result(name, key)
        if found is not None:
            log(f"{name}: measured before")
            return found
        fit = self.fit(scene, kind, part)
        found = {
            "image": scene.name,
            "data": scene.data,
            "part": part,
            "features": kind,
            "shape": list(scene.images.shape),
            "true_classes": scene.n_classes,
            "machine": fit.machine,
            "seconds": {stage: round(took, 2) for stage, took in fit.seconds.items()},
            "cpu_seconds": {stage: round(took, 2) for stage, took in fit.cpu.items()},
            "alone": alone(scene),
            "true_boxes": true_boxes(scene),
            "rows": score(scene, fit, KINDS[kind].cluster),
        }
        self.cache.keep_result(name, key, found)
        return found

    def fit(self, scene: Scene, kind: str, part: str) -> Fit:
        """Return the clusters of a scene, found now or before."""
        name = _name(scene, kind, part)
        fit = self.cache.fit(name, self._key(scene, kind))
        if fit is None:
            log(f"{name}: clustering {' x '.join(map(str, scene.images.shape))}")
            attention = None if KINDS[kind].attends else self.fit(scene, FEATURES[0], part).attention
            look = look_of(KINDS[kind], scene)
            fit = fit_scene(scene, KINDS[kind], look, seeds=self.seeds, attention=attention, log=log)
            fit = replace(fit, machine=self.machine)
            self.cache.keep_fit(name, self._key(scene, kind), fit)
        return fit

    def _key(self, scene: Scene, kind: str) -> dict[str, Any]:
        """Return all that decides the clusters."""
        key = KINDS[kind].to_dict() | {"images": pixels_key(scene)["images"], "seeds": self.seeds}
        if not KINDS[kind].attends:
            key["attention"] = KINDS[FEATURES[0]].to_dict()
        return key | {"versions": current_versions()}


def _run(args: argparse.Namespace) -> int:
    torch.set_num_threads(args.threads)
    if not args.out.parent.is_dir():
        raise UsageError(f"{args.out}: no such folder {args.out.parent}, expected one to write to")
    bench = Bench(Cache(args.cache), tuple(args.seeds), describe_machine(args.threads))
    log(bench.machine)
    scenes = load_scenes([name for names in args.only for name in names.split(",")])
    parts: list[tuple[str, tuple[Scene, ...], tuple[str, ...]]] = [("whole", scenes, FEATURES)]
    if args.strided_side:
        parts.append((f"{args.strided_side} px", reduced_scenes(scenes, args.strided_side), DENSITIES))
    results: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for part, members, kinds in parts:
        for scene in members:
            done: list[str] = []
            for kind in kinds:
                if not KINDS[kind].attends and not done:
                    continue  # the network failed, whose attention it needs
                try:
                    results.append(bench.result(scene, kind, part))
                except HrvolError as error:  # an image that cannot be measured is told, the others go on
                    failed[_name(scene, kind, part)] = str(error)
                    log(f"{_name(scene, kind, part)}: failed: {error}")
                    continue
                done.append(kind)
                _write(results, failed, args)
            if args.pictures is not None and done:
                args.pictures.mkdir(parents=True, exist_ok=True)
                fits = {kind: bench.fit(scene, kind, part) for kind in done}
                draw_scene(args.pictures / f"{_name(scene, '', part)}.png", scene, fits)
    _write(results, failed, args)
    if args.json:
        print(json.dumps({"results": results, "failed": failed}))
    log(f"{args.out} written")
    return 1 if failed else 0


def _write(results: Sequence[dict[str, Any]], failed: dict[str, str], args: argparse.Namespace) -> None:
    """Write both documents: what is done is not lost with what is not."""
    args.out.write_text(render(results, failed, _command(args)), encoding="utf-8")
    lines = ",\n".join("    " + json.dumps(result, ensure_ascii=False) for result in results)
    text = f'{{"failed": {json.dumps(failed)}, "results": [\n{lines}\n]}}\n'
    args.out.with_suffix(".json").write_text(text, encoding="utf-8")


def _name(scene: Scene, kind: str, part: str) -> str:
    return "-".join(word for word in (scene.name, part.replace(" ", "") * (part != "whole"), kind) if word)


def _command(args: argparse.Namespace) -> str:
    words = ["python -m benchmarks.cas"]
    words += [f"--only {','.join(args.only)}"] * bool(args.only)
    words += [f"--seeds {' '.join(map(str, args.seeds))}"] * (args.seeds != _parser().get_default("seeds"))
    return " ".join([*words, f"--strided-side {args.strided_side}"])


def log(message: str) -> None:
    """Say what is going on, on the error stream: the other one is for ``--json``."""
    print(f"{time.monotonic() - _BEGAN:7.0f} s  {message}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.cas", description=__doc__)
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME,...",
        help="data sets (tcells) or single images (tcells-0); all by default",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/cas/cas.md"))
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, too")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="draw a PNG of each image")
    parser.add_argument(
        "--strided-side",
        type=int,
        default=259,
        help="side in px of the images on which the published settings are tried; 0 for none",
    )
    parser.add_argument(
        "--cache", type=Path, default=cache_dir().parent / "benchmarks" / "cas", metavar="DIR"
    )
    parser.add_argument("--threads", type=int, default=cpus())
    return parser


if __name__ == "__main__":
    sys.exit(main())
