"""Measure classes found without labels on the shared micrographs: ``python -m benchmarks.cas``.

Writes a Markdown page, its figures as JSON beside it, and with ``--pictures`` a PNG of each image. An
interrupted run resumes from the results in ``--cache``.
"""

from __future__ import annotations

import argparse
import json
import sys
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
from benchmarks.machine import describe_machine, log
from hrvol.device import cpus
from hrvol.errors import HrvolError, UsageError
from hrvol.features.weights.cache import cache_dir
from hrvol.segment.model.model import current_versions

FEATURES = ("deep", "classical", "intensity")
DENSITIES = ("deep", "last", "strided")


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    try:
        return _run(args)
    except HrvolError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


@dataclass(frozen=True, eq=False)
class Bench:
    """State shared by the measurements.

    Attributes
    ----------
    cache
        Of results and clusters.
    seeds
        Of k-means and its sample.
    machine
        Its description, with versions.
    """

    cache: Cache
    seeds: tuple[int, ...]
    machine: str

    def result(self, scene: Scene, kind: str, part: str) -> dict[str, Any]:
        """Return the figures of a scene with some features, from the cache if possible."""
        name = _name(scene, kind, part)
        scored = {"truths": pixels_key(scene)["truths"], "lambdas": LAMBDAS, "scoring": scoring_key()}
        key = self._key(scene, kind) | scored
        result = self.cache.result(name, key)
        if result is not None:
            _log(f"{name}: measured before")
            return result
        fit = self.fit(scene, kind, part)
        result = {
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
        self.cache.keep_result(name, key, result)
        return result

    def fit(self, scene: Scene, kind: str, part: str) -> Fit:
        """Return the clusters of a scene, from the cache if possible."""
        name = _name(scene, kind, part)
        fit = self.cache.fit(name, self._key(scene, kind))
        if fit is None:
            _log(f"{name}: clustering {' x '.join(map(str, scene.images.shape))}")
            attention = None if KINDS[kind].attends else self.fit(scene, FEATURES[0], part).attention
            look = look_of(KINDS[kind], scene)
            fit = fit_scene(scene, KINDS[kind], look, seeds=self.seeds, attention=attention, log=_log)
            fit = replace(fit, machine=self.machine)
            self.cache.keep_fit(name, self._key(scene, kind), fit)
        return fit

    def _key(self, scene: Scene, kind: str) -> dict[str, Any]:
        """Return everything that determines the clusters."""
        key = KINDS[kind].to_dict() | {"images": pixels_key(scene)["images"], "seeds": self.seeds}
        if not KINDS[kind].attends:
            key["attention"] = KINDS[FEATURES[0]].to_dict()
        return key | {"versions": current_versions()}


def _run(args: argparse.Namespace) -> int:
    torch.set_num_threads(args.threads)
    if not args.out.parent.is_dir():
        raise UsageError(f"{args.out}: no such folder {args.out.parent}, expected an existing folder")
    bench = Bench(Cache(args.cache), tuple(args.seeds), describe_machine(args.threads))
    _log(bench.machine)
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
                    continue  # it needs the attention of the network, which failed
                try:
                    results.append(bench.result(scene, kind, part))
                except HrvolError as error:  # reported; the other images are measured
                    failed[_name(scene, kind, part)] = str(error)
                    _log(f"{_name(scene, kind, part)}: failed: {error}")
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
    _log(f"{args.out} written")
    return 1 if failed else 0


def _write(results: Sequence[dict[str, Any]], failed: dict[str, str], args: argparse.Namespace) -> None:
    """Write page and JSON."""
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


def _log(message: str) -> None:
    """Print progress on standard error: standard output is for ``--json``."""
    log(message, sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cas", description=__doc__)
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
