"""Detect the objects of an image without labels: classes, foreground, boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.analysis.objects import Mode, Object, as_rows, find_objects, foreground_mask
from hrvol.device import choose_device
from hrvol.errors import UsageError
from hrvol.explore.planes import find_plane, name_of, read_plane
from hrvol.features.weights.source import WeightsSource
from hrvol.figures.overlays import draw_detection
from hrvol.files import atomic_write, check_picture
from hrvol.progress import ProgressCallback
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import CrfSpec
from hrvol.run.options import MIN_SIZE
from hrvol.run.predict import label_plane
from hrvol.segment.cluster_classifier import ClusterClassifier
from hrvol.segment.crf import check_available
from hrvol.segment.model.model import Model
from hrvol.training.cluster import cluster_recipe, default_recipe, fit_classes
from hrvol.training.colour import recipe_for
from hrvol.training.tile_features import load_features
from hrvol.volume.guard import keep_inputs
from hrvol.volume.mask import write_mask
from hrvol.volume.storage.location import located
from hrvol.volume.volume import Volume, open_volume


@dataclass(frozen=True, eq=False)
class Detection:
    """Classes and objects of one plane.

    Attributes
    ----------
    volume, plane
        The volume and the number of the plane.
    image
        Its grey values, ``(Y, X)`` float32 in [0, 1], or colours ``(Y, X, 3)``.
    model
        Its classes, fitted to this plane alone.
    labels
        ``(Y, X)`` uint16 classes.
    objects
        Foreground objects with boxes ``(y0, x0, y1, x1)``.
    """

    volume: Volume
    plane: int
    image: NDArray[np.float32]
    model: Model
    labels: NDArray[np.uint16]
    objects: tuple[Object, ...]

    @property
    def clusters(self) -> ClusterClassifier:
        """The clusters behind the classes."""
        assert isinstance(self.model.classifier, ClusterClassifier)
        return self.model.classifier

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The saliency mask (paper, section 4.3.2): where the foreground is, ``(Y, X)``."""
        return foreground_mask(self.labels, self.clusters.foreground)

    def to_dict(self) -> dict[str, Any]:
        """Return classes, foreground and boxes as JSON values; a box has the name of its class."""
        distance = self.clusters.semantic_distance
        names = {info.value: info.name for info in self.model.classes}
        boxes = [row | {"superbox": bool(row["superbox"])} for row in as_rows(self.objects, names)]
        return {
            "image": self.volume.source,
            "plane": self.plane,
            "shape": list(self.image.shape[:2]),
            "classes": len(self.model.classes),
            "semantic_distance": None if np.isnan(distance) else distance,
            "foreground": list(self.clusters.foreground),
            "foreground_share": float(self.mask.mean()),
            "boxes": boxes,
        }


def detect_objects(
    image: Any,
    *,
    plane: int | None = None,
    recipe: str | Path | Recipe | None = None,
    clusters: int | None = None,
    merge: float | None = None,
    classes: int | None = None,
    single: bool = False,
    min_size: int = MIN_SIZE,
    crf: bool = False,
    seed: int | None = None,
    device: str = "auto",
    weights_path: str | Path | None = None,
    offline: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: ProgressCallback | None = None,
) -> Detection:
    """Find the classes of one image and box its foreground objects (paper, sections 3.2 and 4.3).

    Parameters
    ----------
    image
        A path, or a numpy, Dask, xarray or Zarr array, ``(Y, X)``; or a stack ``(Z, Y, X)``.
    plane
        Number of the plane of a stack.
    recipe, clusters, merge, classes, seed
        As in :func:`hrvol.fit_classes`.
    single
        One box only: the superbox, around the largest connected component of the foreground.
    min_size
        Least pixels of an object that gets a box.
    crf
        Refine the labels with a dense CRF (extra ``crf``).
    device
        Where features are computed and clustered, ``cpu``, ``cuda`` or ``auto``: a GPU if torch finds one.
        A CRF runs on the CPU.
    weights_path, offline, storage_options, progress
        As in :func:`hrvol.train_model`.

    Raises
    ------
    UsageError
        A stack without ``plane``, a plane outside, or a recipe without a network, whose attention separates
        foreground from background.
    InputError
        The image cannot be read, has one grey value only, or fewer pixels than clusters.
    WeightsError
        Network weights could not be obtained or do not match the model.
    DeviceError
        ``cuda`` is requested, and there is no GPU.
    """
    choice = choose_device(device)
    volume = open_volume(located(image, storage_options))
    base = default_recipe(volume) if recipe is None else recipe
    spec = recipe_for(detection_recipe(base, clusters, merge, classes, crf, seed), [volume])
    z = find_plane(volume, plane, "choose it with --plane z, or label all of them with hrvol cluster")
    _, height, width = volume.shape
    model = fit_classes(
        volume,
        recipe=spec,
        roi=(slice(z, z + 1), slice(0, height), slice(0, width)),
        device=device,
        weights_path=weights_path,
        offline=offline,
        progress=progress,
    )
    if progress is not None:
        progress("label", 0, height * width)
    featuriser = load_features(spec.features, choice.device, WeightsSource.of(weights_path, offline))
    labels = label_plane(volume, z, model, featuriser, crf=spec.crf)
    if progress is not None:
        progress("label", height * width, height * width)
    assert isinstance(model.classifier, ClusterClassifier)
    mode: Mode = "single" if single else "multi"
    objects = find_objects(labels, model.classifier.foreground, min_size=min_size, mode=mode)
    return Detection(volume, z, read_plane(volume, z, model.window), model, labels, objects)


def detection_recipe(
    recipe: str | Path | Recipe | None = None,
    clusters: int | None = None,
    merge: float | None = None,
    classes: int | None = None,
    crf: bool = False,
    seed: int | None = None,
) -> Recipe:
    """Return a recipe with these settings overridden; :class:`UsageError` if it has no attention."""
    spec = cluster_recipe(recipe, clusters, merge, classes, seed)
    if not spec.features.uses_deep:
        raise UsageError(
            "detect: found classical features, which have no attention to find foreground by; expected a deep"
            " recipe"
        )
    if crf:
        spec = spec.with_(crf=spec.crf or CrfSpec())
    if spec.crf is not None:
        check_available()
    return spec


@dataclass(frozen=True)
class DetectionFiles:
    """Output files of one image: a picture (PNG), and its foreground mask (TIFF, uint8 0 / 255)."""

    picture: Path
    mask: Path


def detection_files(
    images: Sequence[str | Path], folder: str | Path, *, overwrite: bool = False, others: Sequence[Any] = ()
) -> Mapping[str, DetectionFiles]:
    """Choose and check the output files of all images.

    Parameters
    ----------
    images
        Paths.
    folder
        Folder to write to; made with the first file.
    overwrite
        Whether earlier pictures and masks may be replaced.
    others
        Other files that must not be replaced: a recipe, weights.

    Returns
    -------
    Mapping
        Path of each image, as text -> its files, ``NAME.png`` and ``NAME_foreground.tif``.

    Raises
    ------
    UsageError
        Two images share a name, an output would replace an image, or ``folder`` is no folder.
    OutputExistsError
        A file exists already.
    """
    parent = Path(folder)
    if parent.exists() and not parent.is_dir():
        raise UsageError(f"{parent}: found a file, expected a folder to write to")
    if not parent.parent.is_dir():
        raise UsageError(f"{parent}: no such folder {parent.parent}, expected one to make it in")
    inputs = {str(image): Path(image).resolve() for image in images}
    outputs: dict[str, DetectionFiles] = {}
    owner: dict[str, str] = {}
    for image, path in inputs.items():
        stem = path.stem.removesuffix(".ome")
        if stem in owner:
            raise UsageError(f"{image}: found the name of {owner[stem]}, expected different names of images")
        owner[stem] = image
        outputs[image] = DetectionFiles(parent / f"{stem}.png", parent / f"{stem}_foreground.tif")
    for files in outputs.values():
        for file in (files.picture, files.mask):
            whole = file.resolve()
            if any(path == whole or path in whole.parents for path in inputs.values()):
                raise UsageError(f"{file}: is one of the images, or inside of one; choose another folder")
            keep_inputs(file, *images, *others)
            if parent.is_dir():
                check_picture(file, overwrite)
    return outputs


def write_detection(detection: Detection, files: DetectionFiles) -> None:
    """Write the picture and the foreground mask of an image, each whole or not at all."""
    files.picture.parent.mkdir(exist_ok=True)
    with atomic_write(files.mask) as file:
        write_mask(file, detection.mask)
    with atomic_write(files.picture) as file:
        draw_detection(
            file,
            name_of(detection.volume, detection.plane),
            detection.image,
            detection.labels,
            detection.model.classes,
            detection.clusters.class_tally.density,
            detection.objects,
        )
