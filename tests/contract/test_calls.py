"""The names and signatures that hrvol uses exist in the wheels that the extra ``gpu`` installs."""

import tomllib
import zipfile
from pathlib import Path

import pytest
from contract.binding import problems
from contract.calls import PACKAGES, Source, Unreadable, outside_of_functions, uses
from contract.signatures import Missing, Wheels
from contract.sources import parse_arguments
from contract.wheels import PINS, wheel
from packaging.requirements import Requirement

from hrvol.segment.estimators.keywords import FOREST, KMEANS, LOGISTIC

HRVOL = Path(__file__).parents[2] / "hrvol"


@pytest.fixture(scope="module")
def wheels():
    return Wheels({name: wheel(name) for name in ("cuml", "nvforest", "dask_cuda", "rmm", "cupy")})


@pytest.fixture(scope="module")
def used():
    return uses(HRVOL)


def _uses(text, tmp_path):
    return list(Source(tmp_path / "made.py", tmp_path, text).uses())


def test_every_call_of_a_gpu_package_binds_to_its_real_signature(used, wheels):
    assert problems(used, wheels) == []
    called = {use.path for use in used if use.arguments is not None}
    # The collector must find calls that are known to be there.
    assert {
        "cuml.ensemble.RandomForestClassifier",
        "cuml.ensemble.RandomForestClassifier().fit().as_sklearn",
        "cuml.linear_model.LogisticRegression",
        "cuml.cluster.KMeans",
        "nvforest.load_from_sklearn",
        "cupy.from_dlpack",
    } <= called
    assert {use.path.partition(".")[0] for use in used} <= PACKAGES


def test_keywords_of_the_tables_are_collected(used):
    keywords = {use.path: set(use.arguments[1]) for use in used if use.arguments}
    assert set(FOREST) < keywords["cuml.ensemble.RandomForestClassifier"]
    assert set(LOGISTIC) < keywords["cuml.linear_model.LogisticRegression"]
    assert set(KMEANS) < keywords["cuml.cluster.KMeans"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("cuml.cluster.KMeans(n_clusters=3, n_jobs=1)", "unexpected keyword argument 'n_jobs'"),
        ("cuml.cluster.KMeans(3)", "too many positional arguments"),
        ("cuml.cluster.KMeans(**{'n_clusters': 3, **OPTIONS})", "unexpected keyword argument 'algorithm'"),
        ("cuml.fil.ForestInference()", "module cuml has no fil"),
        ("cuml.ensemble.RandomForestClassifier().fit(x, y).as_skl()", "RandomForestClassifier has no as_skl"),
        ("cuml.ensemble.RandomForestClassifier().fit(x)", "missing a required argument: 'y'"),
        ("model = cuml.cluster.KMeans(); model.fit(x); model.centers_", "KMeans has no centers_"),
        ("nvforest.load_from_sklearn(x, threads=2)", "unexpected keyword argument 'threads'"),
        ("dask_cuda.LocalCUDACluster(rmm_asynchronous=True)", r"forwards \['rmm_asynchronous'\]"),
        ("cupy.from_dlpack(x, stream=1)", "unexpected keyword argument 'stream'"),  # a compiled module
        ("cupy.cuda.Device(number=1)", "unexpected keyword argument 'number'"),
        ("cupy.asnumpy(x, dtype=int)", "unexpected keyword argument 'dtype'"),
        ("rmm.mr.CudaAsyncMemoryResource(pool=1)", "unexpected keyword argument 'pool'"),
        ("f = cupy.asarrays", "module cupy has no asarrays"),
    ],
)
def test_a_call_that_would_fail_is_a_problem(line, message, wheels, tmp_path):
    imports = "import cuml.cluster, cuml.ensemble, cupy, dask_cuda, nvforest, rmm"
    text = f"OPTIONS = {{'algorithm': 1}}\ndef run(x, y):\n    {imports}\n    {line}\n"
    lines = problems(_uses(text, tmp_path), wheels)
    assert lines
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(lines[0])


def test_correct_calls_are_no_problems(wheels, tmp_path):
    text = """
OPTIONS = {"rmm_async": True, "protocol": "tcp"}

def run(x, y, parts):
    from cuml.cluster import KMeans as Clusters
    import cupy as cp, dask_cuda, nvforest
    with cp.cuda.Device(1) as device:
        device.synchronize()
    options = {"n_clusters": 3}
    options["tol"] = 1.0
    model = Clusters(**options)
    centres = cp.asnumpy(model.fit(x).cluster_centers_)
    dask_cuda.LocalCUDACluster(**OPTIONS | {"n_workers": 2, "silence_logs": 40, "death_timeout": 9})
    nvforest.load_from_sklearn(y, device="cpu").predict_proba(x)
    return lambda: cp.concatenate(*parts), centres
"""
    collected = _uses(text, tmp_path)
    assert problems(collected, wheels) == []
    assert ("cuml.cluster.KMeans", (0, ("n_clusters", "tol"))) in [(u.path, u.arguments) for u in collected]
    assert any(use.path == "cupy.concatenate" and use.some for use in collected)
    assert any(use.path == "cupy.cuda.Device().synchronize" for use in collected)


@pytest.mark.parametrize(
    "options",
    ["given", "{name: 1 for name in names}", "make(given)", "{**given}", "{given: 1}", "vars(given)"],
)
def test_options_known_only_at_run_time_are_refused(options, tmp_path):
    text = f"def run(given, names):\n    import cupy\n    cupy.array(given, **{options})\n"
    with pytest.raises(Unreadable, match=r"made\.py:3: cupy\.array"):
        _uses(text, tmp_path)


def test_options_are_read_from_constants_functions_and_other_modules(tmp_path):
    folder = tmp_path / "hrvol"
    folder.mkdir()
    (folder / "tables.py").write_text("TABLE = {'a': 'x', 'b': 'y'}\n")
    (folder / "use.py").write_text(
        "from hrvol.tables import TABLE as T\n"
        "def named(table, values):\n    return {key: values[key] for key in table}\n"
        "def more(c):\n    if c:\n        return {'d': 1}\n    return dict(e=2)\n"
        "def run(c):\n    import rmm\n    rmm.reinitialize(1, **named(T, c), **more(c), f=3)\n"
    )
    (use,) = [use for use in uses(folder) if use.arguments]
    assert (use.arguments[0], sorted(use.arguments[1])) == (1, ["a", "b", "d", "e", "f"])
    assert use.where == "hrvol/use.py:10"


def test_a_variable_with_two_values_is_not_followed(tmp_path):
    text = "import rmm\nif rmm:\n    a = rmm.mr\nelse:\n    a = rmm.statistics\na.nothing()\n"
    assert not any("nothing" in use.path for use in _uses(text, tmp_path))


def test_names_that_hide_an_import_are_not_followed(tmp_path):
    text = "import rmm\ndef run(rmm):\n    return rmm.nothing\ndef go():\n    return rmm.something\n"
    assert [use.path for use in _uses(text, tmp_path)] == ["rmm", "rmm.something"]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("self, *, a=1, b=(2, 3), **rest", "(self, *, a=None, b=None, **rest)"),
        ("int n, double *x, str s not None, bool flag=True", "(n, x, s, flag=None)"),
        ("a: int, b: 'x, y' = ',', *args", "(a, b=None, *args)"),
        ("ndarray[float, ndim=2] m,  # a comment, with a comma\n  float[:, ::1] v=None,", "(m, v=None)"),
        ("", "()"),
    ],
)
def test_argument_lists_of_cython_are_read(text, plain):
    assert str(parse_arguments(text)) == plain


def test_a_module_of_cython_is_read(tmp_path):
    source = '''
from inner.helper import (
    Base,
    twice as double,
)
cimport nothing.at_all

cdef extern from "x.h":
    void far(int a) except +

cdef class Model(Base):
    """def not_a_method(self): pass"""
    kind = "x"
    cdef int hidden

    def __init__(self, *, n=1<<15, init='a, b',  # comment ) here
                 out=None):
        self.found_ = n

    @staticmethod
    def made(int n):
        return n

    cpdef double go(self, double x, y=None):
        return x

def run(X, bool fast=True) -> "Model":
    pass
'''
    with zipfile.ZipFile(tmp_path / "made.whl", "w") as archive:
        archive.writestr(
            "made/__init__.py", "from made.core import Model, run, double\nfrom .inner import *\n"
        )
        archive.writestr("made/core.pyx", source.replace("inner.helper", "made.inner.helper"))
        archive.writestr("made/inner/__init__.py", "if True:\n    from .helper import other\n")
        archive.writestr(
            "made/inner/helper.py",
            "class Base:\n    def as_other(self, a): ...\n"
            "    @property\n    def size(self): ...\n"
            "def twice(x): ...\nother = twice\n",
        )
    wheels = Wheels({"made": tmp_path / "made.whl"})

    def signature(path):
        return str(wheels.signature(wheels.lookup(path)))

    assert signature("made.Model") == "(*, n=None, init=None, out=None)"
    assert signature("made.Model.made") == "(n)"
    assert signature("made.Model().go") == "(x, y=None)"
    assert signature("made.Model().as_other") == "(a)"
    assert signature("made.run") == "(X, fast=None)"
    assert signature("made.double") == signature("made.other") == "(x)"
    for name in ("found_", "size", "kind"):
        wheels.lookup(f"made.Model().{name}")
    for path in ("made.Model.not_a_method", "made.far", "made.Model().nothing", "made.missing", "absent.x"):
        with pytest.raises(Missing):
            wheels.lookup(path)
    wheels.lookup("made.run().from_a_class_that_follows_model")


def test_the_pinned_wheels_satisfy_the_extra():
    project = tomllib.loads((HRVOL.parent / "pyproject.toml").read_text())["project"]
    requirements = map(Requirement, project["optional-dependencies"]["gpu"])
    specifiers = {requirement.name: requirement.specifier for requirement in requirements}
    for name in ("cuml", "nvforest", "dask_cuda", "rmm", "cupy"):
        pinned = Requirement(PINS[name].requirement)
        (version,) = pinned.specifier
        assert specifiers[pinned.name].contains(version.version), f"{pinned} is not {specifiers[pinned.name]}"


def test_gpu_packages_are_imported_within_functions_only():
    for file in HRVOL.rglob("*.py"):
        assert list(outside_of_functions(file)) == [], file


def test_an_import_outside_of_a_function_is_collected(tmp_path):
    text = "def f():\n    import rmm\ntry:\n    from cuml import KMeans\nexcept E:\n    0\n"
    (tmp_path / "made.py").write_text(text)
    assert list(outside_of_functions(tmp_path / "made.py")) == [4]
