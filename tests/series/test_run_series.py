"""Workflows over real files: what is done, what is left as it is, what is out of date, what fails."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from s3_server import s3_server
from series_data import SHAPE, STEPS, change_strokes, make_series, save, states, write

from hrvol.engine.stop import Stop
from hrvol.errors import UsageError
from hrvol.run.status import run_status
from hrvol.series.identity import Known, training_inputs
from hrvol.series.records import Record
from hrvol.series.run_series import run_series
from hrvol.volume.volume import open_volume

IDS = ["train", "segment.a", "evaluate.a", "export.a", "segment.b", "evaluate.b", "export.b"]


def all_of(state, ids=IDS):
    return dict.fromkeys(ids, state)


def snapshot(folder):
    """Times and sizes of all outputs but the records."""
    return {
        path: (path.stat().st_mtime_ns, path.stat().st_size)
        for path in Path(folder).rglob("*")
        if path.is_file() and "ledger" not in path.parts
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder whose workflow was run."""
    folder = tmp_path_factory.mktemp("series") / "project"
    file = make_series(folder, table="table.csv")
    report = run_series(file)
    assert {one.task.id: one.state for one in report.outcomes} == all_of("done")
    return folder


@pytest.fixture
def project(finished, tmp_path):
    """A copy of it; its files have their times."""
    return Path(shutil.copytree(finished, tmp_path / "project"))


def test_every_step_has_its_output(finished):
    results = finished / "results"
    assert (results / "model.hrvol").is_file()
    for name in "ab":
        labels = zarr.open_array(results / f"{name}.ome.zarr" / "labels" / "hrvol" / "0", mode="r")[:]
        np.testing.assert_array_equal(tifffile.imread(results / f"{name}.tif"), labels)
        assert (results / f"{name}.ome.zarr" / "uncertainty").is_dir()
        assert json.loads((results / f"{name}.scores.json").read_text())["miou"] > 0.8


def test_the_table_has_a_row_for_each_volume(finished):
    with (finished / "results" / "table.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["volume"] for row in rows] == ["a", "b"]
    for row in rows:
        assert row["state"] == "done"
        assert int(row["voxels"]) == 2 * 90 * 100
        assert float(row["seconds"]) > 0
        scores = json.loads((finished / "results" / f"{row['volume']}.scores.json").read_text())
        assert float(row["mIoU"]) == scores["miou"]
        assert float(row["fraction matrix"]) + float(row["fraction disc"]) == pytest.approx(1)


def test_nothing_is_done_again(project):
    before = snapshot(project / "results")
    report = run_series(project / "series.yaml", table=project / "again.json")
    assert {one.task.id: one.state for one in report.outcomes} == all_of("up to date")
    after = snapshot(project / "results")
    assert {path: after[path] for path in before if path.name != "table.csv"} == {
        path: when for path, when in before.items() if path.name != "table.csv"
    }
    again = json.loads((project / "again.json").read_text())
    assert [row["miou"] for row in again["volumes"]] == [row.miou for row in report.rows]
    assert all(row["seconds"] > 0 and row["voxels"] for row in again["volumes"])


def test_the_table_of_the_workflow_is_that_of_all_tasks(project):
    table = project / "results" / "table.csv"
    text = table.read_text()
    run_series(project / "series.yaml", tasks=["*.a"])
    run_series(project / "series.yaml", dry_run=True)
    assert table.read_text() == text
    run_series(project / "series.yaml", dry_run=True, table=project / "other.csv")
    rows = [list(csv.reader(file.open(newline=""))) for file in (table, project / "other.csv")]
    assert [row[:7] for row in rows[0]] == [row[:7] for row in rows[1]]  # without paths


def test_files_that_are_touched_or_moved_are_the_same(project):
    for path in (*project.glob("*/*.tif"), project / "recipe.yaml", project / "results" / "model.hrvol"):
        path.touch()
    assert states(project / "series.yaml", dry_run=True) == all_of("up to date")


def test_a_dry_run_writes_nothing_and_tells_what_waits(tmp_path):
    file = make_series(tmp_path / "project")
    assert states(file, dry_run=True) == {"train": "to do", **all_of("waits", IDS[1:])}
    assert not (tmp_path / "project" / "results").exists()


def test_changed_strokes_make_model_and_labels_out_of_date(project):
    file = project / "series.yaml"
    change_strokes(project)
    report = run_series(file, dry_run=True)
    assert report.outcomes[0].state == "out of date"
    assert report.outcomes[0].reason == f"changed: strokes {project}/strokes/a.tif"
    model = (project / "results" / "model.hrvol").read_bytes()
    labels = snapshot(project / "results" / "a.ome.zarr")

    refused = run_series(file)
    assert [one.state for one in refused.outcomes] == ["failed", *["skipped"] * 6]
    assert "strokes/a.tif); --fresh replaces" in refused.outcomes[0].reason
    assert (project / "results" / "model.hrvol").read_bytes() == model
    assert snapshot(project / "results" / "a.ome.zarr") == labels

    assert states(file, tasks=["train"], fresh=True) == {"train": "done"}
    stale = run_series(file, dry_run=True)
    assert [one.state for one in stale.outcomes[:3]] == ["up to date", "out of date", "waits"]
    assert "model.sha256" in stale.outcomes[1].reason
    assert states(file)["segment.a"] == "failed"
    assert set(states(file, fresh=True).values()) == {"up to date", "done"}
    assert states(file) == all_of("up to date")


def test_changed_settings_and_changed_outputs_are_out_of_date(project):
    steps = {**STEPS, "export": {"output": "{name}.tif", "compress": False}}
    file = write(project, steps)
    with (project / "results" / "b.scores.json").open("a") as stream:
        stream.write(" ")
    report = run_series(file, dry_run=True)
    found = {one.task.id: (one.state, one.reason) for one in report.outcomes if one.state != "up to date"}
    assert found == {
        "export.a": ("out of date", "changed: compress"),
        "export.b": ("out of date", "changed: compress"),
        "evaluate.b": ("out of date", "b.scores.json was changed since"),
    }


def test_what_is_lost_is_made_again(project):
    (project / "results" / "a.tif").unlink()
    shutil.rmtree(project / "results" / "b.ome.zarr")
    expected = {**all_of("up to date"), "export.a": "done", "segment.b": "done"}
    assert states(project / "series.yaml") == expected  # labels of b are the same: so are its scores


def test_a_model_of_another_origin_is_not_replaced(tmp_path):
    file = make_series(tmp_path / "project", steps={"train": STEPS["train"]})
    results = tmp_path / "project" / "results"
    results.mkdir()
    (results / "model.hrvol").write_bytes(b"mine")
    for fresh in (False, True):
        assert states(file, fresh=fresh) == {"train": "failed"}
        assert (results / "model.hrvol").read_bytes() == b"mine"


def test_a_volume_that_fails_does_not_stop_the_others(project):
    (project / "scans" / "b.tif").write_bytes(b"II*\0 damaged")
    save(project / "scans" / "c.tif", tifffile.imread(project / "scans" / "a.tif"))
    report = run_series(project / "series.yaml")
    found = {one.task.id: one.state for one in report.outcomes}
    assert found["segment.b"] == "failed"
    assert found["evaluate.b"] == found["export.b"] == "skipped"
    assert found["segment.c"] == found["export.c"] == "done"
    assert [row.state for row in report.rows] == ["done", "failed", "done"]
    assert "b.tif" in report.rows[1].reason
    assert "needs segment.b (failed)" in next(
        one.reason for one in report.outcomes if one.task.id == "export.b"
    )
    shutil.copy(project / "scans" / "a.tif", project / "scans" / "b.tif")


def test_an_output_of_another_program_is_left_alone(tmp_path):
    file = make_series(
        tmp_path / "project", names=("a",), steps={k: STEPS[k] for k in ("train", "export", "segment")}
    )
    (tmp_path / "project" / "results").mkdir()
    other = tmp_path / "project" / "results" / "a.tif"
    other.write_text("notes")
    found = run_series(file, fresh=True)
    assert found.outcomes[-1].state == "failed"
    assert other.read_text() == "notes"


def test_tasks_can_be_selected_and_need_those_before(tmp_path):
    file = make_series(tmp_path / "project", names=("a",))
    report = run_series(file, tasks=["segment.*"])
    assert [(one.state, one.reason) for one in report.outcomes] == [("skipped", "needs train (not done)")]
    assert states(file, tasks=["train"]) == {"train": "done"}
    assert states(file, tasks=["*.a"]) == all_of("done", IDS[1:4])
    with pytest.raises(UsageError, match=r"found 'c', expected ids of tasks: train, segment\.a"):
        run_series(file, tasks=["c"])


def test_a_stop_ends_the_series_and_the_next_run_resumes(tmp_path):
    file = make_series(tmp_path / "project")
    stop = Stop()

    def progress(stage, done, total):
        if stage == "segment.b: segment" and done:
            stop.request()

    report = run_series(file, stop=stop, progress=progress)
    found = [one.state for one in report.outcomes]
    assert found == ["done", "done", "done", "done", "stopped", "stopped", "stopped"]
    assert report.stopped.exit_code == 75
    assert "run the same command to resume" in str(report.stopped)
    then = run_status(tmp_path / "project" / "results" / "b.ome.zarr")
    assert 0 < then["done"] < then["total"]
    looked = run_series(file, dry_run=True).outcomes[4]
    assert (looked.state, looked.reason) == (
        "unfinished",
        f"{then['done']} of {then['total']} blocks done",
    )
    assert set(states(file).values()) == {"up to date", "done"}


def test_progress_of_the_series_grows_to_its_end(project):
    for name in "ab":
        shutil.rmtree(project / "results" / f"{name}.ome.zarr")
    seen = []
    run_series(
        project / "series.yaml",
        progress=lambda stage, done, total: seen.append((done, total)) if stage == "series" else None,
    )
    shares = [done / total for done, total in seen]
    assert shares == sorted(shares)
    assert seen[-1][0] == seen[-1][1] > 0
    assert 0.4 < shares[len(shares) // 2] < 1


def test_clusters_of_one_volume_label_the_others(tmp_path, weights):
    steps = {
        "cluster": {
            "volumes": ["a"],
            "model": "c.hrvol",
            "recipe": "recipe.yaml",
            "classes": 2,
            "boxes": "{name}.csv",
        },
        "segment": {},
        "evaluate": {"truth": "truth/{name}.tif", "match": True},
    }
    file = make_series(
        tmp_path / "project", steps=steps, options={"engine": "serial", "weights": str(weights)}
    )
    recipe = tmp_path / "project" / "recipe.yaml"
    recipe.write_text(
        "features: {kind: deep, deep: {block: 1, offsets: 1}}\ntiles: {core: 64, overlap: 28, planes: 2}\n"
        "cluster: {clusters: 4, samples: 2000, sample_tiles: 2}\n"
    )
    ids = ["cluster.a", "evaluate.a", "segment.b", "evaluate.b"]
    assert states(file) == all_of("done", ids)
    assert states(file, dry_run=True) == all_of("up to date", ids)
    results = tmp_path / "project" / "results"
    before = snapshot(results)
    assert {"a.csv", "c.hrvol"} <= {path.name for path in before}
    assert states(file) == all_of("up to date", ids)
    assert snapshot(results) == before
    (results / "a.csv").unlink()
    assert states(file) == all_of("up to date", ids)
    assert (results / "a.csv").exists()
    steps["cluster"]["classes"] = 3
    write(tmp_path / "project", steps, options={"engine": "serial", "weights": str(weights)})
    assert states(file, dry_run=True)["cluster.a"] == "out of date"


def test_a_student_is_distilled_for_each_volume(tmp_path):
    steps = {
        "train": STEPS["train"],
        "distil": {"tiles": 4, "size": "small", "steps": 3, "accept": True, "volumes": ["a"]},
        "segment": {"backend": "torch"},
    }
    file = make_series(tmp_path / "project", steps=steps)
    ids = ["train", "distil.a", "segment.a", "segment.b"]
    assert states(file) == all_of("done", ids)
    assert states(file, dry_run=True) == all_of("up to date", ids)
    steps["distil"]["steps"] = 4
    write(tmp_path / "project", steps)
    report = run_series(file, dry_run=True)
    assert [one.state for one in report.outcomes] == ["up to date", "out of date", "waits", "up to date"]
    assert "steps was 3, now 4" in report.outcomes[1].reason


def test_a_recipe_is_tuned_and_used(tmp_path):
    strokes = {"strokes": "strokes/{name}.tif", "recipe": "recipe.yaml"}
    steps = {"tune": {**strokes, "minutes": 0}, "train": {"strokes": strokes["strokes"]}}
    file = make_series(tmp_path / "project", names=("a",), steps=steps)
    report = run_series(file, tasks=["tune"], dry_run=True)
    assert [one.state for one in report.outcomes] == ["to do"]
    recipe = tmp_path / "project" / "results" / "recipe.yaml"
    recipe.parent.mkdir()
    shutil.copy(tmp_path / "project" / "recipe.yaml", recipe)
    refused = run_series(file)
    assert [one.state for one in refused.outcomes] == ["failed", "skipped"]
    assert recipe.read_text() == (tmp_path / "project" / "recipe.yaml").read_text()


def edited(path, change):
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def test_a_record_of_a_version_with_fewer_recipe_keys_still_counts(project):
    path = project / "results" / ".hrvol-run" / "model.hrvol.json"
    edited(path, lambda record: record["request"]["settings"]["recipe"].pop("combine"))
    assert states(project / "series.yaml", dry_run=True)["train"] == "up to date"
    edited(path, lambda record: record["request"]["settings"]["recipe"].update(combine="product"))
    assert run_series(project / "series.yaml", dry_run=True).outcomes[0].reason == "changed: recipe.combine"


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_text("{"),
        lambda path: path.write_bytes(b"\xff" * 100),
        lambda path: edited(path, lambda record: record.update(seconds=-1)),
        lambda path: edited(path, lambda record: record["files"].update({"../x": 1})),
        lambda path: path.unlink(),
    ],
)
def test_a_damaged_record_counts_as_none(project, damage):
    damage(project / "results" / ".hrvol-run" / "model.hrvol.json")
    report = run_series(project / "series.yaml", tasks=["train"])
    assert report.outcomes[0].state == "failed"
    assert "model.hrvol: exists already, expected nothing there" in report.outcomes[0].reason
    assert states(project / "series.yaml", tasks=["train"], fresh=True) == {"train": "done"}
    assert states(project / "series.yaml", tasks=["train"]) == {"train": "up to date"}


def test_digests_of_files_that_have_not_changed_for_a_while_are_not_computed_again(tmp_path):
    make_series(tmp_path / "project", names=("a",))
    folder = tmp_path / "project"
    pairs = [(str(folder / "scans" / "a.tif"), str(folder / "strokes" / "a.tif"))]
    found = training_inputs(pairs, None, {}, Known(None))
    fake = {**found.digests, "strokes 1": "recorded"}

    def again(age):
        at = (folder / "strokes" / "a.tif").stat().st_mtime + age
        record = Record(step="train", request={"inputs": fake}, states=found.states, at=at)
        return training_inputs(pairs, None, {}, Known(record)).digests["strokes 1"]

    assert again(10) == "recorded"
    assert again(1) == found.digests["strokes 1"]  # it may have changed since within the clock's tick
    (folder / "strokes" / "a.tif").touch()
    assert again(10) == found.digests["strokes 1"]


def test_labels_in_a_bucket(tmp_path, monkeypatch):
    pytest.importorskip("s3fs")
    with s3_server() as s3:
        monkeypatch.setenv("S3_SECRET", s3.secret)
        monkeypatch.setenv("S3_KEY", s3.key)
        storage = {"endpoint_url": s3.endpoint, "key": "env:S3_KEY", "secret": "env:S3_SECRET"}
        steps = {
            "train": STEPS["train"],
            "segment": {"output": s3.url("labels/{name}.ome.zarr")},
            "evaluate": STEPS["evaluate"],
        }
        options = {"engine": "serial", "storage_options": storage}
        file = make_series(tmp_path / "project", names=("a",), steps=steps, options=options)
        ids = ["train", "segment.a", "evaluate.a"]
        assert states(file) == all_of("done", ids)
        report = run_series(file)
        assert [one.state for one in report.outcomes] == ["up to date"] * 3
        assert report.rows[0].seconds > 0
        assert s3.secret not in "".join(
            path.read_text() for path in (tmp_path / "project" / "results").rglob("*.json")
        )


def n5(folder, values):
    """Write an N5 array."""
    tensorstore = pytest.importorskip("tensorstore")
    metadata = {
        "dimensions": list(values.shape),
        "blockSize": [32, 32, 2],
        "dataType": "uint8",
        "compression": {"type": "gzip"},
    }
    store = {"driver": "file", "path": f"{folder}/"}
    spec = {"driver": "n5", "kvstore": store, "metadata": metadata}
    tensorstore.open(spec, create=True, delete_existing=True).result().write(values).result()


def test_strokes_of_formats_whose_files_are_not_all_known_are_read_each_time(tmp_path):
    make_series(tmp_path / "project", names=("a",))
    folder = tmp_path / "project"
    strokes = tifffile.imread(folder / "strokes" / "a.tif")
    zarr.create_array(folder / "a.zarr", data=strokes, chunks=(1, 64, 64))
    n5(folder / "a.n5", strokes.T)  # x, y, z
    found = [
        training_inputs([(str(folder / "scans" / "a.tif"), str(folder / name))], None, {}, Known(None))
        for name in ("strokes/a.tif", "a.zarr", "a.n5")
    ]
    assert found[0].digests == found[1].digests == found[2].digests  # whatever the format
    assert [bool(one.states["strokes 1"]) for one in found] == [True, False, False]


def test_strokes_on_a_crop_points_and_an_auto_mask(tmp_path):
    file = make_series(tmp_path / "project", names=("a",))
    folder = tmp_path / "project"
    strokes = tifffile.imread(folder / "strokes" / "a.tif")
    save(folder / "strokes" / "crop.tif", strokes[:1, 10:80, 20:90])
    expected = states(file, tasks=["train"])
    volumes = [{"path": "scans/a.tif", "strokes": "strokes/crop.tif", "strokes_offset": [0, 10, 20]}]
    write(folder, volumes=volumes)
    assert "strokes" in run_series(file, tasks=["train"], dry_run=True).outcomes[0].reason
    whole = np.zeros_like(strokes)
    whole[:1, 10:80, 20:90] = strokes[:1, 10:80, 20:90]
    save(folder / "strokes" / "a.tif", whole)
    write(folder)
    assert expected == states(file, tasks=["train"], fresh=True) == {"train": "done"}
    write(folder, volumes=volumes)
    assert states(file, tasks=["train"]) == {"train": "up to date"}  # the same voxels, in another form

    z, y, x = np.nonzero(whole)
    rows = "".join(f"{a},{b},{c},{whole[a, b, c]}\n" for a, b, c in zip(z, y, x, strict=True))
    (folder / "strokes" / "points.csv").write_text("z,y,x,class\n" + rows)
    steps = {**STEPS, "segment": {"mask": "auto"}}
    write(folder, steps, volumes=[{"path": "scans/a.tif", "strokes": "strokes/points.csv"}])
    assert states(file) == {"train": "up to date", **all_of("done", IDS[1:4])}


def test_files_without_a_header_and_transposed_ones_are_read_as_the_workflow_states(tmp_path):
    file = make_series(tmp_path / "project", names=("a", "b"))
    folder = tmp_path / "project"
    for name in "ab":
        image = tifffile.imread(folder / "scans" / f"{name}.tif")
        (folder / "scans" / f"{name}.raw").write_bytes(b"head" + image.astype(">u2").tobytes())
        (folder / "scans" / f"{name}.tif").unlink()
    b = np.fromfile(folder / "scans" / "b.raw", ">u2", offset=4).reshape(SHAPE)
    save(folder / "scans" / "b.tif", b.T)
    save(folder / "truth" / "b.tif", tifffile.imread(folder / "truth" / "b.tif").T)
    raw = {"shape": list(SHAPE), "dtype": "uint16", "offset": 4, "byteorder": "big"}
    volumes = ["scans/a.raw", {"path": "scans/b.tif", "reading": {"axis_order": "xyz"}}]
    write(folder, volumes=volumes, reading={"raw": raw, "voxel_size": 2.5, "unit": "um"})
    report = run_series(file)
    assert {one.task.id: one.state for one in report.outcomes} == all_of("done")
    assert all(row.miou > 0.8 for row in report.rows)
    multiscale = zarr.open_group(folder / "results" / "b.ome.zarr" / "labels" / "hrvol", mode="r")
    (first, *_) = multiscale.attrs["ome"]["multiscales"][0]["datasets"]
    assert first["coordinateTransformations"][0]["scale"] == [2.5, 2.5, 2.5]
    assert multiscale["0"].shape == SHAPE
    assert states(file) == all_of("up to date")


def test_volumes_are_converted_and_the_other_steps_read_the_images(tmp_path):
    volumes = ["scans/a.raw", "scans/b.tif"]
    reading = {"raw": {"shape": list(SHAPE), "dtype": "uint16"}, "voxel_size": 2.5, "unit": "um"}
    labels, files = {}, {}
    for kind in ("in place", "converted"):
        folder = tmp_path / kind
        files[kind] = make_series(folder, names=("a", "b"))
        tifffile.imread(folder / "scans" / "a.tif").astype("<u2").tofile(folder / "scans" / "a.raw")
        (folder / "scans" / "a.tif").unlink()
        steps = STEPS if kind == "in place" else {"convert": {"volumes": ["a"], "verify": True}, **STEPS}
        steps = {**steps, "export": {"output": "{name}.tif", "what": "image"}}
        write(folder, steps, volumes=volumes, reading=reading)
        ids = [*IDS, *(["convert.a"] if kind == "converted" else [])]
        if kind == "converted":
            before = states(files[kind], dry_run=True)
            assert before["convert.a"] == "to do"
            assert before["train"] == before["segment.a"] == "waits"
        assert states(files[kind]) == all_of("done", ids)
        assert states(files[kind]) == all_of("up to date", ids)
        labels[kind] = [
            zarr.open_array(folder / "results" / f"{name}.ome.zarr" / "labels/hrvol/0", mode="r")[...]
            for name in "ab"
        ]
    assert np.array_equal(labels["converted"], labels["in place"])
    results = tmp_path / "converted" / "results"
    image = open_volume(results / "a.volume.ome.zarr")
    assert image.voxel_size == (2.5, 2.5, 2.5)
    assert np.array_equal(tifffile.imread(results / "a.tif"), image.read())
    assert not (results / "b.volume.ome.zarr").exists()
    # Other grey values make all that was made of them out of date.
    steps = {"convert": {"volumes": ["a"], "uint8": "0,65535", "ome_zarr": 0.4}, **STEPS}
    file = write(tmp_path / "converted", steps, volumes=volumes, reading=reading)
    assert states(file, dry_run=True)["convert.a"] == "out of date"
    assert states(file)["convert.a"] == "failed"
    assert states(file, fresh=True) == all_of("done", [*IDS, "convert.a"]) | dict.fromkeys(
        [f"{step}.b" for step in ("segment", "evaluate", "export")], "done"
    )
    assert open_volume(results / "a.volume.ome.zarr").dtype == np.uint8
