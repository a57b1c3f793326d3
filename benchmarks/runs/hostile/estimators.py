"""Estimators inside of models: trees with children out of bounds, members of other types, damaged schemas."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from damage import with_member, zip_members, zipped

from benchmarks.runs.hostile.case import EITHER, REFUSE, SAME, Case, changed
from benchmarks.runs.hostile.models import INFO, npy, raw_npy
from benchmarks.runs.hostile.sound import SEGMENT

GROUP = "estimators inside"

Members = dict[str, bytes]

Edit = Callable[[Any, Members], None]
"""Changes the schema and the arrays of an estimator in place."""


def cases() -> Iterator[Case]:
    yield from _trees()
    yield from _members()
    yield from _schemas()
    yield from _drawn()


def inner(edit: Edit) -> Callable[[bytes], bytes]:
    """Return a change of a model file that edits its estimator."""

    def change(data: bytes) -> bytes:
        def estimator(old: bytes) -> bytes:
            members = zip_members(old)
            schema = json.loads(members.pop("schema.json"))
            edit(schema, members)
            return zipped({**members, "schema.json": json.dumps(schema).encode()})

        return with_member(data, "estimator_all.skops", estimator)

    return change


def case(
    name: str, edit: Edit, expect: str = REFUSE, model: str = "m.hrvol", both: bool = True, **more: Any
) -> Iterator[Case]:
    """Yield cases that describe the model, and that segment with it."""
    segment = tuple(model if word == "m.hrvol" else word for word in SEGMENT)
    if both:
        describe = tuple(model if word == "m.hrvol" else word for word in INFO)
        yield Case(
            GROUP,
            f"{model}: {name}, described",
            describe,
            changed(model, inner(edit)),
            expect,
            (model,),
            **more,
        )
    files = ("v.zarr",)
    yield Case(
        GROUP,
        f"{model}: {name}, used",
        segment,
        changed(model, inner(edit)),
        expect,
        (model,),
        files=files,
        **more,
    )


def found(node: Any, class_name: str) -> list[Any]:
    """Return the nodes of a schema with this class."""
    nodes: list[Any] = []
    if isinstance(node, dict):
        nodes += [node] if node.get("__class__") == class_name else []
        for value in node.values():
            nodes += found(value, class_name)
    elif isinstance(node, list):
        for value in node:
            nodes += found(value, class_name)
    return nodes


def attributes(node: Any) -> dict[str, Any]:
    """Return the nodes of an object's attributes."""
    values: dict[str, Any] = node["content"]["content"]
    return values


def array_edit(pick: Callable[[Any], Any], change: Callable[[Any], Any]) -> Edit:
    """Return an edit of the array that a node names."""

    def edit(schema: Any, members: Members) -> None:
        name = pick(schema)["file"]
        members[name] = npy(change(np.load(io.BytesIO(members[name])).copy()))

    return edit


def _tree_array(name: str) -> Callable[[Any], Any]:
    return lambda schema: attributes(found(schema, "Tree")[0])[name]


def setting(field: str, index: int, value: Any) -> Callable[[Any], Any]:
    def change(nodes: Any) -> Any:
        nodes[field][index] = value
        return nodes

    return change


def _trees() -> Iterator[Case]:
    edits: dict[str, tuple[str, Callable[[Any], Any]]] = {
        "left child far out": ("nodes", setting("left_child", 0, 10**6)),
        "left child negative": ("nodes", setting("left_child", 0, -5)),
        "left child itself": ("nodes", setting("left_child", 0, 0)),
        "right child far out": ("nodes", setting("right_child", 0, 2**40)),
        "right child itself": ("nodes", setting("right_child", 0, 0)),
        "a leaf with a child": ("nodes", setting("left_child", -1, 0)),
        "both children the same": (
            "nodes",
            lambda nodes: setting("left_child", 0, nodes["right_child"][0])(nodes),
        ),
        "feature far out": ("nodes", setting("feature", 0, 10**6)),
        "feature negative": ("nodes", setting("feature", 0, -3)),
        "threshold NaN": ("nodes", setting("threshold", 0, np.nan)),
        "a node less": ("nodes", lambda nodes: nodes[:-1]),
        "a node more": ("nodes", lambda nodes: np.concatenate([nodes, nodes[-1:]])),
        "no nodes": ("nodes", lambda nodes: nodes[:0]),
        "nodes of floats": ("nodes", lambda nodes: np.zeros(len(nodes))),
        "nodes of two dimensions": ("nodes", lambda nodes: nodes[None]),
        "leaf NaN": ("values", lambda values: values * np.nan),
        "leaf infinite": ("values", lambda values: values + np.inf),
        "leaf negative": ("values", lambda values: values - 2),
        "leaf above one": ("values", lambda values: values + 5),
        "leaf zero": ("values", lambda values: values * 0),
        "a value less": ("values", lambda values: values[:-1]),
        "a class more": ("values", lambda values: np.concatenate([values, values], axis=2)),
        "values of float32": ("values", lambda values: values.astype(np.float32)),
        "values of text": ("values", lambda values: values.astype(str)),
    }
    for name, (array, change) in edits.items():
        yield from case(name, array_edit(_tree_array(array), change))
    for key, value in (("node_count", 10**9), ("node_count", -1), ("max_depth", -1), ("node_count", 1)):
        yield from case(f"{key} {value}", literal("Tree", key, value), SAME)

    def arguments(schema: Any, members: Members) -> None:
        found(schema, "Tree")[0]["__reduce__"]["args"]["content"][0]["content"] = "1000000000"

    yield from case("a tree of 10^9 features", arguments)


def literal(class_name: str, key: str, value: Any) -> Edit:
    def edit(schema: Any, members: Members) -> None:
        attributes(found(schema, class_name)[-1])[key] = plain(value)

    return edit


def plain(value: Any) -> dict[str, Any]:
    """Return a schema's node of a plain value."""
    return {
        **{"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode"},
        **{"content": json.dumps(value), "is_json": True, "__id__": 987654},
    }


def other_estimator(schema: Any) -> Any:
    """Return a node of another trusted estimator: a scaler that was never fitted."""
    content = {"__class__": "dict", "__module__": "builtins", "__loader__": "DictNode", "content": {}}
    keys = {"__class__": "list", "__module__": "builtins", "__loader__": "ListNode", "content": []}
    return {
        **{
            "__class__": "StandardScaler",
            "__module__": "sklearn.preprocessing._data",
            "__loader__": "ObjectNode",
        },
        **{"content": content | {"key_types": keys}, "__id__": 987655},
    }


_CLASSES = (
    "VotingClassifier",
    "RandomForestClassifier",
    "DecisionTreeClassifier",
    "Pipeline",
    "StandardScaler",
    "LogisticRegression",
)
_FITTED = (
    *(
        "estimators",
        "voting",
        "weights",
        "estimators_",
        "le_",
        "classes_",
        "n_classes_",
        "n_outputs_",
        "n_features_in_",
    ),
    *(
        "tree_",
        "steps",
        "memory",
        "mean_",
        "scale_",
        "with_mean",
        "coef_",
        "intercept_",
        "n_jobs",
        "solver",
        "verbose",
    ),
    *(
        "transform_input",
        "estimator_",
        "max_features_",
        "flatten_transform",
        "_sample_weight",
        "missing_go_to_left",
    ),
)


def _members() -> Iterator[Case]:
    """Exchange each attribute that matters for null, text, and another estimator."""
    for class_name in _CLASSES:
        for key in _FITTED:
            for name in ("null", "text", "another estimator"):

                def edit(
                    schema: Any, members: Members, c: str = class_name, k: str = key, n: str = name
                ) -> None:
                    node = [one for one in found(schema, c) if k in attributes(one)][-1]
                    attributes(node)[k] = (
                        other_estimator(schema)
                        if n == "another estimator"
                        else plain("x" if n == "text" else None)
                    )

                if key in _KEYS[class_name]:
                    yield from case(
                        f"{class_name}.{key} is {name}",
                        edit,
                        SAME,
                        both=name == "another estimator" and key == "tree_",
                    )


_KEYS: dict[str, tuple[str, ...]] = {
    "VotingClassifier": (
        "estimators",
        "voting",
        "weights",
        "estimators_",
        "le_",
        "classes_",
        "n_jobs",
        "flatten_transform",
        "verbose",
    ),
    "RandomForestClassifier": (
        "classes_",
        "n_classes_",
        "n_outputs_",
        "n_features_in_",
        "estimators_",
        "n_jobs",
        "verbose",
        "estimator_",
    ),
    "DecisionTreeClassifier": (
        "tree_",
        "classes_",
        "n_classes_",
        "n_outputs_",
        "n_features_in_",
        "max_features_",
    ),
    "Pipeline": ("steps", "memory", "verbose", "transform_input"),
    "StandardScaler": ("mean_", "scale_", "with_mean", "n_features_in_"),
    "LogisticRegression": ("coef_", "intercept_", "classes_", "solver", "n_features_in_"),
}


def _schemas() -> Iterator[Case]:
    def set_top(**values: Any) -> Edit:
        return lambda schema, members: schema.update(values)

    edits: dict[str, tuple[Edit, str]] = {
        "a function of os": (set_top(__class__="system", __module__="os"), REFUSE),
        "eval": (set_top(__class__="eval", __module__="builtins"), REFUSE),
        "unknown loader": (set_top(__loader__="NoNode"), REFUSE),
        "loader a method": (set_top(__loader__="MethodNode"), REFUSE),
        "loader a function": (set_top(__loader__="FunctionNode"), REFUSE),
        "loader operators": (set_top(__loader__="OperatorFuncNode"), REFUSE),
        "protocol 99": (set_top(protocol=99), SAME),
        "protocol text": (set_top(protocol="x"), SAME),
        "version null": (set_top(_skops_version=None), SAME),
        "no content": (lambda schema, members: schema.pop("content"), REFUSE),
        "no class": (lambda schema, members: schema.pop("__class__"), REFUSE),
        "content null": (set_top(content=None), REFUSE),
        "content a list": (set_top(content=[]), REFUSE),
        "class a number": (set_top(__class__=1), REFUSE),
        "module escapes": (set_top(__module__="\x1b[31mred"), REFUSE),
        "a circle": (lambda schema, members: _circle(schema), REFUSE),
        "no arrays": (lambda schema, members: members.clear(), REFUSE),
        "an array outside": (lambda schema, members: _point(schema, "../../m.npy"), REFUSE),
        "an array of objects": (lambda schema, members: _header(members, "|O"), REFUSE),
        "an array of text": (lambda schema, members: _header(members, "<U2"), REFUSE),
    }
    for name, (edit, expect) in edits.items():
        yield from case(name, edit, expect)
    for name, text in {
        "empty schema": b"",
        "schema null": b"null",
        "schema a list": b"[]",
        "schema nested": b'{"content":' * 50_000,
        "schema NaN": b"NaN",
    }.items():

        def whole(data: bytes, text: bytes = text) -> bytes:
            return with_member(data, "estimator_all.skops", lambda old: with_member(old, "schema.json", text))

        yield Case(GROUP, name, INFO, changed("m.hrvol", whole), REFUSE, ("m.hrvol",))
    for name, data in {"a pickle": b"\x80\x04cos\nsystem\n.", "empty": b"", "no zip": b"x" * 500}.items():
        yield Case(
            GROUP,
            name,
            INFO,
            changed("m.hrvol", lambda old, d=data: with_member(old, "estimator_all.skops", d)),
            REFUSE,
            ("m.hrvol",),
        )


def _circle(schema: Any) -> None:
    """Have an estimator hold itself, by the number that skops gives to objects it has seen."""
    attributes(schema)["estimators_"] = {
        **{
            "__class__": "VotingClassifier",
            "__module__": "sklearn.ensemble._voting",
            "__loader__": "CachedNode",
        },
        "__id__": schema["__id__"],
    }


def _point(schema: Any, name: str) -> None:
    found(schema, "ndarray")[0]["file"] = name


def _header(members: Members, kind: str) -> None:
    name = next(name for name in members if name.endswith(".npy"))
    members[name] = raw_npy(f"{{'descr': '{kind}', 'fortran_order': False, 'shape': (1,)}}")


def _drawn() -> Iterator[Case]:
    rng = random.Random(2)
    for number in range(20):
        field = rng.choice(("left_child", "right_child", "feature"))
        value = rng.choice((-7, 99, 10**7, 2**33, -(2**31))) + rng.randrange(5)

        def nodes(values: Any, field: str = field, value: int = value) -> Any:
            values[field][0] = value
            return values

        yield from case(
            f"drawn node {number}", array_edit(_tree_array("nodes"), nodes), both=False, generated=True
        )
    for number in range(30):
        seed = rng.random()

        def splice(schema: Any, members: Members, seed: float = seed) -> None:
            draw = random.Random(seed)
            nodes = [node for name in _CLASSES for node in found(schema, name)]
            one, two = (draw.choice([node for node in nodes if attributes(node)]) for _ in range(2))
            taken = attributes(two)[draw.choice(list(attributes(two)))]
            attributes(one)[draw.choice(list(attributes(one)))] = json.loads(json.dumps(taken))

        yield from case(f"drawn exchange {number}", splice, EITHER, both=False, generated=True)
