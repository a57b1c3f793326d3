"""Draw the strokes of ``benchmarks.runs.interactive`` in napari-convpaint, in its own environment."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import log
from benchmarks.markdown import table
from hrvol.errors import InputError
from hrvol.features.weights.registry import load_verified

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, eq=False)
class Scene:
    """A view and strokes.

    Attributes
    ----------
    image
        ``(y, x)`` grey values.
    strokes
        ``(y, x)`` class values at the start, 0 where nothing is drawn.
    places
        ``(n, 2)`` first row and column of the strokes that are drawn one after the other.
    values
        ``(n, h, w)`` their class values.
    """

    image: np.ndarray
    strokes: np.ndarray
    places: np.ndarray
    values: np.ndarray

    def save(self, file: Path) -> None:
        """Write it for a process without hrvol."""
        np.savez(file, image=self.image, strokes=self.strokes, places=self.places, values=self.values)


@dataclass(frozen=True)
class Convpaint:
    """napari-convpaint with the weights that hrvol uses.

    Attributes
    ----------
    python
        Interpreter of its environment.
    threads
        Threads of its process.
    folder
        Folder for what is passed to it.
    """

    python: Path
    threads: int
    folder: Path

    def measure(self, scene: Scene, budget: float) -> dict[str, Any]:
        """Draw strokes one after the other, each after the labels of the one before.

        Raises
        ------
        InputError
            The process failed; the message has its last line.
        """
        weights, file = self.folder / "weights.npz", self.folder / "scene.npz"
        if not weights.is_file():
            state = load_verified("dinov2_vits14")[0]
            np.savez(weights, **{name: value.numpy() for name, value in state.items()})
        scene.save(file)
        job = {"what": "convpaint-strokes", "threads": self.threads, "budget": budget}
        job |= {"weights": str(weights), "scene": str(file)}
        limits = {f"{name}_NUM_THREADS": str(self.threads) for name in ("OMP", "MKL", "OPENBLAS")}
        done = subprocess.run(
            [str(self.python), "-m", "benchmarks.speed.peers", json.dumps(job)],
            cwd=ROOT,
            env=os.environ | limits,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [""])[-1]
            if done.returncode < 0:  # nothing that it printed tells why
                last = f"found it ended by signal {-done.returncode} (9: out of memory)"
            raise InputError(
                f"napari-convpaint: {last or f'found exit code {done.returncode}'}, expected figures"
            )
        figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        log(f"napari-convpaint, {len(scene.image)} px: {len(figures['train'])} strokes")
        return figures

    def page(
        self, hrvol: Mapping[int, Sequence[float]], visit: float, measured: Mapping[int, dict[str, Any]]
    ) -> str:
        """Return the part of the page.

        Parameters
        ----------
        hrvol
            Seconds from each stroke to the preview of the whole view, by side of the view.
        visit
            Seconds from the first visit of a plane of 512 pixels to the preview with the recipe's features.
        measured
            Figures of napari-convpaint by side of the view.
        """
        rows, version = [], ""
        for side, figures in measured.items():
            both = np.add(figures["train"], figures["segment"])
            version = figures["version"]
            rows += [
                [
                    f"{side} x {side}",
                    "hrvol",
                    *_shown(hrvol[side]),
                    "",
                    f"{visit:.2f}" if side == 512 else "",
                ],
                [
                    f"{side} x {side}",
                    "napari-convpaint",
                    *_shown(both),
                    f"{np.median(figures['train']):.2f} + {np.median(figures['segment']):.2f}",
                    f"{figures['first'][1]:.2f}",
                ],
            ]
        head = [
            "view",
            "program",
            "strokes",
            "median (s)",
            "95 % (s)",
            "training + labels (s)",
            "first labels (s)",
        ]
        return "\n".join(
            [
                f"## Beside napari-convpaint {version}",
                "",
                "The same view, strokes, weights (DINOv2 ViT-S/14) and number of threads. napari-convpaint",
                "is given the view alone, and does what its dock does: it trains, with the features of",
                "annotated pixels kept from the strokes before (*continuous training*), and segments the",
                "view, whose features it does not keep. hrvol shows the preview of its quick classifier; its",
                "*first labels* are those of the first visit of a plane.",
                "",
                table(head, rows),
                "",
            ]
        )


def _shown(seconds: Sequence[float] | np.ndarray) -> list[str]:
    return [str(len(seconds)), f"{np.median(seconds):.2f}", f"{np.quantile(seconds, 0.95):.2f}"]
