"""Labels written into the image that was segmented: whole or not at all, and nothing else changes."""

import hashlib
import json
import shutil

import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from fault_data import Run
from ome_zarr_models import open_ome_zarr
from run_data import make_volume

from hrvol.cli import main
from hrvol.engine.stop import Stop
from hrvol.errors import InputError, OtherRunError, OutputExistsError, StoppedError, UsageError
from hrvol.run.segment import segment_volume
from hrvol.run.status import run_status
from hrvol.segment.model.model import save_model
from hrvol.volume.volume import class_info, open_labels, open_volume
from hrvol.volume.write_image import write_image

SHAPE = (4, 150, 300)
VERSIONS = ("0.4", "0.5")


def as_older(new, old):
    """Copy an image of OME-Zarr 0.5 to one of 0.4, with its coarser levels."""
    source = zarr.open_group(new, mode="r")
    group = zarr.create_group(old, zarr_format=2)
    entry = {"version": "0.4", **source.attrs["ome"]["multiscales"][0]}
    group.attrs["multiscales"] = [entry]
    for dataset in entry["datasets"]:
        path, encoding = dataset["path"], {"name": "v2", "separator": "/"}
        values = source[path][...]
        group.create_array(path, data=values, chunks=(2, 64, 64), chunk_key_encoding=encoding)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Images of both versions, and an uninterrupted output of the usual kind."""
    folder = tmp_path_factory.mktemp("images")
    image, _ = make_volume(shape=SHAPE)
    write_image(folder / "0.5.ome.zarr", open_volume(image))
    as_older(folder / "0.5.ome.zarr", folder / "0.4.ome.zarr")
    return folder


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    file = tmp_path_factory.mktemp("model") / "m.hrvol"
    save_model(model, file)
    return file


@pytest.fixture(scope="module")
def expected(images, saved, tmp_path_factory):
    out = tmp_path_factory.mktemp("expected") / "out.ome.zarr"
    segment_volume(images / "0.5.ome.zarr", out, saved, probabilities=True, uncertainty=True)
    return zarr.open_group(out, mode="r")


@pytest.fixture(params=VERSIONS)
def image(images, tmp_path, request):
    return shutil.copytree(images / f"{request.param}.ome.zarr", tmp_path / f"{request.param}.ome.zarr")


def sums(folder, but=()):
    """Return a checksum of each file that is not below one of these paths."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(path.is_relative_to(folder / name) for name in but)
    }


def check(image, expected, name="hrvol"):
    """Compare all labels with those of an output of the usual kind."""
    labels = zarr.open_group(image / "labels" / name, mode="r")
    for level in ("0", "1"):
        np.testing.assert_array_equal(labels[level][...], expected[f"labels/hrvol/{level}"][...])
    assert labels.attrs["hrvol"]["complete"] is True
    assert not list((image / "labels").glob("*.unfinished"))
    return labels


def test_labels_appear_and_all_else_is_kept(image, saved, expected):
    before = sums(image)
    report = segment_volume(
        image, None, saved, into_input=True, name="phases", probabilities=True, uncertainty=True
    )
    assert report.voxels == np.prod(SHAPE)
    labels = check(image, expected, "phases")
    for name in ("probabilities", "uncertainty"):
        np.testing.assert_array_equal(labels[name]["0"][...], expected[name]["0"][...])
    assert sums(image, ["labels"]) == before
    own = sums(image, ["labels/phases"])
    assert own.keys() - before.keys() == (
        {"labels/zarr.json"} if "0.5" in image.name else {"labels/.zgroup", "labels/.zattrs"}
    )
    names = set(sums(image / "labels" / "phases"))
    other = {".zgroup", ".zattrs", ".zarray"} if "0.5" in image.name else {"zarr.json"}
    assert not {name for name in names if name.rpartition("/")[2] in other}

    model = open_ome_zarr(zarr.open_group(image / "labels", mode="r"))
    version = "v04" if "0.4" in image.name else "v05"
    assert type(model).__module__.startswith(f"ome_zarr_models.{version}")
    label = open_ome_zarr(zarr.open_group(image / "labels" / "phases", mode="r"))
    assert type(label).__name__ == "ImageLabel"
    assert type(label).__module__.startswith(f"ome_zarr_models.{version}")
    parent = open_ome_zarr(zarr.open_group(image, mode="r"))
    assert parent.labels is not None

    opened = open_labels(image, name="phases")
    assert opened.voxel_size == open_volume(image).voxel_size
    assert [info.name for info in class_info(image, name="phases")] == ["matrix", "disc"]
    np.testing.assert_array_equal(opened.read(), expected["labels/hrvol/0"][...])


def test_again_other_names_and_other_settings(image, saved, expected):
    segment_volume(image, None, saved, into_input=True)
    after = sums(image)
    again = segment_volume(image, None, saved, into_input=True)
    assert (again.before, again.voxels) == (np.prod(SHAPE), np.prod(SHAPE))
    assert sum(again.fractions.values()) == pytest.approx(1)
    assert sums(image) == after
    status = run_status(image / "labels" / "hrvol")
    assert (status["state"], status["left"]) == ("complete", 0)
    assert status["done"] == again.blocks

    with pytest.raises(OtherRunError, match="another name"):
        segment_volume(image, None, saved, into_input=True, roi=(slice(0, 2), slice(None), slice(None)))
    assert sums(image) == after

    segment_volume(image, None, saved, into_input=True, name="second")
    assert sums(image, ["labels/second", "labels/zarr.json", "labels/.zattrs"]).items() <= after.items()
    attributes = zarr.open_group(image / "labels", mode="r").attrs.asdict()
    assert attributes.get("ome", attributes)["labels"] == ["hrvol", "second"]

    roi = (slice(0, 2), slice(None), slice(None))
    segment_volume(image, None, saved, into_input=True, roi=roi, overwrite=True)
    labels = open_labels(image, name="hrvol").read()
    assert not labels[2:].any()
    np.testing.assert_array_equal(labels[:2], expected["labels/hrvol/0"][:2])
    attributes = zarr.open_group(image / "labels", mode="r").attrs.asdict()
    assert sorted(attributes.get("ome", attributes)["labels"]) == ["hrvol", "second"]


def test_labels_of_others_are_refused_and_kept(image, saved):
    labels = zarr.create_group(image / "labels" / "hrvol", zarr_format=2 if "0.4" in image.name else 3)
    labels.create_array("0", data=np.ones(SHAPE, np.uint8))
    before = sums(image)
    for overwrite in (False, True):
        with pytest.raises(OutputExistsError, match="did not write"):
            segment_volume(image, None, saved, into_input=True, overwrite=overwrite)
    assert sums(image) == before


def test_what_others_added_to_our_labels_is_kept(image, saved):
    segment_volume(image, None, saved, into_input=True)
    (image / "labels" / "hrvol" / "notes.txt").write_text("mine")
    before = sums(image)
    with pytest.raises(OutputExistsError, match=r"notes\.txt"):
        segment_volume(image, None, saved, into_input=True, overwrite=True)
    assert sums(image) == before


def test_other_attributes_of_the_group_of_labels_are_kept(image, saved):
    older = "0.4" in image.name
    group = zarr.create_group(image / "labels", zarr_format=2 if older else 3)
    inner = {"labels": ["theirs"]}
    group.attrs.update({"mine": [1, 2], **(inner if older else {"ome": {"version": "0.5", "x": 1, **inner}})})
    theirs = group.create_group("theirs")
    theirs.attrs["a"] = 1
    before = sums(image, ["labels/zarr.json", "labels/.zattrs"])
    segment_volume(image, None, saved, into_input=True)
    assert sums(image, ["labels/zarr.json", "labels/.zattrs", "labels/hrvol"]) == before
    attributes = zarr.open_group(image / "labels", mode="r").attrs.asdict()
    assert attributes["mine"] == [1, 2]
    assert attributes.get("ome", attributes)["labels"] == ["theirs", "hrvol"]
    assert older or attributes["ome"]["x"] == 1


def test_consolidated_metadata_list_the_labels(image, saved, expected):
    zarr.consolidate_metadata(image)
    key = ".zmetadata" if "0.4" in image.name else "zarr.json"
    before = sums(image, [key])
    segment_volume(image, None, saved, into_input=True)
    assert sums(image, [key, "labels"]) == before
    found = zarr.open_consolidated(image)
    np.testing.assert_array_equal(found["labels/hrvol/0"][...], expected["labels/hrvol/0"][...])
    np.testing.assert_array_equal(found["0"][...], zarr.open_array(image / "0", mode="r")[...])
    assert open_labels(image).dtype == np.uint8
    ours = json.loads((image / key).read_bytes())
    zarr.consolidate_metadata(image)
    theirs = json.loads((image / key).read_bytes())
    inner = (
        (lambda d: d["metadata"])
        if "0.4" in image.name
        else (lambda d: d["consolidated_metadata"]["metadata"])
    )
    assert inner(ours).keys() == inner(theirs).keys()


def test_consolidated_metadata_that_are_damaged_are_found_first(images, saved, tmp_path):
    image = shutil.copytree(images / "0.4.ome.zarr", tmp_path / "v.ome.zarr")
    zarr.consolidate_metadata(image)
    text = (image / ".zmetadata").read_text()
    (image / ".zmetadata").write_text(
        text.replace('"metadata": {', '"metadata": {"x/.zattrs": {"y": NaN}, ', 1)
    )
    before = sums(image)
    with pytest.raises(InputError, match=r"\.zmetadata: found .*, expected JSON"):
        segment_volume(image, None, saved, into_input=True)
    assert sums(image) == before


@pytest.mark.parametrize(
    "point", [3, 40, 75, 110, "hrvol.unfinished/.adopting", "labels/zarr.json", "/copy/1/0/0"]
)
def test_a_killed_run_is_resumed(image, saved, expected, tmp_path, point):
    before = sums(image)
    command = ["segment", str(image), "--into-input", "-m", str(saved), "--engine", "serial"]
    older = "0.4" in image.name
    point = "labels/.zattrs" if older and point == "labels/zarr.json" else point
    with Run(command, tmp_path / "log", dies_at=point) as run:
        code = run.wait()
    killed = code == -9
    assert killed or (code == 0 and not isinstance(point, int)), run.said  # no copy of an image of 0.5
    assert sums(image, ["labels"]) == before
    listed = zarr.open_group(image / "labels", mode="r").attrs.asdict() if code == 0 else {}
    assert killed or listed
    if isinstance(point, int) and killed:
        assert not (image / "labels" / "hrvol").exists()
    segment_volume(image, None, saved, into_input=True)
    check(image, expected)
    attributes = zarr.open_group(image / "labels", mode="r").attrs.asdict()
    assert attributes.get("ome", attributes)["labels"] == ["hrvol"]
    assert sums(image, ["labels"]) == before


def test_a_stopped_copy_is_continued(images, saved, expected, tmp_path):
    image = shutil.copytree(images / "0.4.ome.zarr", tmp_path / "image.ome.zarr")
    stop = Stop()

    def progress(stage, done, total):
        if stage == "write into the input":
            stop.request()

    with pytest.raises(StoppedError, match="run the same command"):
        segment_volume(image, None, saved, into_input=True, stop=stop, progress=progress)
    assert not (image / "labels" / "hrvol").exists()
    segment_volume(image, None, saved, into_input=True)
    check(image, expected)


def test_parts(image, saved, expected):
    for k in (1, 2, 3):
        report = segment_volume(image, None, saved, into_input=True, part=(k, 3))
        assert (report.left == 0) == (k == 3)
        assert (image / "labels" / "hrvol").exists() == (k == 3)
    check(image, expected)


def test_command_line(image, saved, expected, tmp_path):
    def run(*words, code=0):
        result = CliRunner().invoke(main, [str(word) for word in words])
        assert result.exit_code == code, result.output
        return result

    command = ("segment", image, "-m", saved, "--engine", "serial")
    assert "choose one" in run(*command[:2], tmp_path / "out", *command[2:], "--into-input", code=2).stderr
    assert "OUT.ome.zarr" in run(*command, code=2).stderr
    assert "time" in run(*command, "--into-input", "--dry-run").stdout
    assert not (image / "labels" / "hrvol.unfinished").exists()
    assert f"{image}/labels/a: " in run(*command, "--into-input", "--name", "a").stdout
    assert "already complete" in run(*command, "--into-input", "--name", "a").stdout
    assert "complete, 100 %" in run("status", image / "labels" / "a").stdout
    check(image, expected, "a")
    run("export", image, "-o", tmp_path / "a.tif")
    run("export", image, "-o", tmp_path / "grey.tif", "--what", "image")
    run("evaluate", image / "labels" / "a", tmp_path / "a.tif")
    np.testing.assert_array_equal(open_volume(tmp_path / "grey.tif").read(), open_volume(image).read())


def test_what_is_no_local_image_is_refused_in_one_line(images, saved, tmp_path):
    image, _ = make_volume(shape=SHAPE)
    plain = zarr.save_array(tmp_path / "plain.zarr", image) or tmp_path / "plain.zarr"
    segment_volume(plain, tmp_path / "out.ome.zarr", saved)
    old = shutil.copytree(images / "0.4.ome.zarr", tmp_path / "old.ome.zarr")
    group = zarr.open_group(old, mode="r+")
    group.attrs["multiscales"] = [
        {**group.attrs["multiscales"][0], "version": "0.3", "axes": ["z", "y", "x"]}
    ]
    for source, error, text in (
        (image, UsageError, "ndarray"),
        ("s3://bucket/image.ome.zarr", UsageError, "local"),
        (tmp_path / "nothing", InputError, "no OME-Zarr image"),
        (plain, InputError, "no OME-Zarr image"),
        (tmp_path / "out.ome.zarr", InputError, "an output of hrvol"),
        (tmp_path / "out.ome.zarr" / "labels" / "hrvol", InputError, "found labels"),
        (old, InputError, "OME-Zarr 0.3"),
    ):
        with pytest.raises(error, match=text) as refused:
            segment_volume(source, None, saved, into_input=True)
        assert "\n" not in str(refused.value)
    for name in ("", "a/b", ".hidden", "..", "zarr.json", "a\nb"):
        with pytest.raises(UsageError, match="name"):
            segment_volume(images / "0.5.ome.zarr", None, saved, into_input=True, name=name)
    with pytest.raises(UsageError, match="expected one of them"):
        segment_volume(images / "0.5.ome.zarr", tmp_path / "x", saved, into_input=True)
    assert not (images / "0.5.ome.zarr" / "labels").exists()


def test_the_first_image_of_a_bioformats_layout(images, saved, expected, tmp_path):
    group = zarr.create_group(
        tmp_path / "layout.ome.zarr", attributes={"ome": {"version": "0.5", "bioformats2raw.layout": 3}}
    )
    assert isinstance(group, zarr.Group)
    shutil.copytree(images / "0.5.ome.zarr", tmp_path / "layout.ome.zarr" / "0")
    segment_volume(tmp_path / "layout.ome.zarr", None, saved, into_input=True)
    check(tmp_path / "layout.ome.zarr" / "0", expected)
