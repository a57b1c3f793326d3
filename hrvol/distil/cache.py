"""What a distillation has done so far, on disk: labelled tiles and trainings, by content.

The folder of a teacher holds a tile per file, found by the grey values that it was labelled from, so that
another distillation, of another size say, labels none of them again, and one that was killed is resumed.
Files are written atomically; a damaged one is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import platformdirs
from numpy.typing import NDArray

from hrvol.distil.planes import PlaneTile
from hrvol.files import atomic_write

if TYPE_CHECKING:
    from torch import Tensor

MOST_BYTES = 10 * 2**30
"""Size above which the least recently used folders of other distillations are deleted."""

_LIMIT = 2**31  # bytes of a file


def distil_dir() -> Path:
    """Return the folder of all distillations (it may not exist yet)."""
    root = os.environ.get("HRVOL_CACHE_DIR") or platformdirs.user_cache_dir("hrvol")
    return Path(root) / "distil"


@dataclass(frozen=True)
class DistilCache:
    """The folder of one teacher.

    Attributes
    ----------
    folder
        The folder.
    """

    folder: Path

    @classmethod
    def of(cls, key: Mapping[str, Any]) -> DistilCache:
        """Return the folder for what determines the labels of tiles besides their grey values, and make it.

        Parameters
        ----------
        key
            JSON values: digest of the teacher, device.
        """
        digest = _digest(key)
        folder = distil_dir() / digest[:24]
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        return cls(folder)

    def read_tile(self, tile: PlaneTile, grey: str, classes: int) -> NDArray[np.float16] | None:
        """Return the probabilities ``(K, rows, columns)`` of a tile, or ``None`` if there are none.

        Parameters
        ----------
        tile
            The tile.
        grey
            Digest of the grey values from which it is labelled.
        classes
            Number of classes K.
        """
        file = self._tile_file(tile, grey)
        y0, y1, x0, x1 = tile.tile.core
        shape = (classes, y1 - y0, x1 - x0)
        try:
            if file.stat().st_size > _LIMIT:
                return None
            values = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        sums = values.sum(axis=0, dtype=np.float32) if values.shape == shape else np.zeros(1)
        if values.dtype != np.float16 or not np.all(np.abs(sums - 1) < 0.02):
            return None
        probabilities: NDArray[np.float16] = values
        return probabilities

    def write_tile(self, tile: PlaneTile, grey: str, probabilities: NDArray[np.float16]) -> None:
        """Keep the probabilities of a tile; parameters as for :meth:`read_tile`."""
        with atomic_write(self._tile_file(tile, grey)) as partial:
            np.save(partial, probabilities, allow_pickle=False)

    def read_state(self, key: Mapping[str, Any]) -> dict[str, Tensor] | None:
        """Return the tensors that a training with these settings has left, or ``None``."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            file = self._state_file(key)
            if file.stat().st_size > _LIMIT:
                return None
            tensors: dict[str, Tensor] = load(file.read_bytes())
        except (OSError, SafetensorError):
            return None
        return tensors

    def write_state(self, key: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Keep the tensors of a training, unfinished or done."""
        from safetensors.torch import save_file

        with atomic_write(self._state_file(key)) as partial:
            save_file(dict(tensors), partial)

    def forget_state(self, key: Mapping[str, Any]) -> None:
        """Delete the tensors of a training that is not to be resumed."""
        self._state_file(key).unlink(missing_ok=True)

    def read_note(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the JSON values kept under a key, or ``None``."""
        try:
            values = json.loads((self.folder / f"note-{_digest(key)[:16]}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return values if isinstance(values, dict) else None

    def write_note(self, key: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Keep JSON values under a key."""
        with atomic_write(self.folder / f"note-{_digest(key)[:16]}.json") as partial:
            partial.write_text(json.dumps(values), encoding="utf-8")

    def _tile_file(self, tile: PlaneTile, grey: str) -> Path:
        y0, y1, x0, x1 = tile.tile.core
        top, _, left, _ = tile.tile.window
        core = [y0 - top, y1 - top, x0 - left, x1 - left]
        return self.folder / f"tile-{_digest({'grey': grey, 'core': core})[:32]}.npy"

    def _state_file(self, key: Mapping[str, Any]) -> Path:
        return self.folder / f"training-{_digest(key)[:16]}.safetensors"


def tidy(keep: DistilCache, most: int = MOST_BYTES) -> None:
    """Delete the least recently used folders until all together have at most ``most`` bytes."""
    with suppress(OSError):
        folders = [(folder.stat().st_mtime, folder) for folder in distil_dir().iterdir() if folder.is_dir()]
        sizes = {folder: sum(file.stat().st_size for file in folder.iterdir()) for _, folder in folders}
        total = sum(sizes.values())
        for _, folder in sorted(folders):
            if total <= most:
                return
            if folder != keep.folder:
                shutil.rmtree(folder, ignore_errors=True)
                total -= sizes[folder]


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
