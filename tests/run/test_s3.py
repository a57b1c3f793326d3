"""The whole flow in a bucket, with no local copy of anything: begun, killed, gone on with, looked at."""

import io
import json
import os
import socket
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from fault_data import Run, wait_for
from run_data import draw, make_volume
from s3_server import flags_of, s3_server
from zarr.storage import FsspecStore

from hrvol.cli import main
from hrvol.errors import MissingExtraError, UnreadableError, UsageError
from hrvol.run.cluster import cluster_volume
from hrvol.run.extract_features import extract_features
from hrvol.run.segment import segment_volume
from hrvol.run.status import run_status
from hrvol.training.train import train_model
from hrvol.volume.ome.labels import open_label_store
from hrvol.volume.ome.metadata import Level, write_multiscale
from hrvol.volume.storage import remote
from hrvol.volume.storage.location import Location
from hrvol.volume.storage.records import Records
from hrvol.volume.volume import open_labels, open_volume

pytestmark = pytest.mark.timeout(300)

SHAPE = (3, 150, 290)  # wide enough for a coarser level
BLOCKS = 24
RECIPE = """
features: {kind: classical, classical: {filters: [gaussian, sobel], sigmas: [1, 2]}}
classifier: {trees: 5, samples_per_class: 300}
tiles: {core: 96, overlap: 12, planes: 1}
cluster: {clusters: 6, samples: 2000}
"""
ARRAYS = ("labels/hrvol/0", "labels/hrvol/1", "uncertainty/0", "uncertainty/1")


@pytest.fixture(scope="module")
def s3():
    with s3_server() as server:
        yield server


@pytest.fixture(scope="module")
def data():
    image, truth = make_volume(shape=SHAPE)
    return image, truth, draw(truth, planes=(0, 2))


@pytest.fixture(scope="module")
def bucket(s3, data):
    """The bucket with a volume of shards, its strokes, and the truth in the older format."""
    image, truth, strokes = data
    group = zarr.create_group(_store(s3, "volume.ome.zarr"), attributes={"ome": _image(3.0, 1.5, 1.5)})
    group.create_array("0", data=image, chunks=(1, 96, 96), shards=(2, 192, 192), dimension_names=list("zyx"))
    zarr.create_array(_store(s3, "strokes.zarr"), data=strokes, chunks=(1, 64, 64))
    zarr.create_array(_store(s3, "truth.zarr"), data=truth, chunks=(2, 64, 64), zarr_format=2)
    return s3


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A local folder with the recipe, where nothing else but models may come to be."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def model(bucket, work):
    """A model trained on volume and strokes in the bucket."""
    run(
        *("train", bucket.url("volume.ome.zarr"), bucket.url("strokes.zarr"), "-o", work / "m.hrvol"),
        *("--recipe", work / "recipe.yaml", "--classes", "matrix,disc", *bucket.flags),
    )
    return work / "m.hrvol"


@pytest.fixture(scope="module")
def local(data, work, tmp_path_factory):
    """The same run with nothing but local files: what is in its arrays."""
    folder = tmp_path_factory.mktemp("local")
    image, _, strokes = data
    trained = train_model([(image, strokes)], recipe=work / "recipe.yaml", classes=["matrix", "disc"])
    segment_volume(image, folder / "out.ome.zarr", trained, uncertainty=True)
    return _arrays(zarr.open_group(folder / "out.ome.zarr", mode="r"))


@pytest.fixture(scope="module")
def killed(bucket, work, model, tmp_path_factory):
    """A run of worker processes whose driver was killed as it wrote its first record down: the command, the
    status then, and all that it said."""
    command = segment(bucket, model, "out.ome.zarr", "--uncertainty", "--engine", "local", "--workers", 2)
    with Run(map(str, command), tmp_path_factory.mktemp("log") / "log") as process:
        record = "out.ome.zarr/ledger/main/0"
        wait_for(lambda: process.over or any("PUT" in line and record in line for line in bucket.log), 200)
        assert not process.over, process.said
        assert process.kill() == []  # workers end when their driver does
    return command, run_status(bucket.url("out.ome.zarr"), storage_options=bucket.options), process.said


@pytest.fixture(scope="module")
def finished(bucket, killed):
    """What the same command says that goes on with the run, and the requests that it made."""
    before = len(bucket.log)
    result = run(*killed[0])
    return result, bucket.log[before:]


def test_a_killed_run_is_gone_on_with_and_comes_out_bit_for_bit_as_a_local_one(
    bucket, killed, finished, local
):
    assert 0 < killed[1]["done"] < BLOCKS == killed[1]["total"]
    assert "by earlier runs" in finished[0].stdout
    ours = _arrays(zarr.open_group(_store(bucket, "out.ome.zarr"), mode="r"))
    assert ours.keys() == local.keys() == set(ARRAYS)
    for name, values in local.items():
        np.testing.assert_array_equal(ours[name], values, err_msg=name)
    assert open_label_store(Location.of(bucket.url("out.ome.zarr"), bucket.options)).complete


def test_blocks_that_were_done_are_not_written_again(killed, finished):
    written = [line for line in finished[1] if line.startswith("PUT") and "labels/hrvol/0/c/" in line]
    assert len(written) == BLOCKS - killed[1]["done"]


def test_status_info_and_scores_are_read_from_the_bucket(bucket, finished):
    out, options = bucket.url("out.ome.zarr"), bucket.flags
    status = json.loads(run("status", out, "--json", *options).stdout)
    assert (status["state"], status["done"], status["left"]) == ("complete", BLOCKS, 0)
    info = json.loads(run("info", out, "--json", *options).stdout)
    assert info["classes"] == {"1": "matrix", "2": "disc"}
    assert info["voxel_size"] == [3.0, 1.5, 1.5]
    assert info["made_from"] == bucket.url("volume.ome.zarr")
    scores = json.loads(run("evaluate", out, bucket.url("truth.zarr"), "--json", *options).stdout)
    assert scores["miou"] > 0.9


def test_values_of_options_are_neither_written_down_nor_shown(bucket, killed, finished, model):
    result, _ = finished
    said = killed[2] + result.stdout + result.stderr
    texts = [said.encode(), model.read_bytes(), *map(bucket.get, bucket.keys("out.ome.zarr"))]
    with zipfile.ZipFile(io.BytesIO(model.read_bytes())) as parts:
        texts += [parts.read(name) for name in parts.namelist()]
    assert any(b"volume.ome.zarr" in text for text in texts)
    for text in texts:
        for value in bucket.options.values():
            assert value.encode() not in text


def test_nothing_is_copied_to_the_disk(bucket, finished, work):
    assert {path.name for path in work.iterdir()} == {"recipe.yaml", "m.hrvol"}


@pytest.fixture(scope="module")
def parts(bucket, model):
    """A plane done by two drivers that know nothing of each other: where, and what the first of them said."""
    command = segment(bucket, model, "parts.ome.zarr", "--engine", "serial", "--roi", "1:2,:,:")
    first = run(*command, "--part", "2/2")
    run(*command, "--part", "1/2")
    return command, first.stdout


def test_parts_make_the_whole(bucket, parts, local):
    assert "4 blocks remain for other parts" in parts[1]
    status = run_status(bucket.url("parts.ome.zarr"), storage_options=bucket.options)
    assert status["state"] == "complete"
    assert sorted(driver["lane"] for driver in status["drivers"]) == ["part-1-of-2", "part-2-of-2"]
    ours = _arrays(zarr.open_group(_store(bucket, "parts.ome.zarr"), mode="r"))
    np.testing.assert_array_equal(ours["labels/hrvol/0"][1], local["labels/hrvol/0"][1])


def test_a_damaged_object_is_found_and_its_block_done_again(bucket, parts):
    victim = "parts.ome.zarr/labels/hrvol/0/c/1/1/0"
    whole = bucket.get(victim)
    bucket.put(victim, whole[: len(whole) // 2])
    before = len(bucket.log)
    run(*parts[0])
    written = [line for line in bucket.log[before:] if line.startswith("PUT") and "hrvol/0/c/" in line]
    assert [line.split()[1] for line in written] == [f"/{bucket.bucket}/{victim}"]
    assert bucket.get(victim) == whole


def test_what_others_write_is_seen_at_once(s3):
    """A listing that is kept would hide the lanes of parts that began later."""
    place = Location.of(s3.url("others"), s3.options)
    s3.put("others/ledger/part-1-of-2/zarr.json", b"{}")
    assert _names(place, "ledger") == ["part-1-of-2"]
    s3.put("others/ledger/part-2-of-2/zarr.json", b"{}")
    assert _names(place, "ledger") == ["part-1-of-2", "part-2-of-2"]
    assert place.sizes(["ledger/part-2-of-2/zarr.json", "ledger/none"]) == [2, None]


def test_fresh_deletes_an_earlier_output_and_nothing_beside_it(bucket, model):
    out = "fresh[12].ome.zarr"  # a name, though it would do as a pattern
    roi = ("--engine", "serial", "--roi", "0:1,0:96,0:96")
    run(*segment(bucket, model, out, *roi))
    bucket.put(f"{out}/labels/hrvol/0/c/9/9/9", b"of an earlier time")
    beside = [f"{out}2/notes.txt", "fresh1.ome.zarr/zarr.json", "fresh1.ome.zarr/labels/hrvol/0/c/0/0/0"]
    for key in beside:
        bucket.put(key, b"keep")
    assert "found a run with other settings" in fails(*segment(bucket, model, out, "--engine", "serial"))
    run(*segment(bucket, model, out, "--engine", "serial", "--roi", "1:2,0:96,0:96", "--fresh", "--yes"))
    assert f"{out}/labels/hrvol/0/c/9/9/9" not in bucket.keys(out)
    assert [bucket.get(key) for key in beside] == [b"keep"] * 3
    assert np.flatnonzero(_labels(bucket, out).any(axis=(1, 2))).tolist() == [1]


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("key", ["mine/notes.txt", "mine"])
def test_what_hrvol_did_not_write_is_in_the_way_and_stays(bucket, model, key, fresh):
    bucket.put(key, b"keep")
    line = fails(*segment(bucket, model, "mine", "--engine", "serial", *(["--fresh", "--yes"] * fresh)))
    assert "s3://tomo/mine: found no Zarr" in line
    assert "expected" in line
    assert bucket.get(key) == b"keep"
    bucket.client().delete_object(Bucket=bucket.bucket, Key=key)


def test_a_volume_is_no_output_whatever_is_asked_for(bucket, model):
    keys = bucket.keys("truth.zarr")
    command = segment(bucket, model, "truth.zarr", "--engine", "serial", "--fresh", "--yes")
    assert "found Zarr that hrvol did not write" in fails(*command)
    command = segment(bucket, model, "volume.ome.zarr/labels", "--engine", "serial")
    assert "is (or holds, or is inside) the input" in fails(*command, code=2)
    assert bucket.keys("truth.zarr") == keys


def test_a_bucket_survives_what_was_its_only_content(s3):
    s3.client().create_bucket(Bucket="whole")
    place = Location.of("s3://whole", s3.options)
    zarr.create_group(place.store(read_only=False)).create_array("a", data=np.ones(9))
    place.remove()
    assert not place.occupied()
    assert "whole" in [found["Name"] for found in s3.client().list_buckets()["Buckets"]]


def test_classes_without_strokes_are_those_of_a_local_run(bucket, data, work, tmp_path):
    image = data[0]
    run(
        *("cluster", bucket.url("volume.ome.zarr"), bucket.url("classes.ome.zarr"), "--classes", 3),
        *("--recipe", work / "recipe.yaml", "--engine", "serial", "--roi", "0:2,0:96,0:192"),
        *bucket.flags,
    )
    roi = (slice(0, 2), slice(0, 96), slice(0, 192))
    cluster_volume(image, tmp_path / "c.ome.zarr", recipe=work / "recipe.yaml", classes=3, roi=roi)
    np.testing.assert_array_equal(
        _labels(bucket, "classes.ome.zarr"), open_labels(tmp_path / "c.ome.zarr").read()
    )


def test_features_are_those_of_a_local_run(bucket, data, work, tmp_path):
    roi = "1:3,20:90,0:70"
    run(
        *("features", bucket.url("volume.ome.zarr"), bucket.url("f.zarr"), "--recipe", work / "recipe.yaml"),
        *("--components", 3, "--roi", roi, *bucket.flags),
    )
    where = (slice(1, 3), slice(20, 90), slice(0, 70))
    extract_features(data[0], tmp_path / "f.zarr", recipe=work / "recipe.yaml", components=3, roi=where)
    ours = zarr.open_array(_store(bucket, "f.zarr"), mode="r")
    np.testing.assert_array_equal(ours[:], zarr.open_array(tmp_path / "f.zarr", mode="r")[:])
    assert ours.attrs["hrvol"]["complete"] is True


def test_both_formats_and_shards_are_read(bucket, data):
    image, truth, _ = data
    box = (slice(1, 3), slice(60, 150), slice(30, 290))
    for path, values in (("volume.ome.zarr", image), ("volume.ome.zarr/0", image), ("truth.zarr", truth)):
        found = open_volume(Location.of(bucket.url(path), bucket.options))
        np.testing.assert_array_equal(found.read(box), values[box], err_msg=path)


def test_an_array_opened_by_its_own_path_keeps_its_voxel_size(bucket):
    found = open_volume(Location.of(bucket.url("volume.ome.zarr/0"), bucket.options))
    assert (found.voxel_size, found.unit) == ((3.0, 1.5, 1.5), "micrometer")


def test_credentials_come_from_the_environment(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", bucket.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", bucket.secret)
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.endpoint)
    assert "3 x 150 x 290" in run("info", bucket.url("truth.zarr")).stdout


def test_public_data_are_read_without_credentials(bucket):
    flags = ("--storage-option", "anon=true", "--storage-option", f"endpoint_url={bucket.endpoint}")
    with bucket.published("strokes.zarr"):
        assert "3 x 150 x 290" in run("info", bucket.url("strokes.zarr"), *flags).stdout
        assert "cannot be opened: Forbidden" in fails("info", bucket.url("volume.ome.zarr"), *flags)


def test_options_come_from_the_configuration_of_fsspec(bucket):
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "FSSPEC_"))},
        "FSSPEC_S3_KEY": bucket.key,
        "FSSPEC_S3_SECRET": bucket.secret,
        "FSSPEC_S3": json.dumps({"client_kwargs": {"endpoint_url": bucket.endpoint}}),
    }
    command = hrvol("info", bucket.url("truth.zarr"))
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "3 x 150 x 290" in result.stdout


REFUSALS = {
    "another secret": ({"secret": "not-the-secret"}, "signature"),
    "another key": ({"key": "AKIANOBODYKNOWSME"}, "Access Key Id"),
    "no credentials": ({"key": "", "secret": ""}, "Unable to locate credentials"),
    "no endpoint": ({"endpoint_url": "nonsense"}, "<endpoint_url>"),
    "an unknown option": ({"no_such_option": "x"}, "no_such_option"),
}


@pytest.mark.parametrize("why", REFUSALS)
@pytest.mark.parametrize("what", ["info", "segment"])
def test_a_refusal_is_one_clear_line(bucket, model, data, tmp_path, why, what):
    changes, words = REFUSALS[why]
    flags = flags_of({name: value for name, value in (bucket.options | changes).items() if value})
    if what == "info":
        line = fails("info", bucket.url("volume.ome.zarr"), *flags)
    else:  # the input is local, and the output is what cannot be had
        zarr.save_array(tmp_path / "v.zarr", data[0])
        line = fails(
            *("segment", tmp_path / "v.zarr", bucket.url("none.ome.zarr"), "-m", model, *flags),
            *("--engine", "serial"),
        )
    assert words in line
    assert f"hrvol: error: s3://{bucket.bucket}/" in line
    assert not any(value in line for value in (*changes.values(), bucket.secret) if len(value) > 4)


def test_a_missing_bucket_is_named(bucket, model):
    for place in ("s3://nowhere/v.zarr", "s3://nowhere"):
        assert f"{place}: cannot be opened: The specified bucket does not exist" in fails(
            "info", place, *bucket.flags
        )
    command = segment(bucket, model, "out.ome.zarr", "--engine", "serial")
    command[2] = "s3://nowhere/out.ome.zarr"
    assert "s3://nowhere/out.ome.zarr: The specified bucket does not exist" in fails(*command)


def test_what_is_not_there_is_said_to_be_so(bucket):
    assert "none.zarr: found neither a Zarr array or group nor a file" in fails(
        "info", bucket.url("none.zarr"), *bucket.flags
    )
    assert "found no output of a run" in fails("status", bucket.url("none.ome.zarr"), *bucket.flags)


def test_nobody_at_the_endpoint_is_one_line_with_the_object(bucket):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {**bucket.options, "endpoint_url": f"http://127.0.0.1:{port}"}
    options["config_kwargs"] = {"retries": {"total_max_attempts": 2}}  # by default it takes up to 15 s
    with pytest.raises(UnreadableError, match=r'endpoint URL: "<endpoint_url>/tomo/v.zarr/zarr\.json"'):
        open_volume(Location.of(bucket.url("v.zarr"), options))


def test_an_endpoint_that_never_answers_is_given_up(bucket, monkeypatch):
    monkeypatch.setattr(remote, "FIRST_TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = {**bucket.options, "endpoint_url": "http://127.0.0.1:{1}".format(*silent.getsockname())}
        began = time.monotonic()
        with pytest.raises(UnreadableError, match=r"v.zarr: cannot be opened: found no answer within 0.5 s"):
            open_volume(Location.of(bucket.url("v.zarr"), options))
        assert time.monotonic() - began < 10


def test_errors_of_libraries_become_the_systems_own(s3):
    place = Location.of(s3.url("v.zarr"), {**s3.options, "secret": "not-the-secret"})
    with pytest.raises(PermissionError, match="signature") as refused:
        place.attributes()
    assert refused.value.filename == "s3://tomo/v.zarr"
    with pytest.raises(OSError, match="credentials"):
        Location.of(s3.url("v.zarr"), {"endpoint_url": s3.endpoint}).occupied()


def test_a_file_system_that_is_not_known_or_not_installed_is_said_to_be_so():
    with pytest.raises(UsageError, match="Protocol not known: s5"):
        open_volume("s5://bucket/v.zarr")
    with pytest.raises(UsageError, match="either key or username"):
        open_volume(Location.of("s3://bucket/v.zarr", {"key": "a", "username": "b"}))
    with pytest.raises(MissingExtraError, match=r"gs://bucket/v.zarr: .*gcsfs"):
        open_volume("gs://bucket/v.zarr")


def test_reading_an_object_is_one_request(bucket):
    before = len(bucket.log)
    place = Location.of(bucket.url("truth.zarr"), bucket.options)
    assert place.read_bytes("0.0.0") is not None
    assert [line.split()[0] for line in bucket.log[before:]] == ["GET"]


def hrvol(*arguments):
    """Arguments of the program as users run it."""
    return [sys.executable, "-c", "from hrvol.cli import main; main()", *map(str, arguments)]


def segment(bucket, model, out, *more):
    """Arguments of a segmentation from the bucket into the bucket."""
    return [
        *("segment", bucket.url("volume.ome.zarr"), bucket.url(out), "-m", model),
        *(*more, *bucket.flags),
    ]


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def fails(*arguments, code=1):
    """Run what must fail; return its one line."""
    result = run(*arguments, code=code)
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    return result.stderr.strip()


def _image(*voxel_size):
    entry = write_multiscale("volume", "zyx", "micrometer", [Level("0", voxel_size, (0.0, 0.0, 0.0))])
    return {"version": "0.5", "multiscales": [entry]}


def _store(s3, path):
    """A store that owes nothing to hrvol."""
    return FsspecStore.from_url(s3.url(path), storage_options=s3.options | {"use_listings_cache": False})


def _arrays(root):
    return {name: root[name][:] for name in ARRAYS if name in root}


def _labels(s3, path):
    return open_labels(Location.of(s3.url(path), s3.options)).read()


def _names(place, path):
    return Records(place).children(path)
