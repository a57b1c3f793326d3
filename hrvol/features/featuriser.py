"""Compute deep, classical or hybrid features of every pixel of an image."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hrvol.backend import TORCH
from hrvol.device import lacking
from hrvol.errors import InputError, MissingExtraError
from hrvol.features.choose_backend import choose_for_features
from hrvol.features.deep.backbone import Backbone, load_backbone
from hrvol.features.deep.image_tokens import grid_size
from hrvol.features.deep.upsample import Linear, Upsampled, image_tensor, project, token_grids, upsample
from hrvol.features.filters import bank as classical
from hrvol.recipe.specs import FeatureSpec


class Featuriser:
    """Compute features of single images (planes or tiles of planes) with one loaded network.

    Parameters
    ----------
    spec
        Which features to compute.
    backbone
        The network, required unless ``spec.kind`` is ``classical``. Features are computed on its device.
    device
        Device for features without a network.

    Attributes
    ----------
    channels
        Names of the feature channels, deep ones first.
    groups
        Channels of each kind that is computed: ``{"deep": slice, "classical": slice}``.
    grey
        Columns of grey values next to deep features, see :func:`hrvol.features.filters.bank.is_grey_value`;
        empty if only one kind is computed.
    halo
        Pixels of context that classical features need; the network sees the whole image at once.
    """

    def __init__(
        self, spec: FeatureSpec, backbone: Backbone | None = None, device: str | torch.device = "cpu"
    ) -> None:
        if spec.uses_deep and backbone is None:
            raise ValueError(f"features.kind: {spec.kind} needs a backbone")
        self.spec = spec
        self.backbone = backbone if spec.uses_deep else None
        self._device = torch.device(device)
        names: list[str] = []
        self.groups: dict[str, slice] = {}
        self.grey: tuple[int, ...] = ()
        if self.backbone is not None:
            for layer in self.backbone.block_numbers(spec.deep.block):
                names += [f"{spec.deep.weights}/block{layer}/{i}" for i in range(self.backbone.channels)]
            self.groups["deep"] = slice(0, len(names))
        if spec.uses_classical:
            start = len(names)
            names += classical.channel_names(spec.classical, colour=spec.of_colour)
            self.groups["classical"] = slice(start, len(names))
            if start:
                self.grey = classical.grey_columns(spec.classical, start, colour=spec.of_colour)
        self.channels = tuple(names)
        self.halo = classical.halo(spec.classical) if spec.uses_classical else 0

    @property
    def device(self) -> torch.device:
        """Device on which features are computed."""
        return self.backbone.device if self.backbone is not None else self._device

    @property
    def backend(self) -> str:
        """What computes the network, see :func:`hrvol.backend.choose_backend`; ``torch`` without one."""
        return self.backbone.backend if self.backbone is not None else TORCH

    @property
    def weights_sha256(self) -> str | None:
        """Content SHA-256 of the network's weights; ``None`` without a network."""
        return self.backbone.sha256 if self.backbone is not None else None

    def __call__(self, image: np.ndarray, *, batch_size: int = 4) -> Tensor:
        """Return the features of every pixel.

        Parameters
        ----------
        image
            ``(Y, X)`` float32 in [0, 1], or ``(Y, X, 3)`` of colour.
        batch_size
            Images per pass of the network.

        Returns
        -------
        Tensor
            ``(C, Y, X)`` float32. The memory holds pixel after pixel, so that
            ``features.permute(1, 2, 0).reshape(-1, C)`` is the estimators' ``(n, C)`` without a copy.
        """
        plane = self._checked(image)
        features = torch.empty((*plane.shape[:2], len(self.channels)), device=self.device)
        if self.backbone is not None:
            deep = features[:, :, self.groups["deep"]]
            upsample(self.backbone, image_tensor(plane), self.spec.deep, batch_size=batch_size, out=deep)
        if self.spec.uses_classical:
            values = classical.classical_features(_for_filters(plane, self.device), self.spec.classical)
            features[:, :, self.groups["classical"]] = torch.as_tensor(values).permute(1, 2, 0)
        return features.permute(2, 0, 1)

    def stripes(
        self, image: np.ndarray, inside: tuple[slice, slice], *, rows: int, batch_size: int = 4
    ) -> Iterator[tuple[slice, np.ndarray | Tensor]]:
        """Yield the features of the pixels of a region of an image, some rows at a time.

        The bits are those of a call, but the features of the whole image, hundreds of MB, are not held in
        memory: deep features are upsampled stripe by stripe if all views have fewer tokens than pixels.

        Parameters
        ----------
        image
            ``(Y, X)`` float32 in [0, 1], or ``(Y, X, 3)`` of colour.
        inside
            Rows and columns of the region, as slices with a start and a stop.
        rows
            Rows per stripe.
        batch_size
            Images per pass of the network.

        Yields
        ------
        tuple
            Rows, relative to the region, and their features ``(y, x, C)`` float32, valid until the next
            stripe: on the CPU a NumPy array without a copy, on a GPU a tensor.
        """
        plane = self._checked(image)
        top, bottom, columns = inside[0].start, inside[0].stop, inside[1]
        spec, backbone = self.spec.deep, self.backbone
        height, width = plane.shape[:2]
        more_tokens = (
            backbone is not None and grid_size(backbone.patch, spec, (height, width)) > height * width
        )
        whole = self(plane, batch_size=batch_size).permute(1, 2, 0) if more_tokens else None
        tokens = filtered = None
        if whole is None:
            if backbone is not None:
                tokens = token_grids(
                    backbone,
                    image_tensor(plane),
                    spec,
                    batch_size=batch_size,
                    rows=inside[0],
                    columns=columns,
                )
            if self.spec.uses_classical:
                values = classical.classical_features(_for_filters(plane, self.device), self.spec.classical)
                filtered = torch.as_tensor(values).permute(1, 2, 0)
        width = columns.stop - columns.start
        height = 0 if more_tokens else min(rows, bottom - top)
        buffer = torch.empty((height, width, len(self.channels)), device=self.device)
        for start in range(top, bottom, rows):
            stripe = slice(start, min(start + rows, bottom))
            features = buffer[: stripe.stop - start] if whole is None else whole[stripe, columns]
            if tokens is not None:
                tokens.spread(stripe, columns, features[:, :, self.groups["deep"]])
            if filtered is not None:
                features[:, :, self.groups["classical"]] = filtered[stripe, columns]
            on_host = features.device.type == "cpu"
            yield slice(start - top, stripe.stop - top), features.numpy() if on_host else features

    def upsampled(self, image: np.ndarray, *, linear: Linear | None = None, **options: Any) -> Upsampled:
        """Return deep features with attention, or mapped linearly before they are upsampled.

        Parameters
        ----------
        image
            ``(Y, X)`` float32 in [0, 1], or ``(Y, X, 3)`` of colour.
        linear
            See :func:`hrvol.features.deep.upsample.upsample`, which also accepts the other options.

        Raises
        ------
        InputError
            The features have no network.
        """
        if self.backbone is None:
            raise InputError(f"features.kind: {self.spec.kind} has no attention; expected deep or hybrid")
        return upsample(
            self.backbone, image_tensor(self._checked(image)), self.spec.deep, linear=linear, **options
        )

    def _checked(self, image: np.ndarray) -> np.ndarray:
        """Return an image of the kind that the features are of."""
        colour = self.spec.of_colour
        if image.shape[2:] != ((3,) if colour else ()) or image.ndim < 2 or 0 in image.shape:
            expected = "a colour image (Y, X, 3)" if colour else "a grey image (Y, X)"
            raise InputError(f"expected {expected}, found an array of shape {image.shape}")
        return np.ascontiguousarray(image, dtype=np.float32)

    def one_offset(self) -> Featuriser:
        """Return a fast, coarse featuriser: only deep features, with one pass per view."""
        deep = self.spec.deep.model_copy(update={"shifts": (), "offsets": 1, "weave": 0})
        return Featuriser(self.spec.model_copy(update={"kind": "deep", "deep": deep}), self.backbone)

    def pixels(
        self, image: np.ndarray, y: np.ndarray, x: np.ndarray, *, unit: bool = False, attention: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the features of some pixels and the attention on them.

        Parameters
        ----------
        image
            ``(Y, X)`` float32 in [0, 1], or ``(Y, X, 3)`` of colour.
        y, x
            ``(n,)`` integer positions.
        unit
            Scale tokens to length 1 before they are upsampled, see
            :func:`hrvol.features.deep.upsample.upsample`.
        attention
            Whether to return attention.

        Returns
        -------
        tuple
            Features ``(n, C)`` float32, and attention ``(n,)`` float32: mean over heads in units of uniform
            attention, ``None`` if not requested or without a network.
        """
        plane = self._checked(image)
        features = np.empty((len(y), len(self.channels)), np.float32)
        weights = None
        if self.backbone is not None:
            deep = self.upsampled(plane, unit=unit, attention=attention)
            features[:, self.groups["deep"]] = deep.features[:, y, x].T.numpy(force=True)
            if deep.attention is not None:
                weights = deep.attention[:, y, x].mean(dim=0).numpy(force=True)
        if self.spec.uses_classical:
            values = classical.classical_features(_for_filters(plane, self.device), self.spec.classical)
            features[:, self.groups["classical"]] = torch.as_tensor(values)[:, y, x].T.numpy(force=True)
        return features, weights

    def scores(self, image: np.ndarray, maps: Mapping[str, Linear], *, batch_size: int = 4) -> Tensor:
        """Return a linear map of the features of every pixel without computing the features themselves.

        Parameters
        ----------
        image
            ``(Y, X)`` float32 in [0, 1], or ``(Y, X, 3)`` of colour.
        maps
            Linear map of each of :attr:`groups`; their results are added. Deep tokens are scaled to length 1
            and mapped before they are upsampled: K channels instead of hundreds.
        batch_size
            Images per pass of the network.

        Returns
        -------
        Tensor
            ``(K, Y, X)`` float32, channels innermost in memory.
        """
        plane = self._checked(image)
        total: Tensor | None = None
        if self.backbone is not None:
            total = self.upsampled(plane, linear=maps["deep"], unit=True, batch_size=batch_size).features
        if self.spec.uses_classical:
            values = classical.classical_features(_for_filters(plane, self.device), self.spec.classical)
            mapped = project(torch.as_tensor(values), maps["classical"])
            total = mapped if total is None else total.add_(mapped)
        assert total is not None
        return total


def _for_filters(plane: np.ndarray, device: torch.device) -> Any:
    """Return the plane as an array of the device's library: NumPy, or CuPy on a GPU."""
    if device.type == "cpu":
        return plane
    try:
        import cupy
    except ImportError:
        raise MissingExtraError(
            f"classical features on {device} need CuPy, which is not installed; pip install 'hrvol[gpu]'"
        ) from None
    with cupy.cuda.Device(device.index or 0):
        return cupy.asarray(plane)


_LOCK = threading.Lock()

_LOADED: dict[tuple[Any, ...], Featuriser] = {}


def load_featuriser(
    spec: FeatureSpec,
    *,
    device: str = "auto",
    weights_path: str | None = None,
    offline: bool = False,
    backend: str = TORCH,
) -> Featuriser:
    """Return a featuriser, loaded once per process for each spec, device, weights and backend.

    Specs that use one network in one precision share it.

    Parameters
    ----------
    spec
        Which features to compute.
    device
        ``cpu``, ``cuda``, ``cuda:0``..., or ``auto``: a GPU if torch has one and no package is
        :func:`lacking`.
    weights_path
        File of the network's weights, used instead of the cache.
    offline
        Do not download weights.
    backend
        What computes the network, see :func:`hrvol.backend.choose_backend`.

    Raises
    ------
    WeightsError
        The weights could not be obtained, or do not match the network.
    UsageError, DeviceError
        As :func:`hrvol.features.choose_backend.choose_for_features`.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() and not lacking() else "cpu"
    backend = choose_for_features(backend, torch.device(device).type, spec).name
    key = (spec, device, weights_path, backend)
    with _LOCK:
        if key not in _LOADED:
            backbone = None
            if spec.uses_deep:
                backbone = _loaded_backbone(*key) or load_backbone(
                    spec.deep.weights,
                    device=device,
                    precision=spec.deep.precision,
                    weights_path=weights_path,
                    offline=offline,
                    backend=backend,
                )
            _LOADED[key] = Featuriser(spec, backbone, device)
        return _LOADED[key]


def _loaded_backbone(
    spec: FeatureSpec, device: str, weights_path: str | None, backend: str
) -> Backbone | None:
    """Return the network of a spec if a featuriser of another spec has loaded it."""
    key = (spec.deep.weights, spec.deep.precision, device, weights_path, backend)
    for (other, *source), loaded in _LOADED.items():
        if (other.deep.weights, other.deep.precision, *source) == key and loaded.backbone is not None:
            return loaded.backbone
    return None
