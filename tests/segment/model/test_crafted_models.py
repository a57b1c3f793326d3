"""Models made to crash, to hang, to fill the memory or to label wrongly: each is refused in one line."""

import io
import json
import os
import resource
import time
import zipfile
from copy import deepcopy

import crafted
import numpy as np
import pytest
from crafted import MEMBER, listed, members, nodes, npy, plain, small, with_estimator, with_json, with_schema
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from hrvol.errors import ModelError
from hrvol.segment.model.archive import zip_bytes
from hrvol.segment.model.model import load_model, model_bytes, read_model

KINDS = ("vote", "forest", "logistic", "ridge", "mlp", "boosting")


def refused(data, match, seconds=2):
    """Assert that a model is refused in one line, quickly and without much memory."""
    peak, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(ModelError, match=match) as caught:
        read_model(data, "m.hrvol")
    message = str(caught.value)
    assert message.startswith("m.hrvol: ")
    assert "expected" in message
    assert message.isprintable()
    assert len(message) < 500
    assert time.process_time() - began < seconds
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 300 * 1024


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("classes", [(1, 3, 7), (2, 5)])
@pytest.mark.parametrize("kind", KINDS)
def test_an_unchanged_model_passes(kind, classes):
    data = small(kind, classes)
    assert model_bytes(read_model(data, "m.hrvol")) == data
    assert crafted.with_members(data) == data


def test_a_model_trained_on_a_file_whose_name_is_no_unicode_passes():
    data = with_json(
        small("forest"), "info.json", lambda values: values.update(trained_on=[{"source": "a\udc80.tif"}])
    )
    assert read_model(data, "m.hrvol").trained_on == ({"source": "a\udc80.tif"},)


# -- what an estimator holds -----------------------------------------------------------------------------


def set_nodes(**fields):
    """Return a change of the first tree's nodes: {field: (node, value)}; node ``leaf`` is the first leaf."""

    def change(forest):
        tree = forest.estimators_[0].tree_
        state = tree.__getstate__()
        changed, values = state["nodes"].copy(), state["values"].copy()
        for field, (node, value) in fields.items():
            number = int(np.flatnonzero(tree.children_left == -1)[0]) if node == "leaf" else node
            if field == "value":
                values[number, 0] = value
            else:
                changed[field][number] = value
        tree.__setstate__({**state, "nodes": changed, "values": values})

    return change


def set_predictor(**fields):
    """Return a change of the nodes of the first tree of boosting."""

    def change(boosting):
        records = boosting._predictors[0][0].nodes
        for field, (node, value) in fields.items():
            number = int(np.flatnonzero(records["is_leaf"])[0]) if node == "leaf" else node
            records[field][number] = value

    return change


def put(path, value):
    """Return a change of an attribute; the path has names and numbers."""

    def change(estimator):
        owner = estimator
        *above, last = path.split(".")
        for name in above:
            owner = owner[int(name)] if name.lstrip("-").isdigit() else getattr(owner, name)
        found = value(owner) if callable(value) else value
        if last.isdigit():
            owner[int(last)] = found
        else:
            vars(owner)[last] = found

    return change


SCALER = StandardScaler().fit(np.random.default_rng(0).normal(size=(9, 6)))

FOREST = {
    "a tree that is another estimator": (put("estimators_.0.tree_", SCALER), "tree_ of type StandardScaler"),
    "a tree that is a number": (put("estimators_.0.tree_", 3), "tree_ of type int, expected Tree"),
    "a member that is no tree": (
        put("estimators_.1", LogisticRegression()),
        "found a LogisticRegression in a",
    ),
    "a tuple of trees": (
        put("estimators_", lambda forest: tuple(forest.estimators_)),
        "estimators_ of type tuple",
    ),
    "no trees": (put("estimators_", []), "found a forest without trees"),
    "a child far away": (set_nodes(left_child=(0, 2**40)), "child out of range"),
    "a child before": (set_nodes(right_child=(0, -7)), "child out of range"),
    "a child that is its parent": (set_nodes(left_child=(0, 0)), "child out of range"),
    "two children that are one": (set_nodes(right_child=(0, 1)), "have no or several parents"),
    "a column far away": (set_nodes(feature=(0, 10**6)), "column out of range"),
    "a column before": (set_nodes(feature=(0, -3)), "column out of range"),
    "a threshold of NaN": (set_nodes(threshold=(0, np.nan)), "threshold of NaN"),
    "a leaf of NaN": (set_nodes(value=("leaf", np.nan)), "leaf of nan"),
    "a leaf of infinity": (set_nodes(value=("leaf", [np.inf, 0, 0])), "leaf of 0 to inf"),
    "a negative leaf": (
        set_nodes(value=("leaf", [-0.5, 1, 0.5])),
        "leaf of -0.5 to 1, expected probabilities",
    ),
    "a leaf of counts": (set_nodes(value=("leaf", [3, 0, 0])), "leaf of 0 to 3, expected probabilities"),
    "a billion classes": (put("n_classes_", 10**9), "n_classes_ 1000000000, expected 3"),
    "two outputs": (put("n_outputs_", 2), "n_outputs_ 2, expected 1"),
    "a truth as number": (put("n_outputs_", True), "n_outputs_ True, expected 1"),
    "classes as text": (put("classes_", "abc"), "found classes of type str, expected integers"),
    "classes of fractions": (put("classes_", np.array([1.0, 3.0, 7.0])), "expected integers"),
    "classes of an estimator": (put("classes_", SCALER), "found classes of type StandardScaler"),
    "other columns": (put("n_features_in_", 10**9), "1000000000 columns, expected 6"),
}

BOOSTING = {
    "a preprocessor": (
        put("_preprocessor", SCALER),
        "_preprocessor of type StandardScaler, expected NoneType",
    ),
    "other bins": (put("_bin_mapper", SCALER), "_bin_mapper of type StandardScaler, expected _BinMapper"),
    "categories": (put("_bin_mapper.is_categorical_", np.ones(6, np.uint8)), "found categorical columns"),
    "categories of few": (
        put("_bin_mapper.is_categorical_", np.zeros(1, np.uint8)),
        "found categorical columns",
    ),
    "no categories": (put("_bin_mapper.is_categorical_", None), "is_categorical_ of type NoneType"),
    "another loss": (put("_loss", SCALER), "_loss of type StandardScaler, expected HalfMultinomialLoss"),
    "another link": (put("_loss.link", SCALER), "link of type StandardScaler, expected MultinomialLogit"),
    "no loss": (put("_loss", None), "_loss of type NoneType"),
    "trees without end": (
        put("n_trees_per_iteration_", 10**12),
        "n_trees_per_iteration_ 1000000000000, expected 3",
    ),
    "a baseline of one": (put("_baseline_prediction", np.zeros((1, 1))), "_baseline_prediction float64"),
    "a baseline of NaN": (
        put("_baseline_prediction", np.full((1, 3), np.nan)),
        "NaN or infinity in _baseline",
    ),
    "a predictor that is a tree": (put("_predictors.0.0", SCALER), "found a StandardScaler in boosting"),
    "predictors of text": (put("_predictors.0", "abc"), "other than 3 trees per iteration"),
    "a child far away": (set_predictor(left=(0, 2**31)), "child out of range"),
    "a child that is its parent": (set_predictor(right=(0, 0)), "child out of range"),
    "two children that are one": (set_predictor(right=(0, 1)), "have no or several parents"),
    "a column far away": (set_predictor(feature_idx=(0, 10**9)), "column out of range"),
    "a threshold of infinity": (set_predictor(num_threshold=(0, np.inf)), "threshold of NaN or infinity"),
    "a leaf of NaN": (set_predictor(value=("leaf", np.nan)), "leaf of NaN or infinity"),
    "categorical splits": (set_predictor(is_categorical=(0, 1)), "categorical splits"),
    "nodes of another kind": (put("_predictors.0.0.nodes", np.zeros(4)), "Cannot cast array data"),
}

LINEAR = {
    ("logistic", "weights of NaN"): (put("-1.coef_", np.full((3, 6), np.nan)), "NaN or infinity in coef_"),
    ("logistic", "fewer weights"): (put("-1.coef_", np.zeros((3, 5))), r"coef_ float64 \(3, 5\), expected"),
    ("logistic", "weights of text"): (put("-1.coef_", "abc"), "coef_"),
    ("logistic", "one intercept"): (put("-1.intercept_", np.zeros(1)), r"intercept_ float64 \(1,\)"),
    ("logistic", "a divisor of 0"): (put("0.scale_", np.zeros(6)), "the divisor 0, expected more than 0"),
    ("logistic", "no divisor"): (put("0.scale_", None), "scale_ of type NoneType, expected ndarray"),
    ("logistic", "no scaling"): (put("0.with_std", False), "found a scaler that does not standardise"),
    ("logistic", "a mean of one"): (put("0.mean_", np.zeros(1)), "mean_ float64"),
    ("logistic", "other steps"): (put("steps.0", ("scaler", LogisticRegression())), "expected kind logistic"),
    ("logistic", "damaged steps"): (put("steps.0", 7), "found a pipeline of damaged steps"),
    ("logistic", "three steps"): (lambda p: Pipeline([("a", SCALER), *p.steps]), "expected kind logistic"),
    ("ridge", "weights of infinity"): (put("-1.coef_", np.full((3, 6), np.inf)), "NaN or infinity in coef_"),
    ("ridge", "another binarizer"): (
        put("-1._label_binarizer", SCALER),
        "_label_binarizer of type StandardScaler",
    ),
    ("mlp", "another activation"): (
        put("-1.activation", "tanh"),
        "activations 'tanh' and 'softmax', expected relu",
    ),
    ("mlp", "an activation that is none"): (put("-1.activation", [1]), r"activations \[1\]"),
    ("mlp", "another ending"): (put("-1.out_activation_", "logistic"), "expected relu and softmax"),
    ("mlp", "a billion layers"): (put("-1.n_layers_", 10**9), "n_layers_ 1000000000, expected 4"),
    ("mlp", "a billion outputs"): (put("-1.n_outputs_", 10**9), "n_outputs_ 1000000000, expected 3"),
    ("mlp", "layers that do not fit"): (
        put("-1.coefs_.1", np.zeros((7, 4), np.float32)),
        r"coefs_\[1\] float32",
    ),
    ("mlp", "a layer of NaN"): (
        put("-1.coefs_.1", np.full((5, 4), np.nan, np.float32)),
        r"NaN or infinity in coefs_\[1\]",
    ),
    ("mlp", "a layer of text"): (put("-1.coefs_.1", "x"), "found layer 1 of type str, expected an array"),
    ("mlp", "a bias too few"): (put("-1.intercepts_", []), "found 3 layers and 0 biases"),
    ("vote", "two forests"): (put("estimators_.1", lambda vote: deepcopy(vote[0])), "expected kind logistic"),
    ("vote", "one voter"): (
        lambda vote: vote.estimators_.pop() and None,
        "a vote of 1 estimators, expected 2",
    ),
    ("vote", "another classifier"): (
        lambda vote: vote.estimators_[0],
        "found a RandomForestClassifier, expected",
    ),
}

HELD = [
    *(("forest", name, *case) for name, case in FOREST.items()),
    *(("boosting", name, *case) for name, case in BOOSTING.items()),
    *((kind, name, *case) for (kind, name), case in LINEAR.items()),
]


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize(("kind", "name", "change", "match"), HELD, ids=[f"{k}: {n}" for k, n, *_ in HELD])
def test_an_estimator_that_holds_something_else_is_refused(kind, name, change, match):
    refused(with_estimator(kind, change), match)


# -- what the file of an estimator describes -------------------------------------------------------------


def tree_of(**arguments):
    """Return a change of the arguments of the first tree's constructor: columns, classes or outputs."""

    def change(schema, inner):
        content = nodes(schema, "TreeNode")[0]["__reduce__"]["args"]["content"]
        for position, name in enumerate(("columns", "classes", "outputs")):
            if name in arguments:
                if name == "classes":
                    inner[content[1]["file"]] = arguments["classes"]
                else:
                    content[position] = plain(arguments[name])

    return change


def no_state(schema, inner):
    del nodes(schema, "TreeNode")[0]["content"]["content"]["nodes"]


def circle(schema, inner):
    forest = schema["content"]["content"]
    forest["estimators_"]["content"].append(listed([], forest["estimators_"]["__id__"]))


def doubling(schema, inner):
    node = listed([plain(1)], 900)
    for number in range(901, 950):
        node = listed([node, listed([], node["__id__"])], number)
    schema["content"]["content"]["estimator_params"] = node


def shared(schema, inner):
    """Let the arguments of a tree be those of an earlier, harmless-looking list with the same number."""
    tree = nodes(schema, "TreeNode")[0]
    other = deepcopy(tree["__reduce__"]["args"])
    other["content"][2] = plain(10**6)
    schema["content"]["content"] = {"earlier": other, **schema["content"]["content"]}


def replaced(key, node):
    def change(schema, inner):
        schema["content"]["content"][key] = node

    return change


def of_type(loader, kind, **entries):
    module, _, name = kind.rpartition(".")
    return {"__loader__": loader, "__module__": module, "__class__": name, **entries}


def deep(schema, inner):
    node = plain(1)
    for _ in range(200):
        node = listed([node])
    schema["content"]["content"]["estimator_params"] = node


def pool(schema, inner):
    seed = nodes(schema, "RandomGeneratorNode")[0]["content"]["seed_seq"]
    seed["content"]["pool_size"] = plain(2 * 10**9)


def array_of(header, content=b""):
    def change(schema, inner):
        inner[nodes(schema, "NdArrayNode")[0]["file"]] = npy(header, content)

    return change


ONE = np.ones(1, np.int64).tobytes()

DESCRIBED = {
    "many outputs": ("forest", tree_of(outputs=10**6), "tree of other arguments"),
    "outputs beyond memory": ("forest", tree_of(outputs=2**60), "tree of other arguments"),
    "columns of text": ("forest", tree_of(columns="six"), "without a number of columns"),
    "no classes": (
        "forest",
        tree_of(classes=npy("{'descr': '<i8', 'fortran_order': False, 'shape': (0,), }")),
        "tree of several outputs",
    ),
    "2^60 classes": (
        "forest",
        tree_of(classes=npy("{'descr': '<i8', 'fortran_order': False, 'shape': (1,), }", ONE[:7] + b"\x10")),
        "tree of several outputs",
    ),
    "a tree without nodes": ("forest", no_state, "estimator_all"),
    "an object within itself": ("forest", circle, "found two objects with number"),
    "references that double": ("forest", doubling, "found two objects with number|nested"),
    "arguments of another tree": ("forest", shared, "found"),
    "a function": (
        "forest",
        replaced("criterion", of_type("FunctionNode", "os.system")),
        "found types os.system",
    ),
    "a type": (
        "forest",
        replaced("criterion", of_type("TypeNode", "subprocess.Popen")),
        "types subprocess.Popen",
    ),
    "a trusted function": (
        "forest",
        replaced("criterion", of_type("FunctionNode", "numpy.exp")),
        "types numpy.exp",
    ),
    "a bound method": (
        "forest",
        replaced(
            "criterion", of_type("MethodNode", "builtins.str", content={"func": "join", "obj": plain("")})
        ),
        "found types builtins.str",
    ),
    "a trusted estimator": (
        "forest",
        replaced("criterion", of_type("ObjectNode", "sklearn.svm._classes.SVC", content=plain(None))),
        "found types sklearn.svm._classes.SVC",
    ),
    "a terminal's command": (
        "forest",
        replaced("criterion", of_type("ObjectNode", "sklearn.\x1b[31m\n.A", content=plain(None))),
        r"found types sklearn\.\\x1b\[31m\\n\.A",
    ),
    "a reference": (
        "forest",
        replaced("criterion", of_type("CachedNode", "None.None", __id__=1)),
        "types None.None",
    ),
    "deep lists": ("forest", deep, "nested more than 60 deep"),
    "a number of an object": (
        "forest",
        replaced("criterion", {**plain(1), "__id__": "x"}),
        "the number x of an object",
    ),
    "an endless integer": (
        "forest",
        replaced("criterion", {**plain(1), "content": "9" * 9000}),
        "Exceeds the limit|integer",
    ),
    "a long text": (
        "forest",
        replaced("criterion", {**plain(1), "content": "9" * 20_000}),
        "value of 20000 characters",
    ),
    "a value that is a list": (
        "forest",
        replaced("criterion", {**plain(1), "content": [1]}),
        "expected a forest",
    ),
    "an entry missing": (
        "forest",
        replaced("criterion", {"__loader__": "JsonNode"}),
        "found damaged entries",
    ),
    "entries of other types": ("forest", replaced("criterion", 7), "found damaged entries"),
    "terabytes": (
        "forest",
        array_of("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"),
        "0 bytes for float64 .1000000000000,., expected 8000000000000",
    ),
    "Python objects": (
        "forest",
        array_of("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"),
        "found Python objects, expected numbers",
    ),
    "text": (
        "forest",
        array_of("{'descr': '<U1', 'fortran_order': False, 'shape': (1,), }", b"aaaa"),
        "found <U1",
    ),
    "a huge pool": ("boosting", pool, "random generator with another pool"),
}


@pytest.mark.parametrize(("kind", "change", "match"), DESCRIBED.values(), ids=DESCRIBED)
def test_a_file_that_describes_something_else_is_refused(kind, change, match):
    refused(with_schema(kind, change), match)


def test_a_description_of_many_values_is_refused():
    inner = members(members(small("forest"))[MEMBER])
    inner["schema.json"] = b"[" + b"[]," * 5_000_000 + b"[]]"
    refused(
        crafted.with_members(small("forest"), estimator_all__skops=zip_bytes(inner)),
        "more than 2,500,000 values",
    )
    inner["schema.json"] = b"[" * 100_000
    refused(crafted.with_members(small("forest"), estimator_all__skops=zip_bytes(inner)), "nested too deeply")


# -- the archive -----------------------------------------------------------------------------------------


def info(**changes):
    return lambda: with_json(small("forest"), "info.json", lambda values: values.update(changes))


def table(change):
    return lambda: with_json(small("forest"), "classes.json", change)


def recipe(**changes):
    return lambda: with_json(small("forest"), "recipe.json", lambda values: values.update(changes))


def bomb():
    return crafted.expanding(small("forest"), "window.npy")


def lying(member, claimed):
    """A member that expands to 400 MiB and claims little."""

    def make():
        data = crafted.expanding(small("forest"), member)
        return crafted.claiming(data, member, claimed)

    return make


def lying_inside():
    inner = crafted.claiming(crafted.expanding(members(small("forest"))[MEMBER], "0.npy"), "0.npy", 100)
    return crafted.with_members(small("forest"), estimator_all__skops=inner)


def many(count):
    def make():
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for number in range(count):
                archive.writestr(f"{number}.npy", b"")
        return stream.getvalue()

    return make


def compressed(method):
    def make():
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", method) as archive:
            for name, data in members(small("forest")).items():
                archive.writestr(name, data)
        return stream.getvalue()

    return make


ODD = [None, True, 3, -1, 2.5, "text", [], {}, [[1]], {"a": 1}, "\x1b[31m", 10**30]

ARCHIVES = {
    "a member of 400 MiB": (bomb, "found .* bytes, expected at most"),
    "an array that claims 10 KB": (lying("window.npy", 10_000), "damaged data|bytes"),
    "a description that claims 1 KB": (lying("info.json", 1000), "info.json"),
    "an array inside that claims 100 bytes": (lying_inside, "0.npy: found"),
    "a hundred members": (many(100), "found 100 members, expected at most 64"),
    "LZMA": (compressed(zipfile.ZIP_LZMA), "compressed by method 14, expected it stored or deflated"),
    "bzip2": (compressed(zipfile.ZIP_BZIP2), "compressed by method 12, expected it stored or deflated"),
    "an encrypted member": (
        lambda: crafted.flagged(small("forest"), {(b"PK\1\2", 8): b"\1\0"}),
        "encrypted, expected it stored or deflated",
    ),
    "a member twice": (
        lambda: small("forest").replace(b"window.npy", b"classes.js"),
        "found the member classes.js, expected only",
    ),
    "a terabyte as window": (
        lambda: crafted.with_members(
            small("forest"),
            window__npy=npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"),
        ),
        "window.npy: found float64 .1000000000000,., expected numbers of shape .2,.",
    ),
    "a window of NaN": (
        lambda: crafted.with_members(
            small("forest"),
            window__npy=npy(
                "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }", np.full(2, np.nan).tobytes()
            ),
        ),
        "window.npy: found NaN",
    ),
    "lists without end": (
        lambda: crafted.with_members(small("forest"), info__json=b"[" * 10**6),
        "info.json: found JSON that is nested too deeply",
    ),
    "a billion as value": (
        table(lambda entries: entries[2].update(value=10**9)),
        r"classes.json: classes\[2\].value: found 1000000000, expected a number less than or equal to 65535",
    ),
    "values out of order": (table(lambda entries: entries.reverse()), "found values out of order"),
    "a value twice": (table(lambda entries: entries[1].update(value=1)), "found values out of order"),
    "a terminal's command as name": (
        table(lambda entries: entries[0].update(name="a\x1b[31m")),
        r"classes\[0\].name: found 'a\\x1b\[31m', expected .*text without control characters",
    ),
    "an empty name": (table(lambda entries: entries[0].update(name="")), r"classes\[0\].name: found ''"),
    "a long name": (
        table(lambda entries: entries[0].update(name="a" * 10**6)),
        "text of at most 200 characters",
    ),
    "a wide colour": (
        table(lambda entries: entries[0].update(colour=[1, 2, 256])),
        r"colour\[2\]: found 256",
    ),
    "another class": (
        table(lambda entries: entries[0].update(value=2)),
        r"classes \(1, 3, 7\), expected \(2, 3, 7\)",
    ),
    "no classes": (table(lambda entries: []), "classes: found"),
    "a million channels": (info(channels=["a"] * 10**6), "a list of at most 50000 values"),
    "another digest": (info(weights_sha256="abc"), "weights_sha256: found 'abc'"),
    "columns of a member": (
        info(members=[{"name": "all", "columns": [0, 10**9]}]),
        "found columns 0..1000000000",
    ),
    "training on text": (info(trained_on="abc"), "trained_on: found damaged entries"),
    "training on numbers": (info(trained_on=[1]), "trained_on: found damaged entries"),
    "no training": (info(trained_on=None), "trained_on: found damaged entries"),
    "half a character": (info(versions={"a": "\udc80"}), "found text that is no Unicode"),
    "a member's name": (info(members=[{"name": "../x", "columns": [0, 6]}]), r"found estimators \['../x'\]"),
    "a billion trees": (
        recipe(classifier={"trees": 10**9}),
        "recipe.json: classifier.trees: found 1000000000",
    ),
    "another classifier": (recipe(classifier={"kind": "vote"}), "found a RandomForestClassifier, expected"),
    "a tiny scale": (recipe(features={"deep": {"input_scale": 1e-9}}), "input_scale: found 1e-09"),
}


@pytest.mark.parametrize(("make", "match"), ARCHIVES.values(), ids=ARCHIVES)
def test_an_archive_of_something_else_is_refused(make, match):
    refused(make(), match)


@pytest.mark.parametrize(
    "key", ["format", "format_version", "weights_sha256", "channels", "versions", "members"]
)
def test_odd_values_are_refused(key):
    for value in ODD:
        if (key, value) in (("weights_sha256", None), ("versions", {}), ("format_version", True)):
            continue
        refused(info(**{key: value})(), "m.hrvol")


@pytest.mark.parametrize("member", ["info.json", "recipe.json", "classes.json"])
def test_odd_documents_are_refused(member):
    for value in ODD:
        refused(
            crafted.with_members(small("forest"), **{member.replace(".", "__"): json.dumps(value).encode()}),
            "m.hrvol",
        )


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.hrvol")
    sparse = tmp_path / "sparse.hrvol"
    with sparse.open("wb") as stream:
        stream.truncate(2**40)
    for path, match in (
        (tmp_path / "pipe.hrvol", "found a named pipe, expected a"),
        ("/dev/zero", "found a device, expected a"),
        (tmp_path, "found a folder, expected a"),
        (sparse, "found 1,099,511,627,776 bytes, expected at most"),
        ("a\0b", "expected the path of a"),
    ):
        with pytest.raises(ModelError, match=match) as caught:
            load_model(path)
        assert str(caught.value).isprintable()
