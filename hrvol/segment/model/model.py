"""Model files: a zip of JSON, arrays and estimators from which the same predictions come out, bit for bit.

::

    info.json              what this is: format version, channels, weights' SHA-256, versions, training data
    recipe.json            all settings
    classes.json           values, names, colours
    window.npy             intensity window, float64 (2,)
    estimator_<name>.skops one or more estimators; or, where classes were found without strokes,
    <name>.npy             the arrays of a ClusterClassifier

There is no pickle in it: arrays are read without, and estimators go through skops, which makes objects of
known types only. A file that asks for another type is refused, and so is one whose trees lead out of bounds.

The same model is the same bytes, whether it is saved twice, loaded and saved again, or trained anew with the
same versions of the packages. So a digest of the file tells whether two runs use the same model.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import skops.io

from hrvol.classes import ClassInfo
from hrvol.errors import HrvolError, ModelError, first_line
from hrvol.files import atomic_write
from hrvol.recipe.recipe import Recipe
from hrvol.segment.cluster_classifier import ClusterClassifier
from hrvol.segment.estimators.validate import TRUSTED_TYPES, check_fitted
from hrvol.segment.model.archive import (
    DAMAGE,
    array_bytes,
    read_array,
    read_json,
    read_mapping,
    read_member,
    settled_skops,
    zip_bytes,
)
from hrvol.segment.model.clusters import cluster_members, read_clusters
from hrvol.segment.pixel_classifier import Member, PixelClassifier

FORMAT = "hrvol model"

FORMAT_VERSION = 1

_PACKAGES = ("numpy", "scipy", "scikit-learn", "skops", "torch", "timm")


def current_versions() -> dict[str, str]:
    """Return the versions of hrvol and of the packages that decide its numbers (those installed)."""
    versions = {"hrvol": version("hrvol")}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


@dataclass(frozen=True)
class Model:
    """All that is frozen at training and needed to segment.

    Attributes
    ----------
    recipe
        All settings.
    classes
        Values, names and colours, in order of value: the order of probabilities.
    window
        Grey values that become 0 and 1, in the volume's units.
    classifier
        The fitted classifier, or the clusters and their classes.
    weights_sha256
        Of the network's weights; ``None`` without deep features.
    channels
        Names of the feature columns.
    versions
        Versions of the packages it was made with.
    trained_on
        One mapping for each image: JSON values, such as its name and the count of samples of each class.
    source
        Name for messages: the file it was read from.
    """

    recipe: Recipe
    classes: tuple[ClassInfo, ...]
    window: tuple[float, float]
    classifier: PixelClassifier | ClusterClassifier
    weights_sha256: str | None
    channels: tuple[str, ...]
    versions: Mapping[str, str] = field(default_factory=current_versions)
    trained_on: tuple[Mapping[str, Any], ...] = ()
    source: str = field(default="model", compare=False)

    def __post_init__(self) -> None:
        values = tuple(info.value for info in self.classes)
        if values != self.classifier.classes:
            raise ModelError(f"{self.source}: found classes {values}, expected {self.classifier.classes}")
        if len(self.channels) != self.classifier.n_features:
            raise ModelError(
                f"{self.source}: found {len(self.channels)} channels, expected {self.classifier.n_features}"
            )


def model_bytes(model: Model) -> bytes:
    """Return what a model file holds: a zip, the same bytes for the same model."""
    fitted, about = _fitted(model.classifier)
    info: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "weights_sha256": model.weights_sha256,
        "channels": list(model.channels),
        "versions": dict(model.versions),
        "trained_on": [dict(entry) for entry in model.trained_on],
    }
    return zip_bytes(
        {
            "info.json": _json(info | about),
            "recipe.json": _json(model.recipe.to_dict()),
            "classes.json": _json([asdict(entry) for entry in model.classes]),
            "window.npy": array_bytes(np.asarray(model.window, np.float64)),
            **fitted,
        }
    )


def save_model(model: Model, path: str | Path) -> None:
    """Write a model file; a reader sees the old file or the whole new one, never half.

    Raises
    ------
    ModelError
        The file cannot be written.
    """
    path = Path(path)
    data = model_bytes(model)
    try:
        with atomic_write(path, durable=True) as partial:
            partial.write_bytes(data)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written: {error.strerror or error}") from None


def _json(values: Any) -> bytes:
    return json.dumps(values, indent=1).encode()


def _fitted(classifier: PixelClassifier | ClusterClassifier) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return what was fitted as members of the zip, and what ``info.json`` says about it."""
    if isinstance(classifier, ClusterClassifier):
        arrays, about = cluster_members(classifier)
        return arrays, {"clusters": about}
    estimators = {
        f"estimator_{member.name}.skops": settled_skops(skops.io.dumps(member.estimator))
        for member in classifier.members
    }
    columns = [
        {"name": member.name, "columns": [member.columns.start, member.columns.stop]}
        for member in classifier.members
    ]
    return estimators, {"members": columns}


def load_model(path: str | Path) -> Model:
    """Read a model file.

    Raises
    ------
    ModelError
        The file is missing, damaged, no model, of another format version, or asks for types that a model
        does not need.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{path}: found no such file, expected a *.hrvol file") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    return read_model(data, str(path))


def read_model(data: bytes, source: str) -> Model:
    """Read a model from the bytes of its file.

    Parameters
    ----------
    data
        What :func:`model_bytes` returns, or a file holds.
    source
        Name for messages; becomes the model's.

    Raises
    ------
    ModelError
        The data are damaged, no model, of another format version, or ask for types that a model does not
        need.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except DAMAGE as error:
        found = f"a damaged file or no model ({first_line(error)})"
        raise ModelError(f"{source}: found {found}, expected a *.hrvol file") from None
    with archive:
        return _read(archive, source)


def check_weights(model: Model, sha256: str | None, name: str) -> None:
    """Refuse network weights other than those the model was trained with.

    Parameters
    ----------
    model
        The model.
    sha256
        Of the weights at hand; ``None`` if there are none.
    name
        Of the weights at hand, for the message.

    Raises
    ------
    ModelError
        The SHA-256 differs. A model without deep features accepts anything.
    """
    if model.weights_sha256 is not None and sha256 != model.weights_sha256:
        raise ModelError(
            f"{model.source}: found weights {name} with SHA-256 {sha256}, "
            f"expected {model.weights_sha256} with which it was trained"
        )


def _read(archive: zipfile.ZipFile, source: str) -> Model:
    info = read_mapping(archive, "info.json", source)
    if info.get("format") != FORMAT:
        raise ModelError(f"{source}: info.json: found format {info.get('format')!r}, expected {FORMAT!r}")
    if info.get("format_version") != FORMAT_VERSION:
        raise ModelError(
            f"{source}: found format version {info.get('format_version')!r}, expected {FORMAT_VERSION} "
            f"(this is hrvol {version('hrvol')})"
        )
    recipe = _recipe(read_mapping(archive, "recipe.json", source), source)
    entries = read_json(archive, "classes.json", source)
    window = _window(archive, source)
    try:
        classes = tuple(ClassInfo(e["value"], e["name"], (*e["colour"],)) for e in entries)
        values = tuple(entry.value for entry in classes)
        channels = tuple(str(name) for name in info["channels"])
        versions, trained_on = dict(info["versions"]), tuple(info["trained_on"])
        weights = info["weights_sha256"]
    except (KeyError, TypeError, ValueError, HrvolError) as error:
        raise ModelError(
            f"{source}: found damaged entries ({first_line(error)}), expected a model's"
        ) from None
    classifier: PixelClassifier | ClusterClassifier
    if "clusters" in info:
        classifier = read_clusters(archive, info["clusters"], len(channels), source)
    else:
        members = _members(archive, info, recipe, values, len(channels), versions, source)
        classifier = PixelClassifier(recipe.classifier, values, len(channels), members)
    return Model(recipe, classes, window, classifier, weights, channels, versions, trained_on, source)


def _members(
    archive: zipfile.ZipFile,
    info: Mapping[str, Any],
    recipe: Recipe,
    values: tuple[int, ...],
    n_features: int,
    versions: Mapping[str, str],
    source: str,
) -> tuple[Member, ...]:
    try:
        parts = {str(part["name"]): slice(*map(int, part["columns"])) for part in info["members"]}
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{source}: found damaged entries ({first_line(error)}), expected a model's"
        ) from None
    expected = {"all"} if recipe.combine == "concatenate" else {"classical", "deep", "hybrid"}
    if set(parts) != expected:
        raise ModelError(f"{source}: found estimators {sorted(parts)}, expected {sorted(expected)}")
    return tuple(
        Member(
            name, columns, _estimator(archive, name, columns, recipe, values, n_features, versions, source)
        )
        for name, columns in parts.items()
    )


def _window(archive: zipfile.ZipFile, source: str) -> tuple[float, float]:
    low, high = (float(value) for value in read_array(archive, "window.npy", "f", (2,), source))
    if not low < high:
        raise ModelError(f"{source}: window.npy: found {low} and {high}, expected a rising pair")
    return low, high


def _recipe(values: dict[str, Any], source: str) -> Recipe:
    try:
        return Recipe.from_dict(values, f"{source}: recipe.json")
    except HrvolError as error:
        raise ModelError(f"{error}; expected a recipe of hrvol {version('hrvol')}") from None


def _estimator(
    archive: zipfile.ZipFile,
    name: str,
    columns: slice,
    recipe: Recipe,
    values: tuple[int, ...],
    n_features: int,
    versions: Mapping[str, str],
    source: str,
) -> Any:
    """Read one estimator, of known types only, and check that it can be used on its columns."""
    where = f"{source}: estimator_{name}.skops"
    data = read_member(archive, f"estimator_{name}.skops", source)
    try:
        foreign = sorted(set(skops.io.get_untrusted_types(data=data)) - set(TRUSTED_TYPES))
        if foreign:
            raise ModelError(f"{where}: found types {', '.join(foreign)}, expected a classifier's only")
        estimator = skops.io.loads(data, trusted=list(TRUSTED_TYPES))
        whole = name in ("all", "hybrid")
        start, stop = (0, n_features) if whole else (columns.start, columns.stop)
        if not 0 <= start < stop <= n_features or columns != slice(start, stop):
            expected = "all" if whole else "some"
            raise ValueError(f"found columns {columns.start}..{columns.stop} for {expected} of {n_features}")
        check_fitted(estimator, recipe.classifier.kind, columns.stop - columns.start, values)
    except ModelError:
        raise
    except (
        Exception
    ) as error:  # what a foreign or damaged estimator makes skops or scikit-learn raise is open
        made, here = versions.get("scikit-learn"), version("scikit-learn")
        note = "" if made == here else f" (made with scikit-learn {made}, this is {here})"
        raise ModelError(
            f"{where}: {first_line(error)}{note}; expected a {recipe.classifier.kind} classifier"
        ) from None
    return estimator
