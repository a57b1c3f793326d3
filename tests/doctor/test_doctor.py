"""``hrvol doctor``: its results on this machine, and on simulated ones."""

import json
import os

import pytest
import torch
from click.testing import CliRunner

from hrvol.cli import main
from hrvol.doctor import gpus
from hrvol.doctor.examine import WATCHED, engines, examine
from hrvol.doctor.gpus import Gpu, Torch, probe_torch
from hrvol.doctor.isolated import IsolatedProcess, import_module
from hrvol.doctor.packages import MissingRequirement, conflicts, extras_of, find, lacks

GIB = 2**30
A100 = Gpu("NVIDIA A100", "GPU-1", 80 * GIB, 79 * GIB, (8, 0))
SMI = "580.65.06, NVIDIA A100, GPU-1, 81920\n580.65.06, NVIDIA A100, GPU-2, 81920\n"
TOO_NEW = MissingRequirement("rapids-dask-dependency 26.10.0", "dask<2026.7.2,>=2026.7.1", "2026.8.0")
PACKAGES = {
    "hrvol 1.0": (
        "dask>=2026.7.1",
        "gone>=2",
        "dask-cuda==26.10.*; extra == 'gpu'",
        "cuml-cu13[dask]==26.10.*; extra == 'gpu'",
        "s3fs>=2; extra == 'io'",
    ),
    "dask 2026.8.0": (),
    "dask-cuda 26.10.0": ("rapids-dask-dependency==26.10.*", "nowhere>=3"),
    "rapids-dask-dependency 26.10.0": ("dask>=2026.7.1,<2026.7.2",),
    "s3fs 1.5": (),
    "cuml 26.10.0": (),  # as conda names it
}


@pytest.fixture
def packages(tmp_path):
    """An environment whose dask is newer than RAPIDS wants, as ``pip install --no-deps`` leaves it."""
    for package, requires in PACKAGES.items():
        name, version = package.split()
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        lines = [f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}"]
        lines += [f"Provides-Extra: {extra}" for extra in ("gpu", "io")]
        lines += [f"Requires-Dist: {one}" for one in requires]
        (folder / "METADATA").write_text("\n".join(lines))
    return [str(tmp_path)]


@pytest.fixture(scope="module")
def here():
    """Exit code and JSON of the command on this machine."""
    done = CliRunner().invoke(main, ["doctor", "--json"])
    return done.exit_code, json.loads(done.stdout)


def test_the_engines_of_the_cpu_are_ready_here(here):
    code, found = here
    problems = [check for check in found["checks"] if check["state"] == "problem"]
    assert (code, found["healthy"], problems) == (0, True, [])
    assert (
        found["engines"]["serial"]
        == found["engines"]["local"]
        == {"ready": True, "missing": [], "remedy": None}
    )
    assert {"gpu", "io", "crf", "napari"} <= set(found["extras"])
    by_name = {check["name"]: check for check in found["checks"]}
    assert {"Python", "hrvol", "driver", "weights", "disk", "memory", *(one[0] for one in WATCHED)} <= set(
        by_name
    )
    assert by_name["torch"]["found"] == torch.__version__.partition("+")[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_the_engine_cuda_says_what_it_lacks(here):
    cuda = here[1]["engines"]["cuda"]
    assert not cuda["ready"]
    assert cuda["missing"][-1] == "a GPU that torch can use"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_each_gpu_is_found_and_computes(here):
    gpus = [check for check in here[1]["checks"] if check["name"].startswith("GPU")]
    assert len(gpus) == torch.cuda.device_count()
    assert all(check["state"] == "ok" and "GPU-" in check["found"] for check in gpus)


def test_what_a_package_lacks_is_reported_for_itself_and_for_each_extra(packages):
    assert extras_of("hrvol", packages) == ("gpu", "io")
    assert [str(lack) for lack in lacks("hrvol", packages)] == ["gone>=2 (not installed)"]
    assert [str(lack) for lack in lacks("hrvol", packages, "io")] == ["s3fs>=2 (found 1.5)"]
    assert lacks("hrvol", packages, "gpu") == ()
    assert find("cuml-cu13", packages).version == "26.10.0"
    assert find("nvforest-cu13", packages) is None


def test_a_package_is_the_first_on_the_path_that_has_metadata(packages, tmp_path):
    first = tmp_path / "first"
    for folder in ("s3fs-3.0.dist-info", "dask-1.0.dist-info"):
        (first / folder).mkdir(parents=True)
    text = "Metadata-Version: 2.4\nName: s3fs\nVersion: 3.0\n"
    (first / "s3fs-3.0.dist-info" / "METADATA").write_text(text)
    assert find("S3FS", [str(first), *packages]).version == "3.0"
    assert find("s3fs", [*packages, str(first)]).version == "1.5"
    assert find("dask", [str(first), *packages]).version == "2026.8.0"


def test_a_dask_outside_what_rapids_pins_is_a_problem_that_names_who_pins_it(packages):
    assert conflicts(["dask-cuda"], packages) == (TOO_NEW,)
    health = examine(packages, watched=[("dask-cuda", "dask-cuda", "json", "gpu")])
    problems = {check.name: check for check in health.checks if check.state == "problem"}
    assert set(problems) == {"hrvol", "versions"}
    assert problems["hrvol"].found == "1.0 lacks gone>=2 (not installed)"
    assert problems["versions"].found == f"{TOO_NEW.by} needs {TOO_NEW}"
    assert problems["versions"].remedy == "pip install 'hrvol[gpu]'"
    assert not health.healthy
    cuda = next(engine for engine in health.engines if engine.name == "cuda")
    assert any(TOO_NEW.requirement in part for part in cuda.missing)


def test_a_package_that_cannot_be_imported_is_a_problem_and_one_that_is_absent_is_not(
    packages, tmp_path, monkeypatch
):
    (tmp_path / "spoilt.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    health = examine(packages, watched=[("s3fs", "s3fs", "spoilt", "io"), ("rmm", "rmm-cu13", "rmm", "gpu")])
    by_name = {check.name: check for check in health.checks}
    assert by_name["s3fs"].state == "problem"
    assert "No module named 'no_such_library'" in by_name["s3fs"].found
    assert (by_name["rmm"].state, by_name["rmm"].remedy) == ("missing", "pip install 'hrvol[gpu]'")


def test_what_crashes_on_import_does_not_take_hrvol_with_it():
    with IsolatedProcess() as isolated:
        assert isolated(os._exit, 139) == (None, "the process crashed")
        assert isolated(import_module, "json") == (None, None)
        assert isolated(max, 3, 5) == (5, None)


@pytest.mark.parametrize(
    ("torch_gpus", "smi", "visible", "expected"),
    [
        (Torch("13.0", (A100, A100), None), SMI, None, ["ok", "ok", "ok"]),
        (Torch("13.0", (A100,), None), SMI, "1", ["ok", "ok"]),
        (Torch("13.0", (), "driver too old"), SMI.replace("580", "535"), None, ["problem", "problem"]),
        (Torch("12.8", (A100,), None), SMI.replace("580", "535"), None, ["ok", "ok"]),
        (Torch("13.0", (), "no GPU"), SMI, "", ["ok", "missing"]),
        (Torch("13.0", (), "no reason"), SMI, None, ["ok", "problem"]),
        (Torch(None, (), "built without"), SMI, None, ["ok", "missing"]),
        (Torch("13.0", (), "no driver"), None, None, ["missing", "missing"]),
        (Torch("13.0", (), "no GPU"), "No devices were found", None, ["missing", "missing"]),
        (Torch("13.0", (Gpu("old", "u", 1, 0, (6, 1), "no kernel"),), None), SMI, None, ["ok", "problem"]),
    ],
)
def test_gpus_are_those_that_the_driver_and_torch_agree_on(torch_gpus, smi, visible, expected):
    assert [check.state for check in check_gpus(torch_gpus, smi, visible)] == expected


def check_gpus(torch_gpus, smi, visible):
    return gpus.check_gpus(torch_gpus, smi, visible, remedy="pip install 'hrvol[gpu]'")


def test_a_driver_that_is_too_old_is_a_problem_with_a_remedy():
    driver, gpu = check_gpus(Torch("13.0", (), "too old"), SMI.replace("580", "535"), None)
    assert driver.remedy == "install driver 580 or newer, or an older torch"
    assert "GPU-1" in gpu.found
    assert gpu.remedy == "pip install 'hrvol[gpu]'"
    hidden = check_gpus(Torch("13.0", (), "none"), SMI, "")[1]
    assert hidden.found.endswith("hidden by CUDA_VISIBLE_DEVICES=")


def test_engines_need_what_they_use_and_no_more():
    broken = {"rmm": "cannot be imported", "dask-jobqueue": "old"}
    ready = {
        one.name: one for one in engines((), {"gpu": (TOO_NEW,), "slurm": ()}, broken, gpu=True, sbatch=True)
    }
    assert (ready["serial"].missing, ready["local"].missing) == ((), ())
    assert ready["slurm"].missing == ("dask-jobqueue: old",)
    assert ready["cuda"].missing == ("the extra gpu", "rmm: cannot be imported")
    assert ready["cuda"].remedy == "pip install 'hrvol[gpu]'"
    lacking = engines((TOO_NEW,), {}, {}, gpu=True, sbatch=False)
    assert all(str(TOO_NEW) in one.missing for one in lacking)


def test_torch_is_probed_without_touching_a_gpu_that_is_not_there():
    probed = probe_torch()
    assert bool(probed.gpus) == torch.cuda.is_available()
    assert (probed.error is None) == bool(probed.gpus)
    assert "\n" not in (probed.error or "")
