"""Cache of results and clusters, so that an interrupted run resumes.

A file is used only if features, clusters, seeds, pixels and versions are the same.
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
"""Raise it when features, samples or clusters change, to invalidate the cache."""

Key = Mapping[str, Any]


def scoring_key() -> str:
    """Return a digest of the code that merges and scores.

    Where it differs, results are computed again from the clusters, in moments. Changes of the code for
    features and k-means are not noticed: raise :data:`FORMAT`, or use another folder.
    """
    sources = [
        Path(str(module.__file__)).read_bytes() for module in (cas, objects, matching, metrics, scores)
    ]
    return hashlib.sha256(b"".join(sources)).hexdigest()[:16]


def pixels_key(scene: Scene) -> dict[str, str]:
    """Return digests of a scene's images and truths."""
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
        """Return the result of this key (JSON values), if stored."""
        file = self.folder / f"{name}.json"
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # missing or damaged
            return None
        result: dict[str, Any] | None = stored.get("result") if stored.get("key") == _plain(key) else None
        return result

    def keep_result(self, name: str, key: Key, result: Mapping[str, Any]) -> None:
        """Store a result."""
        text = json.dumps({"key": _plain(key), "result": result})
        self._write(f"{name}.json", lambda file: file.write(text.encode()))

    def fit(self, name: str, key: Key) -> Fit | None:
        """Return the clusters of this key, if stored."""
        try:
            with np.load(self.folder / f"{name}.npz") as stored:
                header = json.loads(str(stored["about"]))
                if header["key"] != _plain(key):
                    return None
                partitions = {
                    seed: Partition(
                        stored[f"centroids_{seed}"],
                        ClusterTally(stored[f"pixels_{seed}"], stored[f"attention_{seed}"]),
                        stored[f"assigned_{seed}"],
                    )
                    for seed in header["seeds"]
                }
                attention = stored["attention"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return Fit(partitions, attention, header["seconds"], header["cpu"], header["machine"])

    def keep_fit(self, name: str, key: Key, fit: Fit) -> None:
        """Store clusters, and the attention that other features use."""
        arrays: dict[str, Any] = {"attention": fit.attention}
        for seed, partition in fit.partitions.items():
            arrays[f"centroids_{seed}"] = partition.centroids
            arrays[f"pixels_{seed}"] = partition.tally.pixels
            arrays[f"attention_{seed}"] = partition.tally.attention
            arrays[f"assigned_{seed}"] = partition.assigned
        header = {
            "key": _plain(key),
            "seeds": list(fit.partitions),
            "seconds": fit.seconds,
            "cpu": fit.cpu,
            "machine": fit.machine,
        }
        arrays["about"] = np.array(json.dumps(header))
        self._write(f"{name}.npz", lambda file: np.savez_compressed(file, **arrays))

    def _write(self, name: str, write: Any) -> None:
        """Write a file atomically."""
        unfinished = self.folder / f".{name}.{os.getpid()}"
        file: BinaryIO
        with unfinished.open("wb") as file:
            write(file)
        unfinished.replace(self.folder / name)


def _plain(key: Key) -> Any:
    """Return a key as JSON reads it back."""
    return json.loads(json.dumps({"format": FORMAT, **key}))
