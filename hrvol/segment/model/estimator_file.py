"""Read an estimator from a ``.skops`` file that may come from anybody.

skops trusts every estimator of scikit-learn, and builds what a file describes: trees by a constructor that
reads memory out of bounds if its arguments disagree, generators with any number of words. So a file is
compared with the few kinds of objects that a classifier consists of before skops sees it. What these objects
hold is checked afterwards, by :func:`hrvol.segment.estimators.validate.check_fitted`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from hrvol.errors import ModelError
from hrvol.reading.archive import open_archive, read_member
from hrvol.reading.bounded import parse_array, parse_mapping
from hrvol.segment.estimators.validate import TRUSTED_TYPES
from hrvol.segment.model import light_skops
from hrvol.segment.model.archive import zip_bytes
from hrvol.text import printable

_MEMBERS = 120_000  # three arrays per tree, and one per iteration of an MLP

_LIMITS = {".npy": 2**30, ".json": 64 * 2**20, "total": 2**31}

_VALUES = 2_500_000  # in the description: each needs about 100 bytes once it is parsed; a tree has up to 300

_DEPTH = 60

_TEXT = 10_000  # characters of a plain value

_CONTAINERS = {"DictNode": "builtins.dict", "ListNode": "builtins.list", "TupleNode": "builtins.tuple"}

_ARRAY = re.compile(r"numpy\.(ndarray|bool_?|u?int(8|16|32|64)|float(16|32|64))")

_OTHERS = {
    "JsonNode": {"builtins.str"},
    "TypeNode": {"builtins.str", "builtins.int"},  # of keys
    "TreeNode": {"sklearn.tree._tree.Tree"},
    "LossNode": {"sklearn._loss._loss.CyHalfBinomialLoss", "sklearn._loss._loss.CyHalfMultinomialLoss"},
    "RandomStateNode": {"numpy.random.mtrand.RandomState"},
    "RandomGeneratorNode": {"numpy.random._generator.Generator"},
    "ObjectNode": {
        f"sklearn.{name}"
        for name in (
            "_loss.link.HalfLogitLink",
            "_loss.link.Interval",
            "_loss.link.LogitLink",
            "_loss.link.MultinomialLogit",
            "_loss.loss.HalfBinomialLoss",
            "_loss.loss.HalfMultinomialLoss",
            "ensemble._forest.RandomForestClassifier",
            "ensemble._hist_gradient_boosting.binning._BinMapper",
            "ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingClassifier",
            "ensemble._hist_gradient_boosting.predictor.TreePredictor",
            "ensemble._voting.VotingClassifier",
            "linear_model._logistic.LogisticRegression",
            "linear_model._ridge.RidgeClassifier",
            "neural_network._multilayer_perceptron.MLPClassifier",
            "pipeline.Pipeline",
            "preprocessing._data.StandardScaler",
            "preprocessing._label.LabelBinarizer",
            "preprocessing._label.LabelEncoder",
            "tree._classes.DecisionTreeClassifier",
        )
    },
}


def read_estimator(data: bytes, source: str) -> Any:
    """Return the estimator of a ``.skops`` file.

    Parameters
    ----------
    data
        Bytes of the file.
    source
        Its name, for messages.

    Raises
    ------
    ModelError
        The file is damaged or too large, or describes other objects than a classifier consists of.
    Exception
        skops and scikit-learn may raise anything if attributes of these objects are damaged.
    """
    with open_archive(data, source, "estimator", _MEMBERS, _LIMITS, ModelError) as archive:
        name = f"{source}: schema.json"
        text = read_member(archive, "schema.json", source, error=ModelError)
        if sum(text.count(mark) for mark in (b",", b"[", b"{")) > _VALUES:
            raise ModelError(f"{name}: found more than {_VALUES:,} values, expected those of a classifier")
        schema = parse_mapping(text, name, ModelError, _LIMITS[".json"])
        try:
            arrays, of_trees = _check_nodes(schema)
        except (KeyError, TypeError, AttributeError, IndexError, RecursionError):
            raise ModelError(f"{name}: found damaged entries, expected those of a classifier") from None
        except ValueError as error:
            raise ModelError(f"{name}: {error}") from None
        members = {"schema.json": text}
        for file in arrays:
            members[file] = read_member(archive, file, source, error=ModelError)
            values = parse_array(members[file], f"{source}: {file}", error=ModelError)
            if values.dtype.kind not in "biufV":
                raise ModelError(f"{source}: {file}: found {values.dtype}, expected numbers")
            if file in of_trees and (values.shape != (1,) or not 1 <= values[0] <= 65_535):
                raise ModelError(f"{source}: {file}: found a tree of several outputs, expected one")
    # skops would decompress its members without a bound.
    return light_skops.loads(zip_bytes(members, level=0), trusted=list(TRUSTED_TYPES))


def _check_nodes(schema: dict[str, Any]) -> tuple[list[str], set[str]]:
    """Return the names of the arrays, and of those that are arguments of trees.

    Raises
    ------
    ValueError
        An object is of another type, or its arguments are not those that scikit-learn writes.
    """
    arrays: dict[str, None] = {}
    of_trees: set[str] = set()
    known: dict[int, dict[str, Any]] = {}
    unexpected: set[str] = set()
    ahead = [(schema, 0)]
    while ahead:
        node, depth = ahead.pop()
        if depth > _DEPTH:
            raise ValueError(f"found objects nested more than {_DEPTH} deep, expected a classifier")
        loader, kind = node["__loader__"], f"{node['__module__']}.{node['__class__']}"
        if not _is_known(loader, kind):
            unexpected.add(printable(kind, 100))
            ahead += [(child, depth + 1) for child in _nodes_in(node)]
            continue
        if (number := node.get("__id__")) is not None:
            if type(number) is not int:
                raise ValueError(
                    f"found the number {printable(str(number), 40)} of an object, expected an integer"
                )
            if not _same(known.setdefault(number, node), node):  # skops takes the first for both
                raise ValueError(f"found two objects with number {number}, expected one")
        if loader == "NdArrayNode":
            if node["type"] != "numpy":
                raise ValueError("found an array of objects, expected numbers")
            arrays[str(node["file"])] = None
        elif loader == "JsonNode":
            if len(node["content"]) > _TEXT:
                raise ValueError(
                    f"found a value of {len(node['content'])} characters, expected at most {_TEXT}"
                )
        elif loader == "TreeNode":
            of_trees.add(_classes_of_tree(node))
        elif loader == "RandomGeneratorNode":
            seed = node["content"].get("seed_seq")  # not in files of early versions
            if seed is not None and seed["content"]["pool_size"]["content"] != "4":
                raise ValueError("found a random generator with another pool, expected 4 words")
        ahead += [(child, depth + 1) for child in _children(node)]
    if unexpected:
        found = ", ".join(sorted(unexpected)[:5])
        raise ValueError(f"found types {found}, expected those of a classifier only")
    return list(arrays), of_trees


def _same(one: Any, other: Any) -> bool:
    """Whether two nodes are equal but for the numbers of the nodes in them.

    So skops makes what a file describes: no node takes the place of another one, or
    refers to one that it is part of.
    """
    if one == other:
        return True
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            _same(value, other[key])
            for key, value in one.items()
            if not (key == "__id__" and isinstance(value, int) and isinstance(other[key], int))
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return False


def _is_known(loader: str, kind: str) -> bool:
    if loader == "NdArrayNode":
        return _ARRAY.fullmatch(kind) is not None
    return kind == _CONTAINERS.get(loader) or kind in _OTHERS.get(loader, ())


def _children(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the nodes below a node of a known kind."""
    loader, content = node["__loader__"], node.get("content")
    if loader == "DictNode":
        yield node["key_types"]
        yield from content.values()  # type: ignore[union-attr]
    elif loader in _CONTAINERS:
        yield from content  # type: ignore[misc]
    elif loader == "RandomGeneratorNode" and "__loader__" not in content:  # type: ignore[operator]
        yield from (content["bit_generator"], content["seed_seq"])  # type: ignore[index]
    elif loader not in ("JsonNode", "NdArrayNode", "TypeNode"):
        if "__reduce__" in node:
            yield node["__reduce__"]["args"]
        if content is not None:
            yield content


def _classes_of_tree(node: dict[str, Any]) -> str:
    """Check the arguments of a tree's constructor: columns, classes of each output, and one output."""
    columns, classes, outputs = node["__reduce__"]["args"]["content"]
    loaders = [argument["__loader__"] for argument in (columns, classes, outputs)]
    if loaders != ["JsonNode", "NdArrayNode", "JsonNode"] or outputs["content"] != "1":
        raise ValueError("found a tree of other arguments, expected columns, classes and one output")
    if type(json.loads(columns["content"])) is not int:
        raise ValueError("found a tree without a number of columns, expected one")
    return str(classes["file"])


def _nodes_in(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the nodes within one of an unknown kind, so that a message names all types."""
    for child in value.values() if isinstance(value, dict) else value:
        if isinstance(child, dict) and "__loader__" in child:
            yield child
        elif isinstance(child, dict | list):
            yield from _nodes_in(child)
