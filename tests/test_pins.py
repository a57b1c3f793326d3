"""The versions that the GPU stack is pinned to: pip's and conda's are the same, and the core admits them.

That they resolve is a step of ``.ci/run``; that conda's do was not tried.
"""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).parents[1]
RAPIDS = "26.10"
CONDA_NAMES = {"torch": "pytorch-gpu"}
OF_CUML_DASK = ("dask-cudf", "raft-dask")
"""What conda has instead of the extra ``dask`` of cuML."""


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def core(project):
    found = [Requirement(text) for text in project["dependencies"]]
    return {one.name: one for one in found}


@pytest.fixture(scope="module")
def gpu(project):
    found = [Requirement(text) for text in project["optional-dependencies"]["gpu"]]
    return {one.name: one for one in found if one.name != "hrvol"}


@pytest.fixture(scope="module")
def conda():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    return dict(specified(text) for text in listed if isinstance(text, str))


def specified(text):
    """Return name and versions of a pin of conda's, in pip's notation: there ``=1.2`` is ``==1.2.*``."""
    name, versions = re.fullmatch(r"([a-z0-9-]+)(.*)", text).groups()
    return name, SpecifierSet(re.sub(r"^=([0-9.]+)$", r"==\1.*", versions))


def conda_name(name):
    plain = re.sub(r"-cu(da)?13x?$", "", name)
    return CONDA_NAMES.get(plain, plain)


def test_pins_of_conda_are_read_as_conda_means_them():
    assert specified("cuml=26.10") == ("cuml", SpecifierSet("==26.10.*"))
    assert specified("cupy>=14.0.1,!=14.1.0") == ("cupy", SpecifierSet("!=14.1.0,>=14.0.1"))
    assert specified("pip") == ("pip", SpecifierSet())


def test_pip_and_conda_pin_the_same_versions(gpu, conda):
    assert len(gpu) >= 7
    for name, wanted in gpu.items():
        assert conda.get(conda_name(name)) == wanted.specifier, name
    for name in (*OF_CUML_DASK, "cuml", "nvforest", "rmm", "dask-cuda"):
        assert conda[name] == SpecifierSet(f"=={RAPIDS}.*"), name
    assert gpu["cuml-cu13"].extras == {"dask"}


def test_one_cuda_version_throughout(gpu, conda):
    assert conda["cuda-version"] == SpecifierSet("==13.*")
    suffixed = [name for name in gpu if re.search(r"-cu(da)?\d", name)]
    assert len(suffixed) == 4
    assert all(re.search(r"-cu(da)?13x?$", name) for name in suffixed)


def test_what_conda_installs_satisfies_the_core(project, core, conda):
    python = SpecifierSet(project["requires-python"])
    assert python.contains(lowest(conda["python"]))
    shared = {name: conda[conda_name(name)] for name in core if conda_name(name) in conda}
    assert {"torch", "torchvision", "timm", "zarr", "numpy", "scikit-learn", "xarray"} <= set(shared)
    for name, versions in shared.items():
        assert core[name].specifier.contains(lowest(versions)), name
    slurm = Requirement(project["optional-dependencies"]["slurm"][0])
    assert conda[slurm.name] == slurm.specifier


def lowest(versions):
    return min(Version(one.version.removesuffix(".*")) for one in versions if one.operator in (">=", "=="))


def test_the_core_admits_what_rapids_pins(core, gpu):
    # dask-cuda 26.10 wants rapids-dask-dependency 26.10: dask and distributed >=2026.7.1,<2026.7.2.
    for name in ("dask", "distributed"):
        assert core[name].specifier.contains("2026.7.1"), name
    # the newest there is for Python 3.11, on which RAPIDS runs too
    assert core["zarr"].specifier.contains("3.1.6")
    # numba of RAPIDS 26.10 stops below numpy 2.5
    assert core["numpy"].specifier.contains("2.4.6")
    assert not gpu["numpy"].specifier.contains("2.5.0")


def test_ci_resolves_every_python_that_is_promised(project):
    said = (ROOT / ".ci" / "run").read_text()
    versions = re.search(r"for version in ([0-9. ]+); do", said).group(1).split()
    assert versions == ["3.11", "3.12", "3.13"]
    assert SpecifierSet(project["requires-python"]).contains(versions[0])
    assert "--extra gpu" in said
