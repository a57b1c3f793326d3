"""Find the nearest cluster of each pixel of a plane, in which classes of any merging are looked up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import namespace, to_host
from hrvol.device import choose_device
from hrvol.errors import UsageError
from hrvol.features.weights.source import WeightsSource
from hrvol.progress import ProgressCallback, Tally
from hrvol.run.classify import cluster_scores
from hrvol.run.options import PredictOptions
from hrvol.segment.cluster_classifier import ClusterClassifier
from hrvol.segment.model.model import Model, check_weights
from hrvol.training.colour import check_input
from hrvol.training.tile_features import load_features
from hrvol.volume.grid.regions import region_tiles
from hrvol.volume.grid.tiling import Box, box_shape, whole
from hrvol.volume.intensity import read_unit
from hrvol.volume.storage.location import located
from hrvol.volume.volume import open_volume


def nearest_clusters(
    volume: Any,
    model: Model,
    plane: int,
    box: tuple[slice, slice] | None = None,
    *,
    device: str = "auto",
    weights: WeightsSource = WeightsSource(),
    storage_options: Mapping[str, Any] | None = None,
    progress: ProgressCallback | None = None,
) -> NDArray[np.uint16]:
    """Return the nearest cluster of each pixel of a plane, computed as ``hrvol segment`` does.

    Parameters
    ----------
    volume
        A path, or a numpy, Dask, xarray or Zarr array, ``(Z, Y, X)`` or ``(Y, X)``.
    model
        A model of clusters.
    plane
        Number of the plane.
    box
        Rows and columns of the plane; ``None``: all.
    device, weights, storage_options, progress
        Where features are computed and from which weights; how the volume is opened; called with stage,
        pixels done, all pixels.

    Returns
    -------
    NDArray[np.uint16]
        ``(Y, X)`` index of the nearest cluster; ``model.classifier.of_cluster`` of it is the label of a
        segmentation without CRF and class weights, also after :func:`hrvol.merge_classes`. Where tiles are
        blended, the tile that owns the pixel decides alone, so labels can differ there.

    Raises
    ------
    UsageError
        The model has no clusters, or the plane or the box is outside of the volume.
    InputError, ModelError, WeightsError, DeviceError
        As in :func:`hrvol.segment_volume`.
    """
    clusters = model.classifier
    if not isinstance(clusters, ClusterClassifier):
        raise UsageError(f"{model.source}: found a model without clusters, expected one of hrvol cluster")
    opened = open_volume(located(volume, storage_options))
    check_input(model, opened)
    region = _region(opened.shape, plane, box, opened.source)
    spec = model.recipe
    featuriser = load_features(spec.features, choose_device(device).device, weights)
    check_weights(model, featuriser.weights_sha256, spec.features.deep.weights)
    _, rows, columns = region
    height, width = box_shape(region)[1:]
    nearest = np.empty((height, width), np.uint16)
    tally = Tally(progress, "clusters", nearest.size)
    tiles = region_tiles((1, *opened.shape[1:]), (slice(0, 1), rows, columns), spec.tiles)
    for number, ((_, own_rows, own_columns), tile) in enumerate(tiles, start=1):
        image = read_unit(opened, plane, tile, model.window)
        top, _, left, _ = tile.window
        inside = _moved(own_rows, -top), _moved(own_columns, -left)
        target = nearest[_moved(own_rows, -rows.start), _moved(own_columns, -columns.start)]
        stripes = cluster_scores(image, inside, clusters, featuriser, PredictOptions().batch_size)
        for stripe, scores in stripes:
            target[stripe] = to_host(namespace(scores).argmax(scores, axis=-1))
        tally.finish(number, target.size)
    return nearest


def _region(shape: tuple[int, int, int], plane: int, box: tuple[slice, slice] | None, source: str) -> Box:
    depth, height, width = shape
    _, rows, columns = whole(shape)
    if box is not None:
        rows, columns = box
    if not 0 <= plane < depth:
        raise UsageError(f"{source}: found plane {plane}, expected one of 0..{depth - 1}")
    for span, length in ((rows, height), (columns, width)):
        if not 0 <= span.start < span.stop <= length:
            raise UsageError(
                f"{source}: found a box {span.start}:{span.stop}, expected one inside 0:{length}"
            )
    return slice(plane, plane + 1), rows, columns


def _moved(span: slice, by: int) -> slice:
    return slice(span.start + by, span.stop + by)
