"""Save and load models as zip files; a loaded model predicts bit-for-bit the same.

::

    info.json              format version, channels, SHA-256 of the weights, versions, training data
    recipe.json            all settings
    classes.json           values, names, colours
    window.npy             intensity window, float64 (2,)
    estimator_<name>.skops one or more estimators; for a model without strokes instead
    <name>.npy             the arrays of a ClusterClassifier
    student.safetensors    the weights of a StudentClassifier
    drift_<name>.npy       the arrays of a record of the training pixels, if it has one

The file holds no pickle: arrays are read without it, and skops makes estimators of trusted types only. Files
with other types, or with trees whose node numbers are out of bounds, are refused, and so are files that are
larger than a model can be. Everything is checked before it is used.

The same model gives the same bytes, whether it is saved twice, loaded and saved again, or trained again with
the same package versions. So a digest of the file identifies the model of a run.
"""

from __future__ import annotations

import json
import reprlib
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.exceptions import InconsistentVersionWarning

from hrvol.backend import TORCH
from hrvol.classes import ClassInfo
from hrvol.errors import HrvolError, ModelError, first_line
from hrvol.files import atomic_write
from hrvol.quality.calibration import Calibration
from hrvol.reading.archive import open_archive, read_member
from hrvol.reading.bounded import read_file
from hrvol.recipe.recipe import Recipe
from hrvol.segment.cluster_classifier import ClusterClassifier
from hrvol.segment.drift import DriftRecord
from hrvol.segment.estimators.validate import check_fitted
from hrvol.segment.model import light_skops
from hrvol.segment.model.archive import (
    LIMITS,
    MEMBERS,
    array_bytes,
    canonical_skops,
    read_array,
    read_json,
    read_mapping,
    zip_bytes,
)
from hrvol.segment.model.clusters import cluster_members, read_clusters
from hrvol.segment.model.doubt import (
    calibration_entries,
    drift_members,
    read_calibration,
    read_drift,
)
from hrvol.segment.model.estimator_file import read_estimator
from hrvol.segment.model.schemas import ModelInfo, read_class_table, read_info
from hrvol.segment.model.students import read_student, student_members
from hrvol.segment.pixel_classifier import Member, PixelClassifier
from hrvol.segment.student.student import StudentClassifier, channel_names
from hrvol.text import printable
from hrvol.version import VERSION

FORMAT = "hrvol model"

FORMAT_VERSION = 1

STUDENT_FORMAT_VERSION = 2
"""Format version of students, so that versions of hrvol that cannot use them refuse them by name."""

_FILE_BYTES = 2**30

Classifier = PixelClassifier | ClusterClassifier | StudentClassifier

_PACKAGES = ("numpy", "scipy", "scikit-learn", "skops", "torch", "timm")


def current_versions() -> dict[str, str]:
    """Return the versions of hrvol and of the installed packages that affect its results."""
    versions = {"hrvol": VERSION}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


@dataclass(frozen=True)
class Model:
    """Everything fitted at training that segmentation needs.

    Attributes
    ----------
    recipe
        All settings.
    classes
        Values, names and colours, in order of value, which is the order of probabilities.
    window
        Grey values that map to 0 and 1, in the volume's units.
    classifier
        The fitted classifier, or the clusters and their classes, or a student, which needs no features.
    weights_sha256
        SHA-256 of the network's weights; ``None`` without deep features.
    channels
        Names of the feature columns; of a student's input planes.
    versions
        Package versions at training.
    trained_on
        One mapping of JSON values per image, such as its name and the number of samples of each class.
    backend
        What computed the network at training, see :func:`hrvol.backend.choose_backend`.
    source
        Name for messages: the path of the file.
    drift
        What its training pixels look like; ``None``: a model of a version that did not record it, without
        strokes, or of too few.
    calibration
        Temperature of its probabilities; ``None``: not calibrated.
    """

    recipe: Recipe
    classes: tuple[ClassInfo, ...]
    window: tuple[float, float]
    classifier: Classifier
    weights_sha256: str | None
    channels: tuple[str, ...]
    versions: Mapping[str, str] = field(default_factory=current_versions)
    trained_on: tuple[Mapping[str, Any], ...] = ()
    backend: str = TORCH
    source: str = field(default="model", compare=False)
    drift: DriftRecord | None = None
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        values = tuple(info.value for info in self.classes)
        if values != self.classifier.classes:
            raise ModelError(f"{self.source}: found classes {values}, expected {self.classifier.classes}")
        if len(self.channels) != self.classifier.n_features:
            raise ModelError(
                f"{self.source}: found {len(self.channels)} channels, expected {self.classifier.n_features}"
            )


def model_bytes(model: Model) -> bytes:
    """Return the bytes of a model file, a zip; the same model gives the same bytes."""
    members, entries = _classifier_members(model.classifier)
    info: dict[str, Any] = {
        "format": FORMAT,
        "format_version": _format_version(student="student" in entries),
        "weights_sha256": model.weights_sha256,
        "channels": list(model.channels),
        "versions": dict(model.versions),
        "trained_on": [dict(entry) for entry in model.trained_on],
    }
    if model.backend != TORCH:
        info["backend"] = model.backend
    if model.drift is not None:
        arrays, entries["drift"] = drift_members(model.drift)
        members |= arrays
    if model.calibration is not None:
        entries["calibration"] = calibration_entries(model.calibration)
    return zip_bytes(
        {
            "info.json": _json(info | entries),
            "recipe.json": _json(model.recipe.to_dict()),
            "classes.json": _json([asdict(entry) for entry in model.classes]),
            "window.npy": array_bytes(np.asarray(model.window, np.float64)),
            **members,
        }
    )


def save_model(model: Model, path: str | Path) -> None:
    """Write a model file atomically: a reader sees the old file or the whole new one.

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


def _format_version(*, student: bool) -> int:
    return STUDENT_FORMAT_VERSION if student else FORMAT_VERSION


def _classifier_members(classifier: Classifier) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return a classifier as members of the zip, and its entries in ``info.json``."""
    if isinstance(classifier, StudentClassifier):
        weights, entries = student_members(classifier)
        return weights, {"student": entries}
    if isinstance(classifier, ClusterClassifier):
        arrays, entries = cluster_members(classifier)
        return arrays, {"clusters": entries}
    estimators = {
        f"estimator_{member.name}.skops": canonical_skops(light_skops.dumps(member.estimator))
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
        The file is missing, damaged, not a model, of another format version, or holds untrusted types.
    """
    return read_model(read_model_bytes(path), str(path))


def read_model_bytes(path: str | Path) -> bytes:
    """Return the bytes of a model file; raise :class:`ModelError` if it is no regular file or too large."""
    return read_file(path, _FILE_BYTES, "a *.hrvol file", ModelError)


def read_model(data: bytes, source: str) -> Model:
    """Read a model from the bytes of its file.

    Parameters
    ----------
    data
        The bytes that :func:`model_bytes` returns.
    source
        Name for messages, and :attr:`Model.source`.

    Raises
    ------
    ModelError
        The data are damaged, not a model, of another format version, or hold untrusted types.
    """
    with open_archive(data, source, "model", MEMBERS, LIMITS, ModelError) as archive:
        return _read_archive(archive, source)


def check_weights(model: Model, sha256: str | None, name: str) -> None:
    """Check that the network weights are those of the training.

    Parameters
    ----------
    model
        The model.
    sha256
        SHA-256 of the weights; ``None`` without weights.
    name
        Name of the weights, for the message.

    Raises
    ------
    ModelError
        The SHA-256 differs. A model without deep features accepts any weights.
    """
    if model.weights_sha256 is not None and sha256 != model.weights_sha256:
        raise ModelError(
            f"{model.source}: found weights {name} with SHA-256 {sha256}, "
            f"expected {model.weights_sha256} as used for training"
        )


def _read_archive(archive: zipfile.ZipFile, source: str) -> Model:
    values = read_mapping(archive, "info.json", source)
    if values.get("format") != FORMAT:
        raise ModelError(
            f"{source}: info.json: found format {_shown(values.get('format'))}, expected {FORMAT!r}"
        )
    expected = _format_version(student="student" in values)
    if values.get("format_version") != expected:
        raise ModelError(
            f"{source}: found format version {_shown(values.get('format_version'))}, expected"
            f" {expected} (installed: hrvol {VERSION})"
        )
    info, trained_on = read_info(values, f"{source}: info.json")
    recipe = _recipe(read_mapping(archive, "recipe.json", source), source)
    classes = read_class_table(read_json(archive, "classes.json", source), f"{source}: classes.json")
    window = _window(archive, source)
    n_features = len(info.channels)
    numbers = tuple(entry.value for entry in classes)
    classifier: Classifier
    if "student" in values:
        classifier = read_student(archive, values["student"], numbers, source)
        _check_student(classifier, info, source)
    elif info.clusters is not None:
        if info.clusters.count > recipe.cluster.clusters:
            raise ModelError(
                f"{source}: info.json: found {info.clusters.count} clusters, expected at most the"
                f" {recipe.cluster.clusters} of the recipe"
            )
        classifier = read_clusters(archive, info.clusters, n_features, source)
    else:
        members = _members(archive, info, recipe, numbers, source)
        classifier = PixelClassifier(recipe.classifier, numbers, n_features, members)
    return Model(
        recipe,
        classes,
        window,
        classifier,
        info.weights_sha256,
        info.channels,
        info.versions,
        trained_on,
        info.backend,
        source,
        None if info.drift is None else read_drift(archive, info.drift, n_features, source),
        None if info.calibration is None else read_calibration(info.calibration),
    )


def _check_student(student: StudentClassifier, info: ModelInfo, source: str) -> None:
    """Check that a file of a student has nothing else, and that its channels are the student's."""
    if info.clusters is not None or info.members or info.weights_sha256 is not None:
        raise ModelError(f"{source}: info.json: found a student and a classifier, expected one of them")
    if info.channels != (names := channel_names(student.spec)):
        raise ModelError(
            f"{source}: info.json: found {len(info.channels)} channels from {_shown(info.channels[0])},"
            f" expected {len(names)} from {names[0]!r}"
        )


def _members(
    archive: zipfile.ZipFile, info: ModelInfo, recipe: Recipe, values: tuple[int, ...], source: str
) -> tuple[Member, ...]:
    columns_of = {entry.name: slice(*entry.columns) for entry in info.members}
    expected = {"all"} if recipe.combine == "concatenate" else {"classical", "deep", "hybrid"}
    if set(columns_of) != expected or len(columns_of) != len(info.members):
        raise ModelError(f"{source}: found estimators {sorted(columns_of)}, expected {sorted(expected)}")
    return tuple(
        Member(name, columns, _estimator(archive, name, columns, recipe, values, info, source))
        for name, columns in columns_of.items()
    )


def _window(archive: zipfile.ZipFile, source: str) -> tuple[float, float]:
    low, high = (float(value) for value in read_array(archive, "window.npy", "f", (2,), source))
    if not low < high:
        raise ModelError(f"{source}: window.npy: found {low} and {high}, expected two increasing values")
    return low, high


def _recipe(values: dict[str, Any], source: str) -> Recipe:
    try:
        return Recipe.from_dict(values, f"{source}: recipe.json")
    except HrvolError as error:
        raise ModelError(f"{error}; expected a recipe of hrvol {VERSION}") from None


def _estimator(
    archive: zipfile.ZipFile,
    name: str,
    columns: slice,
    recipe: Recipe,
    values: tuple[int, ...],
    info: ModelInfo,
    source: str,
) -> Any:
    """Read and validate one estimator of trusted types."""
    member, n_features = f"estimator_{name}.skops", len(info.channels)
    data = read_member(archive, member, source, error=ModelError)
    all_columns = name in ("all", "hybrid")
    start, stop = (0, n_features) if all_columns else (columns.start, columns.stop)
    if not 0 <= start < stop <= n_features or columns != slice(start, stop):
        expected = "all" if all_columns else "some"
        raise ModelError(
            f"{source}: {member}: found columns {columns.start}..{columns.stop} for {expected} of"
            f" {n_features}, expected columns of the model"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InconsistentVersionWarning)  # reported below if a check fails
            estimator = read_estimator(data, f"{source}: {member}")
        check_fitted(estimator, recipe.classifier.kind, stop - start, values)
    except ModelError:
        raise
    except Exception as error:  # skops and scikit-learn may raise anything on a damaged estimator
        stored, installed = info.versions.get("scikit-learn"), version("scikit-learn")
        note = "" if stored == installed else f" (made with scikit-learn {stored}, installed: {installed})"
        raise ModelError(
            f"{source}: {member}: {first_line(error)}{note}; expected a {recipe.classifier.kind} classifier"
        ) from None
    return estimator


def _shown(value: Any) -> str:
    return printable(reprlib.repr(value), 100)
