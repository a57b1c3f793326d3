"""Cleaning: steps as text, and the result of blocks is that of the whole array."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage import measure

from hrvol import clean_labels, open_volume, run_status
from hrvol.analysis.cleaning.filters import ball
from hrvol.analysis.cleaning.joining import decide
from hrvol.analysis.cleaning.steps import parse_step
from hrvol.analysis.sizes import VoxelGrid, least_voxels, radius_voxels
from hrvol.classes import ClassInfo, default_classes
from hrvol.cli import main
from hrvol.engine.stop import Stop
from hrvol.errors import InputError, OtherRunError, OutputExistsError, StoppedError, UsageError
from hrvol.run.clean.clean_block import CleanJob, stages_of
from hrvol.volume.ome.labels import create_labels
from hrvol.volume.volume import class_info, open_labels

GRID = VoxelGrid(3, (2.0, 1.0, 1.0), "micrometer", "labels")

CLASSES = default_classes((1, 2, 3), ("pore", "dense binder", "grain"))


def stored(out):
    return np.asarray(zarr.open_array(out / "labels/hrvol/0", mode="r"))


def blobs(shape=(12, 30, 34), seed=0, classes=3):
    noise = np.random.default_rng(seed).normal(size=(classes, *shape))
    smooth = [ndimage.gaussian_filter(plane, 1.2) for plane in noise]
    return (np.argmax(smooth, axis=0) + 1).astype(np.uint8)


def test_sizes_are_read_in_units_and_voxels():
    assert least_voxels("500", GRID) == 500
    assert least_voxels("500 um^3", GRID) == least_voxels("500µm³", GRID) == 250
    assert least_voxels("1e-3 mm3", GRID) == 500_000
    assert radius_voxels("4um", GRID) == (2.0, 4.0, 4.0)
    assert radius_voxels("1.5", GRID) == (1.5, 1.5, 1.5)
    assert least_voxels("10um2", VoxelGrid(2, (1.0, 0.5, 0.5), "micrometer", "image")) == 40


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("500um2", "expected a volume"),
        ("500um", "expected a volume"),
        ("500furlong3", "one of length"),
        ("0", "expected 1 or more"),
        ("-3", "expected a size"),
        ("nan", "expected a size"),
        ("9" * 400, "expected 1 or more"),
    ],
)
def test_wrong_sizes_are_one_line(text, message):
    with pytest.raises(UsageError, match=message):
        least_voxels(text, GRID)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("melt pore 3", "expected it to begin with"),
        ("remove pore", "expected remove CLASSES SIZE"),
        ("remove stone 5", "expected one of: 1 pore, 2 dense binder"),
        ("open pore 3um3", "expected a length"),
        ("open pore 0.4", "less than a voxel"),
        ("open pore 1000", "at most 64"),
        ("remove pore,1 5", "a class twice"),
        ("remove 'pore 5", "expected it to begin with"),
        ("keep-largest pore 5", "expected keep-largest"),
        ("", "expected it to begin with"),
    ],
)
def test_wrong_steps_are_one_line(text, message):
    with pytest.raises(UsageError, match=message):
        parse_step(text, CLASSES, GRID)


def test_steps_name_classes_by_name_and_number():
    (step,) = parse_step("remove 'dense binder',3 500um3 into pore", CLASSES, GRID)
    assert (step.classes, step.least, step.into) == ((2, 3), 250, 1)
    assert [step.classes for step in parse_step("fill all", CLASSES, GRID)] == [(1,), (2,), (3,)]


STEPS = st.sampled_from(
    [
        "remove all 30",
        "remove 1,3 12",
        "remove 2 60 into 3",
        "keep-largest 2",
        "keep-largest all into 0",
        "fill 1",
        "fill 2 20",
        "open 1 1.5",
        "open all 1 into 0",
        "close 3 2",
        "majority 1",
        "majority 1.8",
    ]
)


def in_memory(labels, texts, block, *, background=False):
    """Clean an array by the functions that workers call, block by block."""
    volume = open_volume(labels)
    steps = [step for text in texts for step in parse_step(text, CLASSES, VoxelGrid.of(volume))]
    for stage in stages_of(steps):
        job = CleanJob(open_volume(labels), None, block, stage, "uint8", background)
        if stage.step is not None:
            job = replace(job, decisions=decide(stage.step, map(job.survey, job.grid)))
        after = np.full_like(labels, 99)
        for piece in job.grid:
            after[piece.core] = job.cleaned(piece)
        labels = after
    return labels


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(STEPS, min_size=1, max_size=3),
    seed=st.integers(0, 99),
    block=st.tuples(st.integers(3, 9), st.integers(5, 15), st.integers(5, 15)),
    background=st.booleans(),
)
def test_blocks_give_what_the_whole_array_gives(steps, seed, block, background):
    labels = blobs((9, 15, 14), seed)
    if background:
        labels[labels == 2] = 0
    whole = in_memory(labels, steps, labels.shape, background=background)
    cut = in_memory(labels, steps, block, background=background)
    np.testing.assert_array_equal(cut, whole)


def test_small_components_get_the_class_they_touch_most():
    labels = np.ones((20, 20, 20), np.uint8)
    labels[:, :, 10:] = 2
    labels[2:4, 2:4, 2:4] = 3  # 8 voxels in class 1
    labels[8:12, 8:12, 9:13] = 3  # 64, one layer of it in 1
    labels[15:18, 15:18, 15:18] = 3  # 27 in class 2
    result = in_memory(labels, ["remove 3 30"], (7, 16, 9))
    expected = labels.copy()
    expected[2:4, 2:4, 2:4] = 1
    expected[15:18, 15:18, 15:18] = 2
    np.testing.assert_array_equal(result, expected)


def test_components_and_holes_are_those_of_scikit_image():
    labels = blobs(seed=5)
    result = in_memory(labels, ["remove 2 40 into 1"], (5, 11, 13))
    numbered = measure.label(labels == 2, connectivity=3)
    small = (np.bincount(numbered.ravel()) < 40)[numbered] & (labels == 2)
    assert 0 < small.sum() < (labels == 2).sum()
    np.testing.assert_array_equal(result, np.where(small, 1, labels))
    filled = in_memory(labels, ["fill 1"], (5, 11, 13))
    np.testing.assert_array_equal(filled == 1, ndimage.binary_fill_holes(labels == 1))
    (largest,) = [
        region.label
        for region in measure.regionprops(numbered)
        if region.area == max(np.bincount(numbered.ravel())[1:])
    ]
    kept = in_memory(labels, ["keep-largest 2"], (5, 11, 13))
    np.testing.assert_array_equal(kept == 2, numbered == largest)


def test_opening_and_closing_are_those_of_scipy():
    labels = blobs((14, 24, 22), seed=3, classes=2)
    footprint = ball((2.0, 2.0, 2.0))
    assert footprint.sum() == 33
    opened = in_memory(labels, ["open 1 2"], (6, 9, 22))
    eroded = ndimage.binary_erosion(labels == 1, footprint, border_value=1)
    np.testing.assert_array_equal(opened == 1, ndimage.binary_dilation(eroded, footprint))
    closed = in_memory(labels, ["close 1 2"], (6, 9, 22))
    grown = ndimage.binary_dilation(labels == 1, footprint)
    np.testing.assert_array_equal(
        closed == 1, (labels == 1) | ndimage.binary_erosion(grown, footprint, border_value=1)
    )


def test_what_is_not_labelled_stays_unless_it_is_the_background():
    labels = blobs(seed=1)
    labels[labels == 3] = 0
    kept = in_memory(labels, ["majority 2", "remove all 20"], (8, 16, 16))
    np.testing.assert_array_equal(kept == 0, labels == 0)
    changed = in_memory(labels, ["majority 2"], (8, 16, 16), background=True)
    assert np.any((changed == 0) & (labels > 0))
    assert np.any((changed > 0) & (labels == 0))


@pytest.fixture
def named(tmp_path):
    """Labels of hrvol with names, a voxel size, and a region that is not labelled."""
    labels = blobs()
    like = open_volume(labels, voxel_size=(2.0, 1.0, 1.0), unit="um")
    infos = tuple(ClassInfo(c.value, c.name, (c.value, 7, 9)) for c in CLASSES)
    store = create_labels(tmp_path / "in.zarr", like, classes=infos, block_shape=(12, 30, 34), attributes={})
    store.write((slice(0, 12), slice(0, 30), slice(0, 34)), labels)
    store.finish()
    return tmp_path / "in.zarr", labels


RECIPE = ["remove all 60um3", "fill 'dense binder'", "majority 1"]

NUMBERED = ["remove all 30", "fill 2", "majority 1"]
"""The same of an array; its balls are of voxels, too."""


def test_names_colours_levels_and_steps_are_kept(tmp_path, named):
    source, _ = named
    out = tmp_path / "out.zarr"
    report = clean_labels(source, out, RECIPE, block_shape=(6, 16, 16))
    assert report.voxels == 12 * 30 * 34
    assert report.stages == 3
    assert sum(report.fractions.values()) == pytest.approx(1)
    assert class_info(out) == class_info(source)
    opened = open_labels(out)
    assert (opened.voxel_size, opened.unit) == ((2.0, 1.0, 1.0), "micrometer")
    attributes = zarr.open_group(out, mode="r").attrs["hrvol"]
    assert attributes["complete"] is True
    assert attributes["cleaning"]["steps"] == RECIPE
    assert attributes["cleaning"]["in_voxels"][0]["least_voxels"] == 30
    assert ".stages" not in os.listdir(out)
    assert run_status(out)["state"] == "complete"
    before = {file: file.stat().st_mtime_ns for file in out.rglob("c/*/*/*")}
    assert clean_labels(source, out, RECIPE, block_shape=(6, 16, 16)).before == report.voxels
    assert {file: file.stat().st_mtime_ns for file in out.rglob("c/*/*/*")} == before
    with pytest.raises(OtherRunError, match="other settings"):
        clean_labels(source, out, ["fill all"], block_shape=(6, 16, 16))
    clean_labels(source, out, ["fill all"], block_shape=(6, 16, 16), overwrite=True)


def arrays(out):
    """Return the bytes of all stored labels, of all levels."""
    return {
        str(f.relative_to(out)): f.read_bytes() for f in out.rglob("labels/hrvol/*/c/**/*") if f.is_file()
    }


@pytest.mark.parametrize("stage", ["survey 2/3", "clean 3/3"])
def test_a_killed_run_is_resumed_to_the_same_labels(tmp_path, named, stage):
    source, labels = named
    out = tmp_path / "out.zarr"

    def kill(name, done, total):
        if name == stage and done:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        try:
            clean_labels(source, out, RECIPE, block_shape=(6, 16, 16), progress=kill)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert zarr.open_group(out, mode="r").attrs["hrvol"]["complete"] is False
    clean_labels(source, out, RECIPE, block_shape=(6, 16, 16))
    np.testing.assert_array_equal(stored(out), in_memory(labels, NUMBERED, (12, 30, 34)))
    assert zarr.open_group(out, mode="r").attrs["hrvol"]["complete"] is True
    assert ".stages" not in os.listdir(out)


def test_a_stop_is_resumed_and_damage_is_repaired(tmp_path, named):
    source, _ = named
    out, stop = tmp_path / "out.zarr", Stop()

    def halt(name, done, total):
        if name == "clean 2/3" and done:
            stop.request()

    with pytest.raises(StoppedError, match="run the same command"):
        clean_labels(source, out, RECIPE, block_shape=(6, 16, 16), progress=halt, stop=stop)
    clean_labels(source, out, RECIPE, block_shape=(6, 16, 16))
    whole = arrays(out)
    damaged = next(Path(out).glob("labels/hrvol/0/c/1/*/*"))
    damaged.write_bytes(b"damaged")
    clean_labels(source, out, RECIPE, block_shape=(6, 16, 16))
    assert arrays(out) == whole


def test_changed_labels_are_cleaned_again(tmp_path, named):
    source, _ = named
    out = tmp_path / "out.zarr"
    steps = ["keep-largest all"]

    def kill(name, done, total):
        if name == "clean" and done:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        try:
            clean_labels(source, out, steps, block_shape=(6, 16, 16), progress=kill)
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    array = zarr.open_array(source / "labels/hrvol/0", mode="r+")
    changed = np.asarray(array)
    changed[8, 10:20, 10:20] = 3  # not where the identity of the input is sampled
    array[:] = changed
    clean_labels(source, out, steps, block_shape=(6, 16, 16))
    np.testing.assert_array_equal(stored(out), in_memory(changed, steps, (12, 30, 34)))


def test_two_workers_write_what_one_process_writes(tmp_path, named):
    source, _ = named
    steps = ["majority 1", "remove all 60um3"]
    clean_labels(source, tmp_path / "one.zarr", steps, block_shape=(6, 16, 16))
    clean_labels(source, tmp_path / "two.zarr", steps, block_shape=(6, 16, 16), engine="local", workers=2)
    assert arrays(tmp_path / "one.zarr") == arrays(tmp_path / "two.zarr")


def test_an_image_and_a_volume_of_one_plane_are_cleaned(tmp_path):
    image = blobs((1, 40, 50), seed=2)
    ring = image[0]
    ring[5:12, 5:12], ring[7:10, 7:10] = 1, 2
    steps = ["fill 1", "open 1 1.5", "remove all 6"]
    clean_labels(image[0], tmp_path / "image.zarr", steps, block_shape=(1, 16, 16))
    result = stored(tmp_path / "image.zarr")
    assert result.shape == (40, 50)
    assert result[8, 8] == 1
    np.testing.assert_array_equal(in_memory(image, steps, (1, 40, 50))[0], result)


def run(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)])


def test_the_command_cleans_and_says_how_much(tmp_path, named):
    source, _ = named
    out = tmp_path / "out.zarr"
    done = run("clean", source, out, "--step", "remove all 60um3", "--engine", "serial")
    assert done.exit_code == 0, done.output
    assert "dense binder" in done.output
    assert "voxels/s" in done.output
    again = run("clean", source, out, "--step", "remove all 60um3", "--engine", "serial")
    assert "is already complete" in again.output


def test_what_cannot_be_cleaned_is_one_line(tmp_path, named):
    source, labels = named
    tifffile.imwrite(tmp_path / "plain.tif", labels)
    out = tmp_path / "out.zarr"
    with pytest.raises(UsageError, match="no voxel size for '5um3', expected sizes in voxels"):
        clean_labels(tmp_path / "plain.tif", out, ["remove 1 5um3"])
    with pytest.raises(UsageError, match="found 0, expected 1 to 50"):
        clean_labels(source, out, [])
    with pytest.raises(InputError, match="no labels above 0"):
        clean_labels(np.zeros((4, 5, 6), np.uint8), out, ["fill all"])
    with pytest.raises(InputError, match="found label -3"):
        clean_labels(np.full((4, 5, 6), -3, np.int16), out, ["fill all"])
    with pytest.raises(InputError, match="expected whole numbers"):
        clean_labels(np.zeros((4, 5, 6), np.float32), out, ["fill all"])
    with pytest.raises(UsageError, match="expected another path"):
        clean_labels(source, source, ["fill all"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("x")
    with pytest.raises(OutputExistsError):
        clean_labels(source, tmp_path / "mine", ["fill all"], overwrite=True)
    assert not out.exists()
    # A value that the metadata do not name, above what the output can hold.
    report = clean_labels(_wide(source, tmp_path), out, ["majority 1"])
    assert "found label 300, expected 0 to 255" in report.failed[0].reason
    assert not out.exists()


def _wide(source, folder):
    like = open_volume(source)
    store = create_labels(
        folder / "wide.zarr",
        like,
        classes=(*CLASSES, ClassInfo(300, "rare", (1, 2, 3))),
        block_shape=(12, 30, 34),
        attributes={},
    )
    values = np.full(like.shape, 300, np.uint16)
    store.write((slice(0, 12), slice(0, 30), slice(0, 34)), values)
    store.finish()
    group = zarr.open_group(folder / "wide.zarr/labels/hrvol", mode="r+")
    ome = dict(group.attrs["ome"])
    label = ome["image-label"]
    for key in ("colors", "properties"):
        label[key] = [row for row in label[key] if row["label-value"] != 300]
    group.attrs["ome"] = ome
    return folder / "wide.zarr"
