"""What was measured already: a run that was interrupted goes on where it was.

A file is used only if all that decides its contents is as it was: features, clusters, seeds, pixels,
versions.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from benchmarks.cas import scores
from benchmarks.cas.data import Scene
from benchmarks.cas.fit import Fit, Partition
from hrvol.analysis import objects
from hrvol.quality import matching, metrics
from hrvol.segment import cluster_classifier as cas
from hrvol.segment.attention import ClusterTally

FORMAT = 1
"""Rises when features, samples or clusters change: then nothing that was kept counts."""

Key = Mapping[str, Any]


def scoring_key() -> str:
    """Return what tells the code that merges and scores from other versions of it.

    Results are then made again from clusters, which takes moments. Those of other code for features and
    k-means cannot be told: where that changes, :data:`FORMAT` has to, or the folder.
    """
    sources = [
        Path(str(module.__file__)).read_bytes() for module in (cas, objects, matching, metrics, scores)
    ]
    return hashlib.sha256(b"".join(sources)).hexdigest()[:16]


def pixels_key(scene: Scene) -> dict[str, str]:
    """Return what tells a scene's pixels, and its truths, from others."""
    truths = b"".join(
        name.encode() + np.ascontiguousarray(truth).tobytes() for name, truth in scene.truths.items()
    )
    images = np.ascontiguousarray(scene.images)
    return {
        "images": hashlib.sha256(repr(images.shape).encode() + images.tobytes()).hexdigest()[:16],
        "truths": hashlib.sha256(truths).hexdigest()[:16],
    }


class Cache:
    """Results and clusters in a folder, by the name of the scene and of the features."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def result(self, name: str, key: Key) -> dict[str, Any] | None:
        """Return a result (JSON values), if there is one of this key."""
        file = self.folder / f"{name}.json"
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # none, or half of one
            return None
        result: dict[str, Any] | None = stored.get("result") if stored.get("key") == _plain(key) else None
        return result

    def keep_result(self, name: str, key: Key, result: Mapping[str, Any]) -> None:
        """Keep a result."""
        text = json.dumps({"key": _plain(key), "result": result})
        self._write(f"{name}.json", lambda file: file.write(text.encode()))

    def fit(self, name: str, key: Key) -> Fit | None:
        """Return clusters, if there are some of this key."""
        try:
            with np.load(self.folder / f"{name}.npz") as stored:
                about = json.loads(str(stored["about"]))
                if about["key"] != _plain(key):
                    return None
                partitions = {
                    seed: Partition(
                        stored[f"centroids_{seed}"],
                        ClusterTally(stored[f"pixels_{seed}"], stored[f"attention_{seed}"]),
                        stored[f"assigned_{seed}"],
                    )
                    for seed in about["seeds"]
                }
                attention = stored["attention"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return Fit(partitions, attention, about["seconds"], about["cpu"], about["machine"])

    def keep_fit(self, name: str, key: Key, fit: Fit) -> None:
        """Keep clusters, and the attention that other features are given."""
        arrays: dict[str, Any] = {"attention": fit.attention}
        for seed, partition in fit.partitions.items():
            arrays[f"centroids_{seed}"] = partition.centroids
            arrays[f"pixels_{seed}"] = partition.tally.pixels
            arrays[f"attention_{seed}"] = partition.tally.attention
            arrays[f"assigned_{seed}"] = partition.assigned
        about = {
            "key": _plain(key),
            "seeds": list(fit.partitions),
            "seconds": fit.seconds,
            "cpu": fit.cpu,
            "machine": fit.machine,
        }
        arrays["about"] = np.array(json.dumps(about))
        self._write(f"{name}.npz", lambda file: np.savez_compressed(file, **arrays))

    def _write(self, name: str, write: Any) -> None:
        """Write a file whole or not at all."""
        unfinished = self.folder / f".{name}.{os.getpid()}"
        file: BinaryIO
        with unfinished.open("wb") as file:
            write(file)
        unfinished.replace(self.folder / name)


def _plain(key: Key) -> Any:
    """Return a key as it reads back."""
    return json.loads(json.dumps({"format": FORMAT, **key}))
