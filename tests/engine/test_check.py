"""Engines that cannot start: known at once, one line, and nothing is written or deleted before."""

import json
import os
import socket
import sys
from contextlib import contextmanager

import dask
import numpy as np
import pytest
import zarr
from distributed import LocalCluster, Security
from run_data import QUICK

from hrvol.engine import check
from hrvol.engine.engine import open_engine
from hrvol.engine.spec import EngineSpec
from hrvol.errors import EngineError, HrvolError, InputError, UsageError
from hrvol.run.segment import segment_volume
from hrvol.training.train import train_model


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(check, "PATIENCE", 0.2)
    monkeypatch.setattr(check, "CONNECT", 1.0)
    monkeypatch.setattr("hrvol.engine.dask_engine.CONNECT", 1.0)


def double(task):
    return 2 * task


KEYS = None


def load_keys(info):
    return KEYS


def start(spec):
    with open_engine(spec) as engine:
        list(engine.map_bounded(double, [1]))


@contextmanager
def listener():
    """A port that accepts connections and never answers; yields its number."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    "name",
    [
        "tcp://",
        "tcp://head",
        "tcp://head:0",
        "tcp://head:99999",
        "tcp://head:8786:1",
        "tcp://he ad:8786",
        "http://head:8786",
        "inproc://head:1",
        "://",
        "tcp://head:8786\n",
        "tcp://head:8786/\x1b[31m",
    ],
)
def test_an_address_that_is_none_is_refused_before_anything(name):
    with pytest.raises(UsageError, match=r"engine: found .*, expected serial, .*tcp://host:8786") as error:
        EngineSpec(name)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("name", ["tcp://[::1]:8786", "tls://node-7.cluster:1", "ucx://10.0.0.1:8786/"])
def test_addresses_of_dask_are_accepted(name):
    assert EngineSpec(name).running_cluster


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "found no such file, expected the file of a Dask scheduler"),
        ("", "expected JSON"),
        ('{"address": "tcp://127.0.', "expected JSON"),
        ("[]", "expected a mapping"),
        ("{}", "expected"),
        ('{"address": 5}', "address"),
        ('{"address": "nonsense"}', "tcp://host:8786"),
        ('{"address": "' + "x" * 5000 + '"}', "address"),
    ],
)
def test_a_scheduler_file_that_is_missing_or_damaged_is_one_line(text, message, tmp_path, impatient):
    file = tmp_path / "scheduler.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        start(EngineSpec(scheduler_file=str(file)))
    assert str(error.value).startswith(f"{file}: ")
    assert "\n" not in str(error.value)


@pytest.mark.timeout(20)
def test_a_pipe_as_scheduler_file_is_refused(tmp_path, impatient):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="found a named pipe"):
        start(EngineSpec(scheduler_file=str(tmp_path / "pipe")))


@pytest.mark.timeout(20)
def test_a_scheduler_that_is_started_at_the_same_time_is_waited_for(tmp_path):
    file = tmp_path / "scheduler.json"
    file.write_text("{")
    with listener() as port:
        waits = iter(range(100))

        def sleep(seconds):
            if next(waits) == 1:
                file.write_text(json.dumps({"address": f"tcp://127.0.0.1:{port}", "workers": {}}))

        patch = pytest.MonkeyPatch()
        patch.setattr("hrvol.engine.check.time.sleep", sleep)
        try:
            found = check.find_scheduler(EngineSpec(scheduler_file=str(file)))
        finally:
            patch.undo()
    assert found == f"tcp://127.0.0.1:{port}"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ("tcp", "no Dask scheduler answers"),
        ("tls", "found no keys in Dask's configuration, expected distributed.comm.tls.ca-file"),
        ("ucx", "no Dask scheduler answers"),
    ],
)
def test_a_port_that_never_answers_is_one_line(scheme, message, impatient):
    with listener() as port, pytest.raises(EngineError, match=message) as error:
        start(EngineSpec(f"{scheme}://127.0.0.1:{port}"))
    assert "\n" not in str(error.value)


@pytest.mark.timeout(20)
def test_a_refused_address_is_one_line(impatient):
    with listener() as port:
        pass
    with pytest.raises(HrvolError, match=rf"tcp://127.0.0.1:{port}: no Dask .* \(Connection refused\)"):
        start(EngineSpec(f"tcp://127.0.0.1:{port}"))


def test_the_keys_of_a_cluster_with_tls_are_those_of_dasks_configuration(tmp_path, monkeypatch):
    security = Security.temporary()
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    key.write_text(security.tls_client_key)
    certificate.write_text(security.tls_ca_file)
    settings = {
        "distributed.comm.tls.ca-file": str(certificate),
        "distributed.comm.tls.client.cert": str(certificate),
        "distributed.comm.tls.client.key": str(key),
    }
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    with LocalCluster(security=security, protocol="tls://", silence_logs=50, **options) as cluster:
        spec = EngineSpec(cluster.scheduler_address)
        assert spec.name.startswith("tls://")
        with dask.config.set(settings), open_engine(spec) as engine:
            assert [outcome.value for outcome in engine.map_bounded(double, [1])] == [2]
        loader = {"distributed.client.security-loader": f"{__name__}.load_keys"}
        monkeypatch.setattr(sys.modules[__name__], "KEYS", security)
        with dask.config.set(loader), open_engine(spec) as engine:
            assert [outcome.value for outcome in engine.map_bounded(double, [1])] == [2]
        loader = {"distributed.client.security-loader": f"{__name__}.nothing"}
        with dask.config.set(loader), pytest.raises(EngineError, match=r"security-loader: .*nothing"):
            start(spec)
        key.write_text("damaged")
        with dask.config.set(settings), pytest.raises(EngineError, match=r"no Dask scheduler answers .*SSL"):
            start(spec)


@pytest.mark.timeout(20)
def test_an_engine_that_cannot_start_costs_no_earlier_output(data, tmp_path, monkeypatch, impatient):
    image, _, strokes = data
    model = train_model([(image, strokes)], recipe=QUICK)
    new, old = tmp_path / "new.ome.zarr", tmp_path / "old.ome.zarr"
    small = image[:1, :64, :64]
    segment_volume(small, old, model)
    labels = zarr.open_array(old / "labels" / "hrvol" / "0", mode="r")[:]
    monkeypatch.setenv("PATH", str(tmp_path))  # no sbatch
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with listener() as silent:
        for options in (
            {"engine": "slurm"},
            {"engine": f"tcp://127.0.0.1:{port}"},
            {"engine": f"tcp://127.0.0.1:{silent}"},
            {"scheduler_file": tmp_path / "none.json"},
        ):
            with pytest.raises(HrvolError) as error:
                segment_volume(small, new, model, **options)
            assert error.value.exit_code == 1
            assert not new.exists()
            with pytest.raises(HrvolError):
                segment_volume(small, old, model, overwrite=True, **options)
            again = zarr.open_array(old / "labels" / "hrvol" / "0", mode="r")[:]
            np.testing.assert_array_equal(again, labels)
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: no such account' >&2\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineError, match=r"^engine: slurm: sbatch: no such account$"):
        segment_volume(small, new, model, engine="slurm", engine_options={"interface": "lo"})
    assert not new.exists()
