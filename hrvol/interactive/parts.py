"""Features of visited tiles: in memory, on disk, or computed; found by the grey values that they are of.

Tokens of the network are kept before they are upsampled, a hundredth of the size of features of pixels. What
was read from disk is rounded to half precision: good enough for a preview, and computed again where exact
features are needed. Values of filters are cheap, and kept in memory only.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrvol.backend import backend_versions
from hrvol.features.arithmetic import ARITHMETIC
from hrvol.features.filters.bank import classical_features
from hrvol.features.weights.source import WeightsSource
from hrvol.interactive.holds import Holds
from hrvol.interactive.lane import Gate
from hrvol.interactive.recent import Recent
from hrvol.interactive.regions import TileKey, tile_of
from hrvol.interactive.stages import Stage
from hrvol.interactive.tile_cache import TileCache, key_of
from hrvol.recipe.specs import DeepSpec, FeatureSpec, TileSpec
from hrvol.segment.model.model import current_versions
from hrvol.training.tile_features import load_features
from hrvol.volume.grid.tiling import Tile
from hrvol.volume.intensity import Window, read_unit
from hrvol.volume.volume import Volume

if TYPE_CHECKING:
    import torch

    from hrvol.features.deep.image_tokens import ImageTokens
    from hrvol.features.featuriser import Featuriser

_FORMAT = 2

_WAIT = 0.05  # seconds between two looks at a gate while another thread computes the same tile


@dataclass(frozen=True, eq=False)
class DeepPart:
    """Tokens of a tile, and whether they are exact, or rounded to half precision."""

    tokens: ImageTokens
    exact: bool


@dataclass(frozen=True, eq=False)
class FilterPart:
    """Values of filters in the part of a tile's window that is labelled.

    Attributes
    ----------
    values
        ``(y, x, C)`` float16, in units of :attr:`scale`.
    scale
        ``(C,)`` float32: the largest absolute value of each channel.
    origin
        Row and column of the first value in the window.
    """

    values: NDArray[np.float16]
    scale: NDArray[np.float32]
    origin: tuple[int, int]

    @classmethod
    def of(cls, values: NDArray[np.float32], tile: Tile) -> FilterPart:
        """Round the values ``(C, y, x)`` of a window."""
        rows, columns = labelled(tile)
        inside = values[:, rows, columns]
        scale = np.maximum(np.abs(inside).max(axis=(1, 2)), np.float32(1e-30))
        halves = np.empty((*inside.shape[1:], len(scale)), np.float16)
        for number, (channel, largest) in enumerate(zip(inside, scale, strict=True)):
            halves[:, :, number] = channel / largest
        return cls(halves, scale, (rows.start, columns.start))

    def stripe(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Return the values ``(y, x, C)`` of some rows and columns of the window; slices may have a step."""
        spans = (
            slice(s.start - a, s.stop - a, s.step) for s, a in zip((rows, columns), self.origin, strict=True)
        )
        values: NDArray[np.float32] = self.values[tuple(spans)].astype(np.float32)
        values *= self.scale
        return values

    def at(self, y: NDArray[Any], x: NDArray[Any]) -> NDArray[np.float32]:
        """Return the values ``(n, C)`` of pixels of the window."""
        values: NDArray[np.float32] = self.values[y - self.origin[0], x - self.origin[1]].astype(np.float32)
        return values * self.scale


@dataclass(frozen=True, eq=False)
class TileValues:
    """The features of a tile for one stage, those of the network and of filters, or one of them."""

    deep: DeepPart | None
    filters: FilterPart | None

    def at(self, y: NDArray[Any], x: NDArray[Any]) -> NDArray[np.float32]:
        """Return the features ``(n, C)`` of pixels of the window, deep ones first."""
        parts = []
        if self.deep is not None:
            parts.append(tokens_at(self.deep.tokens, y, x))
        if self.filters is not None:
            parts.append(self.filters.at(y, x))
        return np.concatenate(parts, axis=1)


def tokens_at(tokens: ImageTokens, y: NDArray[Any], x: NDArray[Any]) -> NDArray[np.float32]:
    """Return the deep features ``(n, C)`` of pixels of a window."""
    import torch  # only where a network computes features

    at = (torch.from_numpy(np.ascontiguousarray(axis, np.int64)) for axis in (y, x))
    values: NDArray[np.float32] = tokens.at(*at).numpy(force=True)
    return values


def labelled(tile: Tile) -> tuple[slice, slice]:
    """Return the rows and columns of a window that may be labelled: the core, and the blend around it."""
    spans = []
    for low, high, start, stop in ((0, 1, 0, 1), (2, 3, 2, 3)):
        first = max(tile.core[low] - tile.blend, tile.window[start])
        last = min(tile.core[high] + tile.blend, tile.window[stop])
        spans.append(slice(first - tile.window[start], last - tile.window[start]))
    return spans[0], spans[1]


def image_digest(image: NDArray[np.float32]) -> str:
    """Return a digest of the grey values in [0, 1] that the features of a tile are computed from."""
    data = np.ascontiguousarray(image, np.float32)
    return hashlib.blake2b(f"{data.shape}".encode() + data.tobytes(), digest_size=20).hexdigest()


def filtered(featuriser: Featuriser, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the values ``(C, Y, X)`` of filters, with the bits of a featuriser of filters."""
    if featuriser.device.type != "cpu":
        values: NDArray[np.float32] = featuriser(image).numpy(force=True)
        return values
    found: NDArray[np.float32] = classical_features(
        np.ascontiguousarray(image, np.float32), featuriser.spec.classical
    )
    return found


class TileParts:
    """Features of the tiles of a volume.

    Parameters
    ----------
    volume, window, tiles
        Grey values, those that become 0 and 1, and how planes are divided.
    device
        Where features are computed: ``cpu``, ``cuda``.
    weights
        Where the network's weights are loaded from.
    disk
        Tokens on disk, or ``None``.
    memory
        Bytes of features in memory.
    """

    def __init__(
        self,
        volume: Volume,
        window: Window,
        tiles: TileSpec,
        *,
        device: str,
        weights: WeightsSource,
        disk: TileCache | None,
        memory: int,
    ) -> None:
        self.volume, self.window, self.tiles = volume, window, tiles
        self.device, self.weights, self.disk = device, weights, disk
        self.memory: Recent[DeepPart | FilterPart] = Recent(memory)
        self._digests: Recent[str] = Recent(2**24)  # of images, by plane and window; 100 bytes each
        self.holds = Holds(self.memory, lambda key: self._digests.get(self._name(key)))
        self._computed: set[tuple[Any, ...]] = set()
        self._computing = threading.Condition()
        self._visited: dict[TileKey, None] = {}

    def load(self, spec: FeatureSpec) -> Featuriser:
        """Return the featuriser of a spec, loaded once per process."""
        return load_features(spec, self.device, self.weights, "auto")

    def tile(self, key: TileKey) -> Tile:
        """Return the tile of a key."""
        return tile_of(self.volume.shape, self.tiles, key[1], key[2])

    @property
    def visited(self) -> tuple[TileKey, ...]:
        """Tiles whose features were prepared, the latest last."""
        return tuple(self._visited)

    def get(self, stage: Stage, key: TileKey) -> TileValues | None:
        """Return the features of a tile if they are in memory, else ``None``; computes nothing."""
        digest = self._digests.get(self._name(key))
        if digest is None:
            return None
        spec = stage.features
        deep = self.memory.get((spec.deep, digest)) if spec.uses_deep else None
        name = (spec.classical, digest, self.tile(key).core)
        filters = self.memory.get(name) if spec.uses_classical else None
        if (spec.uses_deep and deep is None) or (spec.uses_classical and filters is None):
            return None
        assert not isinstance(deep, FilterPart)
        assert not isinstance(filters, DeepPart)
        return TileValues(deep, filters)

    def prepare(self, stage: Stage, key: TileKey, gate: Gate) -> None:
        """Have the features of a tile in memory: read from disk, or computed.

        Raises
        ------
        Cancelled
            The gate was closed before.
        """
        gate.check()
        if self.get(stage, key) is None:
            image = self.image(key)
            spec = stage.features
            if spec.uses_classical:
                self._filters(spec, image, self.tile(key), gate)
            if spec.uses_deep:
                self.tokens(spec, image, gate, exact=False)
        self._visited.pop(key, None)
        self._visited[key] = None
        while len(self._visited) > _MOST_VISITED:
            self._visited.pop(next(iter(self._visited)))

    def image(self, key: TileKey) -> NDArray[np.float32]:
        """Return the values ``(Y, X)``, or ``(Y, X, 3)`` of colour, in [0, 1] of a tile's window."""
        image = read_unit(self.volume, key[0], self.tile(key), self.window)
        digest = image_digest(image)
        self._digests.put(self._name(key), digest, 100)
        self.holds.note(key, digest)
        return image

    def tokens(
        self, spec: FeatureSpec, image: NDArray[np.float32], gate: Gate, *, exact: bool
    ) -> ImageTokens:
        """Return the tokens of an image, exact ones or those that are at hand.

        Parameters
        ----------
        spec
            Features with a network.
        image
            ``(Y, X)`` float32 in [0, 1], or ``(Y, X, 3)`` of colour.
        gate
            Checked before each pass of the network.
        exact
            Whether tokens that were rounded to half precision are computed again.
        """
        digest = image_digest(image)
        with self._alone((spec.deep, digest), gate):
            held = self.memory.get((spec.deep, digest))
            if isinstance(held, DeepPart) and (held.exact or not exact):
                return held.tokens
            featuriser = self.load(spec)
            key = self._key(featuriser, digest)
            stored = None if exact else self._stored(featuriser, key, image.shape)
            if stored is not None:
                part = DeepPart(stored, exact=False)
            else:
                part = DeepPart(_computed(featuriser, image, gate), exact=True)
            self.memory.put((spec.deep, digest), part, part.tokens.nbytes)
        if self.disk is not None and stored is None:
            self.disk.write(key, {str(i): grid.numpy() for i, grid in enumerate(part.tokens.grids)})
        return part.tokens

    def _filters(self, spec: FeatureSpec, image: NDArray[np.float32], tile: Tile, gate: Gate) -> None:
        name = (spec.classical, image_digest(image), tile.core)  # tiles at a border may share a window
        with self._alone(name, gate):
            if self.memory.get(name) is None:
                filters = FeatureSpec(kind="classical", classical=spec.classical, input=spec.input)
                featuriser = self.load(filters)
                part = FilterPart.of(filtered(featuriser, image), tile)
                self.memory.put(name, part, part.values.nbytes)

    @contextmanager
    def _alone(self, name: tuple[Any, ...], gate: Gate) -> Iterator[None]:
        """Wait while another thread computes the same, then be the one that does."""
        with self._computing:
            while name in self._computed:
                self._computing.wait(_WAIT)
                gate.check()
            self._computed.add(name)
        try:
            yield
        finally:
            with self._computing:
                self._computed.discard(name)
                self._computing.notify_all()

    def _stored(self, featuriser: Featuriser, key: str, shape: Sequence[int]) -> ImageTokens | None:
        """Return tokens from disk, in single precision again."""
        import torch

        from hrvol.features.deep.image_tokens import kept_again, kept_shapes

        if self.disk is None or featuriser.backbone is None:
            return None
        image = (featuriser.backbone.patch, featuriser.spec.deep, (shape[0], shape[1]))
        channels = _channels(featuriser)
        arrays = self.disk.read(
            key, {str(i): (*sides, channels) for i, sides in enumerate(kept_shapes(*image))}
        )
        if arrays is None:
            return None
        grids = (torch.from_numpy(arrays[str(i)].astype(np.float32)) for i in range(len(arrays)))
        return kept_again(grids, *image)

    def _key(self, featuriser: Featuriser, digest: str) -> str:
        return key_of(
            {
                "format": _FORMAT,
                "arithmetic": ARITHMETIC,
                "image": digest,
                "features": featuriser.spec.deep.to_dict(),
                "weights": _weights_of(featuriser),
                "device": self.device,
                "backend": featuriser.backend,
                "versions": {k: v for k, v in _versions() if k in ("hrvol", "torch", "timm")}
                | backend_versions(featuriser.backend),
            }
        )

    def _name(self, key: TileKey) -> tuple[Any, ...]:
        return key[0], self.tile(key).window


_MOST_VISITED = 4096


@lru_cache(maxsize=1)
def _versions() -> tuple[tuple[str, str], ...]:
    return tuple(current_versions().items())


@lru_cache(maxsize=16)
def _weights_of(featuriser: Featuriser) -> str:
    """Return a digest of the network's weights; of random ones, those of its last norm."""
    if featuriser.weights_sha256 is not None:
        return featuriser.weights_sha256
    assert featuriser.backbone is not None
    state = featuriser.backbone.net.state_dict()
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(state[name].float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _channels(featuriser: Featuriser) -> int:
    columns = featuriser.groups["deep"]
    return int(columns.stop - columns.start)


def _computed(featuriser: Featuriser, image: NDArray[np.float32], gate: Gate) -> ImageTokens:
    """Run the network; tokens are returned on the CPU."""
    from hrvol.features.deep.image_tokens import kept_again
    from hrvol.features.deep.upsample import image_tensor, token_grids

    assert featuriser.backbone is not None
    source = _Gated(featuriser.backbone, gate)
    plane = image_tensor(np.ascontiguousarray(image, np.float32))
    spec: DeepSpec = featuriser.spec.deep
    tokens = token_grids(source, plane, spec)
    if featuriser.device.type == "cpu":
        return tokens
    grids = (grid.cpu() for grid in tokens.grids)
    return kept_again(grids, featuriser.backbone.patch, spec, (image.shape[0], image.shape[1]))


class _Gated:
    """A network that checks a gate before each pass."""

    def __init__(self, backbone: Any, gate: Gate) -> None:
        self._backbone, self._gate = backbone, gate
        self.device: torch.device = backbone.device

    @property
    def patch(self) -> int:
        return int(self._backbone.patch)

    def block_numbers(self, block: Any) -> tuple[int, ...]:
        numbers: tuple[int, ...] = self._backbone.block_numbers(block)
        return numbers

    def tokens(self, images: Any, **options: Any) -> Any:
        self._gate.check()
        return self._backbone.tokens(images, **options)
