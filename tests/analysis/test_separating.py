"""Separating objects: what blocks give is what the whole array gives, voxel by voxel."""

import itertools
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
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage import measure
from skimage.metrics import adapted_rand_error
from skimage.morphology import h_maxima, local_maxima, reconstruction
from skimage.segmentation import watershed

from hrvol import open_volume, run_status, separate_instances
from hrvol.analysis.classes_of_objects import classes_of_objects
from hrvol.analysis.separating.basins import pack, unpack
from hrvol.analysis.separating.contraction import contraction
from hrvol.analysis.separating.graph import Passes
from hrvol.analysis.separating.heights import STEPS, distance_heights
from hrvol.analysis.separating.merging import Choice, Depth, merge_basins, merged_over
from hrvol.classes import default_classes
from hrvol.cli import main
from hrvol.engine.stop import Stop
from hrvol.errors import InputError, OtherRunError, OutputExistsError, StoppedError, UsageError
from hrvol.run.instances.instance_block import BasinJob, Landscape, ObjectJob
from hrvol.run.instances.prepare_instances import InstanceOptions, dtype_of
from hrvol.run.instances.separate_instances import separate
from hrvol.volume.ome.label_documents import LabelOutputs
from hrvol.volume.ome.labels import create_labels
from hrvol.volume.volume import open_labels

SHARE = Depth(share=0.3)
"""The default."""

ALL = Choice()


def stored(out):
    return np.asarray(zarr.open_array(out / "labels/hrvol/0", mode="r"))


def blobs(shape, seed=0, classes=2, sigma=1.5):
    noise = np.random.default_rng(seed).normal(size=(classes, *shape))
    smooth = [ndimage.gaussian_filter(plane, sigma) for plane in noise]
    return np.argmax(smooth, axis=0).astype(np.uint8)


def balls(shape, centres, radius, size=(1.0, 1.0, 1.0)):
    """Return a map of balls; radius, centres and the size of voxels in one unit."""
    places = np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, size, strict=True)), indexing="ij")
    labels = np.zeros(shape, np.uint8)
    for centre in centres:
        squares = [(p - c) ** 2 for p, c in zip(places, centre, strict=True)]
        labels[sum(squares) <= radius**2] = 1
    return labels


def touching_balls(counts, radius=6.3, step=11.0, size=(1.0, 1.0, 1.0)):
    """Return a lattice of balls that overlap a little, and their centres."""
    centres = [tuple(step * (i + 0.73) for i in index) for index in itertools.product(*map(range, counts))]
    shape = tuple(round(step * (n + 0.46) / s) for n, s in zip(counts, size, strict=True))
    return balls(shape, centres, radius, size), centres


def in_memory(labels, block, *, cell=8, land=None, depth=SHARE, choice=ALL):
    """Separate objects by the functions that workers call, block by block."""
    land = land or Landscape((1,), (1.0, 1.0, 1.0), 64.0, depth, cell=cell)
    job = BasinJob(open_volume(labels), None, block, land)
    between = np.zeros(labels.shape, np.uint64)
    for piece in job.grid:
        between[piece.core] = job.computed(piece)
    job = ObjectJob(open_volume(between), None, block, land)
    objects = merge_basins(map(job.survey, job.grid), depth, choice)
    job = replace(job, objects=objects)
    result = np.zeros(labels.shape, np.uint32)
    for piece in job.grid:
        result[piece.core] = job.computed(piece)
    return result


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 99),
    block=st.tuples(*(st.integers(1, 4) for _ in range(3))),
    depth=st.sampled_from([Depth(), SHARE, Depth(height=1.5 * STEPS), Depth(share=1.0)]),
    most=st.sampled_from([1.0, 2.5, 64.0]),
    sampling=st.sampled_from([(1.0, 1.0, 1.0), (2.5, 1.0, 1.3)]),
    choice=st.sampled_from([ALL, Choice(12), Choice(1, False)]),
)
def test_blocks_give_what_the_whole_array_gives(seed, block, depth, most, sampling, choice):
    labels = blobs((13, 21, 18), seed, classes=3)
    land = Landscape((1, 2), sampling, most, depth, cell=5)
    one = in_memory(labels, labels.shape, land=land, depth=depth, choice=choice)
    cut = in_memory(labels, tuple(5 * n for n in block), land=land, depth=depth, choice=choice)
    np.testing.assert_array_equal(cut, one)
    numbers = np.unique(one[one > 0])
    assert numbers.tolist() == list(range(1, len(numbers) + 1))
    firsts = [np.flatnonzero(one.ravel() == number)[0] for number in numbers]
    assert firsts == sorted(firsts)
    if choice == ALL:
        np.testing.assert_array_equal(one > 0, labels > 0)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99), block=st.tuples(*(st.integers(1, 3) for _ in range(3))))
def test_merged_at_any_depth_they_are_connected_components(seed, block):
    labels = blobs((14, 20, 17), seed, classes=3)
    found = in_memory(labels, tuple(6 * n for n in block), cell=6, depth=Depth(share=1.0))
    np.testing.assert_array_equal(found, measure.label(labels == 1, connectivity=3))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99), cell=st.sampled_from([3, 4, 7]), depth=st.sampled_from([0.0, 0.7, 1.5, 3.0]))
def test_objects_are_as_many_as_h_maxima(seed, cell, depth):
    mask = blobs((16, 22, 19), seed, sigma=2.5) == 1
    heights = np.rint(ndimage.distance_transform_edt(mask) * STEPS).astype(np.int64)
    found = in_memory(mask.astype(np.uint8), (2 * cell,) * 3, cell=cell, depth=Depth(height=depth * STEPS))
    lowered = heights - (max(round(depth * STEPS), 1) - 1)
    domes = reconstruction(lowered, heights, footprint=np.ones((3, 3, 3)))
    peaks = measure.label(local_maxima(domes, connectivity=3) & mask, connectivity=3)
    # The highest peak of a component counts, however low it is.
    components = measure.label(mask, connectivity=3)
    lost = set(range(1, components.max() + 1)) - set(components[peaks > 0].tolist())
    assert found.max() == peaks.max() + len(lost)
    tops = ndimage.maximum_position(heights, found, range(1, found.max() + 1))
    assert len({peaks[top] for top in tops} - {0}) == peaks.max()


@pytest.mark.parametrize(("cell", "most"), [(64, 0.001), (16, 0.06)])
@pytest.mark.parametrize("seed", range(4))
def test_borders_are_those_of_scikit_image_but_for_faces_of_cells(seed, cell, most):
    labels, _ = touching_balls((2, 3, 3), radius=6.0 + np.random.default_rng(seed).random())
    distance = ndimage.distance_transform_edt(labels)
    markers = measure.label(h_maxima(np.rint(distance * STEPS), STEPS), connectivity=3)
    expected = watershed(-distance, markers, mask=labels > 0)
    found = in_memory(labels, (cell, cell, 2 * cell), cell=cell, depth=Depth(height=STEPS))
    assert found.max() == markers.max() == 18
    assert adapted_rand_error(expected, found)[0] <= most


@pytest.mark.parametrize("most", [4.0, 64.0])
@pytest.mark.parametrize("sampling", [(1.0, 1.0, 1.0), (3.0, 1.0, 1.5)])
def test_heights_are_exact_distances_whatever_is_read_first(sampling, most):
    labels = np.zeros((50, 60, 70), np.uint16)
    labels[4:48, 8:55, 3:66] = 1  # far thicker than what is read first
    labels[10:20, 30:60, :30] = 2
    expected = sum(ndimage.distance_transform_edt(labels == value, sampling=sampling) for value in (1, 2))
    core = (slice(16, 32), slice(20, 40), slice(10, 50))
    classes, heights = distance_heights(lambda box: labels[box], core, labels.shape, sampling, most)
    np.testing.assert_array_equal(classes, labels[core])
    np.testing.assert_array_equal(heights, np.rint(np.minimum(expected[core], most) * STEPS))
    assert heights.max() == (most * STEPS if most == 4 else heights.max()) > 16 * (most > 16)


def test_a_volume_of_one_class_is_one_object():
    assert np.all(in_memory(np.ones((9, 12, 20), np.uint8), (8, 8, 8)) == 1)
    assert not in_memory(np.zeros((9, 12, 20), np.uint8), (8, 8, 8)).any()


def test_packing_keeps_all_bits():
    basins = np.array([[[0, 1, 2**32 - 1]]], np.uint32)
    heights, kept = np.array([[[7, 1, 65535]]], np.uint16), np.array([[[0, 65535, 3]]], np.uint16)
    one, two, three = unpack(pack(basins, heights, kept))
    np.testing.assert_array_equal(one, basins)
    np.testing.assert_array_equal(two[0, 0, 1:], heights[0, 0, 1:])
    np.testing.assert_array_equal(three, kept)


def test_a_low_peak_joins_the_object_behind_its_highest_pass():
    # Peaks 100, 60 and 90 in a row; the middle one is 10 above the pass to the first, 30 above the other.
    peaks = np.array([100, 60, 90], np.uint16)

    def merged(first, **depth):
        heights = np.array([first, 30], np.uint16)
        passes = Passes(np.array([[0, 1], [1, 2]]), heights, np.array([7, 5]))
        return merged_over(passes, peaks, Depth(**depth)).tolist()

    assert merged(50) == []
    assert merged(50, height=10) == []
    assert merged(50, height=11) == [[0, 1]]
    assert merged(50, share=0.2) == [[0, 1]]
    assert merged(50, height=61) == [[0, 1], [1, 2]]
    assert merged(60) == [[0, 1]]
    # Of equal passes, the first is opened first.
    assert merged(30, height=31) == [[1, 2]]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), depth=st.sampled_from([Depth(), Depth(height=2), Depth(share=0.3), Depth(share=1.0)]))
def test_merging_in_blocks_first_changes_nothing(data, depth):
    count = data.draw(st.integers(2, 12))
    peaks = np.array(data.draw(st.lists(st.integers(1, 9), min_size=count, max_size=count)), np.uint16)
    every = list(itertools.combinations(range(count), 2))
    meets = np.array(data.draw(st.lists(st.sampled_from(every), min_size=1, unique=True)))
    rows = len(meets)
    levels = data.draw(st.lists(st.integers(1, 9), min_size=rows, max_size=rows))
    heights = np.minimum(np.array(levels, np.uint16), peaks[meets].min(axis=1))
    passes = Passes(meets, heights, np.array(data.draw(st.permutations(range(rows)))))
    fixed = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))

    def groups(passes, peaks, start):
        links = merged_over(passes, peaks, depth)
        graph = coo_array((np.ones(len(links)), links.T), shape=(count, count))
        return connected_components(graph, directed=False)[1][start]

    expected = groups(passes, peaks, np.arange(count))
    into = contraction(passes, peaks, fixed, depth)
    fewer = np.sort(into[meets], axis=1)
    apart = fewer[:, 0] != fewer[:, 1]
    rest = Passes(fewer[apart], heights[apart], passes.places[apart]).highest()
    found = groups(rest, peaks, into)
    assert len(set(zip(expected, found, strict=True))) == len(set(expected)) == len(set(found))


@pytest.mark.parametrize("size", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0)])
def test_touching_balls_are_counted_exactly(tmp_path, size):
    labels, centres = touching_balls((3, 4, 4), radius=6.3, size=size)
    assert measure.label(labels).max() == 1
    volume = open_volume(labels, voxel_size=size, unit="um")
    options = InstanceOptions(("1",), depth="1um", block_shape=(8, 16, 16))
    report = separate(volume, tmp_path / "out.zarr", options, cell=8)
    assert report.objects == {"class 1": 48}
    found = stored(tmp_path / "out.zarr")
    at = [tuple(round(c / s) for c, s in zip(centre, size, strict=True)) for centre in centres]
    assert len({int(found[place]) for place in at}) == 48
    assert classes_of_objects(open_labels(tmp_path / "out.zarr").origin[0])[1:] == ["class 1"] * 48


def arrays(out):
    """Return the bytes of all stored objects, of all levels."""
    return {
        str(f.relative_to(out)): f.read_bytes() for f in out.rglob("labels/hrvol/*/c/**/*") if f.is_file()
    }


OPTIONS = InstanceOptions(("all",), block_shape=(8, 16, 16), min_size="5")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Labels in a file: blobs of two classes, several blocks of 8 x 16 x 16."""
    path = tmp_path_factory.mktemp("labels") / "labels.tif"
    tifffile.imwrite(path, blobs((20, 40, 36), 4, classes=3, sigma=2.0))
    return path


@pytest.fixture(scope="module")
def expected(source):
    labels = tifffile.imread(source)
    land = Landscape((1, 2), (1.0, 1.0, 1.0), 128.0, SHARE, cell=8)
    return in_memory(labels, labels.shape, land=land, choice=Choice(5))


def test_two_workers_write_what_one_process_writes(tmp_path, source, expected):
    separate(source, tmp_path / "one.zarr", OPTIONS, cell=8)
    two = InstanceOptions(("all",), block_shape=(16, 8, 24), min_size="5")
    two = replace(two, engine=replace(two.engine, name="local", workers=2))
    separate(source, tmp_path / "two.zarr", two, cell=8)
    np.testing.assert_array_equal(stored(tmp_path / "one.zarr"), expected)
    np.testing.assert_array_equal(stored(tmp_path / "two.zarr"), expected)
    same = replace(OPTIONS, engine=two.engine)
    separate(source, tmp_path / "three.zarr", same, cell=8)
    assert arrays(tmp_path / "one.zarr") == arrays(tmp_path / "three.zarr")


@pytest.mark.parametrize("stage", ["basins", "survey", "objects"])
def test_a_killed_run_is_resumed_to_the_same_objects(tmp_path, source, expected, stage):
    out = tmp_path / "out.zarr"

    def kill(name, done, total):
        if name == stage and done:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        try:
            separate(source, out, OPTIONS, progress=kill, cell=8)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert zarr.open_group(out, mode="r").attrs["hrvol"]["complete"] is False
    assert run_status(out)["state"] in ("lost", "running")
    separate(source, out, OPTIONS, cell=8)
    np.testing.assert_array_equal(stored(out), expected)
    assert zarr.open_group(out, mode="r").attrs["hrvol"]["complete"] is True
    assert ".stages" not in os.listdir(out)
    assert run_status(out)["state"] == "complete"


def test_a_stop_is_resumed_and_damage_is_repaired(tmp_path, source, expected):
    out, stop = tmp_path / "out.zarr", Stop()

    def halt(name, done, total):
        if name == "objects" and done:
            stop.request()

    with pytest.raises(StoppedError, match="run the same command"):
        separate(source, out, OPTIONS, stop, halt, cell=8)
    separate(source, out, OPTIONS, cell=8)
    whole = arrays(out)
    next(Path(out).glob("labels/hrvol/0/c/1/*/*")).write_bytes(b"damaged")
    separate(source, out, OPTIONS, cell=8)
    assert arrays(out) == whole
    np.testing.assert_array_equal(stored(out), expected)


def test_changed_labels_are_separated_again(tmp_path, source):
    path, out = tmp_path / "labels.zarr", tmp_path / "out.zarr"
    labels = tifffile.imread(source)
    zarr.create_array(path, data=labels, chunks=(8, 16, 16))

    def kill(name, done, total):
        if name == "objects" and done > total // 2:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        try:
            separate(path, out, OPTIONS, progress=kill, cell=8)
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    changed = labels.copy()
    changed[12:16, 18:30, 18:30] = 1  # not where the identity of the input is sampled
    zarr.open_array(path, mode="r+")[8:16, 16:32, 16:32] = changed[8:16, 16:32, 16:32]
    separate(path, out, OPTIONS, cell=8)
    land = Landscape((1, 2), (1.0, 1.0, 1.0), 128.0, SHARE, cell=8)
    np.testing.assert_array_equal(stored(out), in_memory(changed, labels.shape, land=land, choice=Choice(5)))


def test_the_output_tells_how_it_was_made(tmp_path, source):
    out = tmp_path / "out.zarr"
    report = separate_instances(source, out, "2", depth="10%", min_size="7", border=False)
    attributes = zarr.open_group(out, mode="r").attrs["hrvol"]
    made = attributes["instances"]
    assert made["classes"] == {"2": "class 2"}
    assert (made["depth"], made["least_voxels"], made["border"], made["landscape"]) == (
        *("10%", 7, False, "distance"),
    )
    assert attributes["complete"] is True
    assert attributes["versions"].keys() == {"hrvol", "scikit-image", "scipy"}
    assert attributes["input"]["sha256"] == open_labels(source).identity()["sha256"]
    found = stored(out)
    assert found.dtype == np.uint32
    assert found.max() == report.objects["class 2"]
    assert not any(np.take(found, end, axis).any() for axis in range(3) for end in (0, -1))
    assert np.bincount(found.ravel())[1:].min() >= 7
    assert separate_instances(source, out, "2", depth="10%", min_size="7", border=False).objects == (
        report.objects
    )
    with pytest.raises(OtherRunError, match="depth was"):
        separate_instances(source, out, "2", depth="11%", min_size="7", border=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("x")
    with pytest.raises(OutputExistsError):
        separate_instances(source, tmp_path / "mine", "2", overwrite=True)


def test_many_objects_need_64_bits():
    assert dtype_of((3200, 3200, 3200), 1) == "uint32"
    assert dtype_of((4000, 4000, 4000), 1) == "uint64"
    assert dtype_of((4000, 4000, 4000), 20) == "uint32"
    assert dtype_of((1, 200_000, 200_000), 1) == "uint64"  # an image has one peak for each 4 pixels


def test_an_image_and_a_volume_of_one_plane(tmp_path):
    image, _ = touching_balls((1, 5, 6))
    image = image[8]
    separate_instances(image, tmp_path / "image.zarr", "1", depth="1")
    separate_instances(image[None], tmp_path / "plane.zarr", "1", depth="1")
    found = stored(tmp_path / "image.zarr")
    assert found.shape == image.shape
    assert found.max() == 30
    np.testing.assert_array_equal(stored(tmp_path / "plane.zarr")[0], found)
    thin = open_volume(image[None, 5:-5, 5:-5], voxel_size=(0.001, 2.0, 2.0), unit="um")
    separate_instances(thin, tmp_path / "thin.zarr", "1", depth="2um", border=False)
    assert stored(tmp_path / "thin.zarr").max() == 12  # those of the rim are gone, not all of one plane


def with_probabilities(path, labels, probabilities):
    like = open_volume(labels)
    classes = default_classes((1, 2), ("matrix", "cell"))
    outputs = LabelOutputs(probabilities=True)
    store = create_labels(
        path, like, classes=classes, block_shape=(8, 32, 32), attributes={"recipe": {}}, outputs=outputs
    )
    for z in range(0, labels.shape[0], 8):
        box = (slice(z, min(z + 8, labels.shape[0])), slice(0, 32), slice(0, 32))
        store.write(box, labels[box], probabilities[:, box[0]])
    store.finish()


def test_probabilities_separate_what_distances_do_not(tmp_path):
    labels = np.ones((12, 32, 32), np.uint8)
    labels[:, 4:28, 2:30] = 2  # a brick of two cells
    cell = np.full(labels.shape, 240, np.uint8)
    cell[:, :, 15:17] = 140  # a thin border that the labels do not show
    probabilities = np.stack([255 - cell, cell])
    with_probabilities(tmp_path / "run.zarr", labels, probabilities)
    separate_instances(tmp_path / "run.zarr", tmp_path / "far.zarr", "cell")
    assert stored(tmp_path / "far.zarr").max() == 1
    options = {"landscape": "probability", "depth": "20%"}
    separate_instances(tmp_path / "run.zarr", tmp_path / "two.zarr", "cell", **options)
    found = stored(tmp_path / "two.zarr")
    assert found.max() == 2
    assert (found[6, 16, 5], found[6, 16, 25]) == (1, 2)
    # Of cleaned labels, the probabilities are those of the run.
    separate_instances(labels, tmp_path / "three.zarr", "2", probabilities=tmp_path / "run.zarr", **options)
    np.testing.assert_array_equal(stored(tmp_path / "three.zarr"), found)
    other = options | {"engine": "local", "workers": 2}
    separate_instances(tmp_path / "run.zarr", tmp_path / "four.zarr", "cell", **other)
    np.testing.assert_array_equal(stored(tmp_path / "four.zarr"), found)
    with pytest.raises(InputError, match=r"probabilities of shape \(12, 32, 32\), expected that of"):
        separate_instances(
            labels[:8], tmp_path / "x.zarr", "2", probabilities=tmp_path / "run.zarr", **options
        )
    with pytest.raises(InputError, match="found no probabilities beside the labels"):
        separate_instances(tmp_path / "far.zarr", tmp_path / "x.zarr", "all", **options)
    with pytest.raises(UsageError, match="expected percent of probability"):
        separate_instances(tmp_path / "run.zarr", tmp_path / "x.zarr", "cell", **(options | {"depth": "2"}))


def run(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)])


def test_the_command_separates_and_says_how_many(tmp_path, source):
    out = tmp_path / "out.zarr"
    arguments = ("instances", source, out, "--class", "1", "--engine", "serial", "--min-size", "20")
    done = run(*arguments, "--voxel-size", "0.5", "--unit", "um", "--depth", "0.5um")
    assert done.exit_code == 0, done.output
    assert "class 1" in done.output
    assert "voxels/s" in done.output
    assert f"{stored(out).max():,}" in done.output
    again = run(*arguments, "--voxel-size", "0.5", "--unit", "um", "--depth", "0.5um")
    assert "is already complete" in again.output
    assert run("status", out).exit_code == 0


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"classes": "stone"}, "class: found class 'stone', expected one of: 1 class 1, 2 class 2"),
        ({"classes": ()}, "classes: found none"),
        ({"depth": "2um"}, "no voxel size for '2um', expected sizes in voxels"),
        ({"min_size": "5um3"}, "no voxel size for '5um3'"),
        ({"largest": "5um"}, "no voxel size for '5um'"),
        ({"depth": "deep"}, "expected a depth such as"),
        ({"depth": "120%"}, "expected 0% to 100%"),
        ({"depth": "3um2"}, "expected a length"),
        ({"largest": "1"}, "expected 2 to 2000"),
        ({"largest": "1e9"}, "expected 2 to 2000"),
        ({"min_size": "0"}, "expected 1 or more"),
        ({"landscape": "hills"}, "landscape: found 'hills', expected distance or probability"),
        ({"probabilities": "run.zarr"}, "expected the landscape 'probability'"),
        ({"landscape": "probability"}, "found no probabilities beside the labels"),
        ({"block_shape": (0, 1, 1)}, "expected three whole numbers"),
    ],
)
def test_what_cannot_be_separated_is_one_line(tmp_path, source, keywords, message):
    with pytest.raises((UsageError, InputError), match=message) as caught:
        separate_instances(source, tmp_path / "out.zarr", **({"classes": "1"} | keywords))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.zarr").exists()


def test_labels_that_are_none_are_one_line(tmp_path):
    out = tmp_path / "out.zarr"
    with pytest.raises(InputError, match="expected whole numbers"):
        separate_instances(np.ones((4, 5, 6), np.float32), out, "1")
    with pytest.raises(InputError, match="no labels above 0"):
        separate_instances(np.zeros((4, 5, 6), np.uint8), out, "1")
    with pytest.raises(InputError, match="found label -3"):
        separate_instances(np.full((4, 5, 6), -3, np.int16), out, "1")
    assert not out.exists()
    done = run("instances", "nothing.tif", out, "--class", "1")
    assert done.exit_code == 1
    assert run("instances", "nothing.tif", out).exit_code == 2
