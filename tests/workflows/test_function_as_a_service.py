"""The function for services, sent by value to a process that has never seen its file."""

import base64
import importlib.util
import inspect
import json
import subprocess
import sys

import cloudpickle
import pytest
from flow_data import WORKFLOWS, prepare, status

import hrvol

SCRIPT = WORKFLOWS / "function_as_a_service.py"
REMOTE = """
import base64, json, sys
assert "function_as_a_service" not in sys.modules
requests = json.loads({requests!r})
functions = []
{codes}
for function, chosen in zip(functions, (requests, requests[:1], requests[:1])):
    for request in chosen:
        print(json.dumps(function(request)))
"""


@pytest.fixture(scope="module")
def segment():
    spec = importlib.util.spec_from_file_location("function_as_a_service", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["function_as_a_service"] = module  # as if a client had imported it
    spec.loader.exec_module(module)
    yield module.segment
    del sys.modules["function_as_a_service"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    prepare(folder)
    model = hrvol.train_model([(folder / "a.tif", folder / "strokes.tif")], recipe=folder / "recipe.yaml")
    hrvol.save_model(model, folder / "model.hrvol")
    return folder


def by_dill(function):
    """Return code that makes the function: pickled by dill as one of a program's main script is, by value."""
    dill = pytest.importorskip("dill")
    function.__module__, module = "__main__", function.__module__
    try:
        data = base64.b64encode(dill.dumps(function, recurse=True))
    finally:
        function.__module__ = module
    return f"import dill; functions.append(dill.loads(base64.b64decode({data!r})))"


def by_cloudpickle(function):
    """As Ray, Dask and others send it."""
    module = sys.modules[function.__module__]
    cloudpickle.register_pickle_by_value(module)
    try:
        data = base64.b64encode(cloudpickle.dumps(function))
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    return f"import cloudpickle; functions.append(cloudpickle.loads(base64.b64decode({data!r})))"


def by_source(function):
    """As Globus Compute does first: its source is run in an empty namespace."""
    source = inspect.getsource(function)
    return f"names = {{}}; exec({source!r}, names); functions.append(names[{function.__name__!r}])"


def test_it_uses_no_names_of_its_file(segment):
    builtins = __builtins__ if isinstance(__builtins__, dict) else vars(__builtins__)
    assert segment.__closure__ is None
    assert segment.__defaults__ is None
    assert set(segment.__code__.co_names) & (set(segment.__globals__) - set(builtins)) == set()


def test_it_runs_in_a_fresh_process_and_resumes(segment, place):
    base = {"volume": str(place / "a.tif"), "model": str(place / "model.hrvol")}
    request = {**base, "labels": str(place / "out.ome.zarr"), "uncertainty": True}
    roi = {**base, "labels": str(place / "roi.ome.zarr"), "roi": "0:1,:,:64"}
    requests = [
        *(request, roi, {**request, "volume": "none.tif"}, {"volume": "x"}),
        {**request, "nam": 1},
    ]
    codes = "\n".join(send(segment) for send in (by_dill, by_cloudpickle, by_source))
    script = REMOTE.format(codes=codes, requests=json.dumps(requests))
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=place, capture_output=True, text=True, timeout=300, check=True
    )
    done, part, missing, incomplete, unknown, *again = map(json.loads, run.stdout.splitlines())
    assert len(again) == 2
    for one in (done, *again):
        assert (one["state"], one["error"], one["failed_blocks"]) == ("complete", None, [])
        assert one["voxels"] == 4 * 150 * 130
        assert one["fractions"] == done["fractions"]
    assert sum(done["fractions"].values()) == pytest.approx(1)
    assert (part["state"], part["voxels"]) == ("complete", 150 * 64)
    assert status(request["labels"])["state"] == "complete"
    assert (missing["state"], missing["resumable"]) == ("failed", True)
    assert "none.tif" in missing["error"]
    assert incomplete["error"] == "request: found no labels, expected volume, labels and model"
    assert "nam" in unknown["error"]
    assert unknown["resumable"] is False
