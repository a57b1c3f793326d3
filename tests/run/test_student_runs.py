"""A student gives a voxel the same bits however a run is cut, stopped, masked or spread."""

from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import torch
import zarr
from student_data import BESIDE, FLAT, KINDS, MIXED, SPECS, grey, student_model, taught

import hrvol.run.block as block_module
import hrvol.run.prepare as prepare_module
import hrvol.segment.student.lattice as lattice_module
from hrvol.engine.stop import Stop
from hrvol.errors import ModelError, StoppedError
from hrvol.recipe.specs import CrfSpec, TileSpec
from hrvol.run.block_job import input_states
from hrvol.run.options import PredictOptions, RunOptions
from hrvol.run.prepare import prepare
from hrvol.run.segment import segment_volume
from hrvol.run.status import run_status
from hrvol.run.students.predict_student import predict_cells, read_cells, run_lattice
from hrvol.segment.model.model import save_model
from hrvol.segment.student.runner import StudentRunner, load_runner
from hrvol.volume.grid.tiling import blocks, box_shape, whole
from hrvol.volume.intensity import grey_statistics
from hrvol.volume.ome.labels import open_label_store
from hrvol.volume.volume import open_volume

EVERYTHING = {"probabilities": True, "uncertainty": True}
BACKENDS = {"2D": "torch", "2.5D": "auto", "3D": "auto", "3D of cubes": "torch"}
SHAPES = {"2D": (5, 300, 190), "2.5D": (7, 300, 100), "3D": (19, 300, 100), "3D of cubes": (13, 300, 100)}


def arrays_of(out):
    group = zarr.open_group(out, mode="r")
    names = {"labels": "labels/hrvol/0", "probabilities": "probabilities/0", "uncertainty": "uncertainty/0"}
    return {name: group[path][:] for name, path in names.items() if path in group}


def assert_same(out, expected, where=()):
    for name, values in arrays_of(out).items():
        np.testing.assert_array_equal(values[..., *where], expected[name][..., *where], err_msg=name)


@pytest.fixture
def small(monkeypatch):
    """Cells of 64 x 64 and at most 8 planes, and blocks of few of them, so that small volumes have many."""
    monkeypatch.setattr(lattice_module, "LONGEST", 64)
    monkeypatch.setattr(lattice_module, "DEEPEST", 8)
    monkeypatch.setattr(lattice_module, "BLOCK_VOXELS", 2**13)


@pytest.fixture(scope="module")
def untiled(tmp_path_factory):
    """By kind: a volume, a student, and what a run of one block makes of them."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lattice_module, "LONGEST", 64)
        patch.setattr(lattice_module, "DEEPEST", 8)
        patch.setattr(prepare_module, "student_tiles", lambda lattice: TileSpec(core=16_384, overlap=0))
        for kind, spec in KINDS.items():
            # Half of the volumes see no farther than the network, which is quicker.
            spec = spec if not spec.is_3d else spec.model_copy(update={"normalisation": "none"})
            volume, model = grey(SHAPES[kind]), student_model(spec)
            out = tmp_path_factory.mktemp("untiled") / "out.ome.zarr"
            report = segment_volume(volume, out, model, backend=BACKENDS[kind], **EVERYTHING)
            assert (report.blocks, report.voxels, report.failed) == (1, volume.size, ())
            made[kind] = volume, model, arrays_of(out)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_and_regions_have_the_bits_of_one_block(untiled, small, tmp_path, kind):
    volume, model, expected = untiled[kind]
    options = {"backend": BACKENDS[kind], **EVERYTHING}
    report = segment_volume(volume, tmp_path / "blocks", model, **options)
    assert report.blocks > 4
    assert report.seams.pixels == 0
    assert_same(tmp_path / "blocks", expected)
    roi = (slice(2, 4), slice(37, 133), slice(3, 98))
    assert segment_volume(volume, tmp_path / "roi", model, roi=roi, **options).voxels == 2 * 96 * 95
    assert_same(tmp_path / "roi", expected, roi)
    assert np.count_nonzero(arrays_of(tmp_path / "roi")["labels"]) == 2 * 96 * 95


@pytest.mark.parametrize("kind", ["2.5D", "3D of cubes"])
def test_parts_and_resumed_runs_have_the_bits_of_one_block(untiled, small, tmp_path, kind):
    volume, model, expected = untiled[kind]
    options = {"backend": BACKENDS[kind], **EVERYTHING}
    assert segment_volume(volume, tmp_path / "parts", model, part=(2, 2), **options).left
    assert not segment_volume(volume, tmp_path / "parts", model, part=(1, 2), **options).left
    assert_same(tmp_path / "parts", expected)
    stop = Stop()
    with pytest.raises(StoppedError):
        segment_volume(
            volume,
            tmp_path / "resumed",
            model,
            stop=stop,
            progress=lambda stage, done, total: stop.request() if done > total / 3 else None,
            **options,
        )
    state = run_status(tmp_path / "resumed")
    assert 0 < state["done"] < state["total"]
    assert segment_volume(volume, tmp_path / "resumed", model, **options).voxels == volume.size
    assert run_status(tmp_path / "resumed")["state"] == "complete"
    assert_same(tmp_path / "resumed", expected)


def test_workers_have_the_bits_of_one_block(untiled, small, tmp_path):
    volume, model, expected = untiled["2.5D"]
    zarr.create_array(tmp_path / "v.zarr", data=volume, chunks=(7, 50, 60))
    save_model(model, tmp_path / "m.hrvol")
    out = tmp_path / "out"
    options = {"engine": "local", "workers": 2, **EVERYTHING}
    report = segment_volume(tmp_path / "v.zarr", out, tmp_path / "m.hrvol", **options)
    assert (report.failed, report.voxels) == ((), volume.size)
    assert_same(out, expected)


@pytest.mark.parametrize("spec", [FLAT, MIXED])
def test_threads_of_torch_change_no_bit(small, tmp_path, spec):
    volume, model = grey((9, 70, 120)), student_model(spec)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            segment_volume(volume, tmp_path / str(threads), model, **EVERYTHING)
    finally:
        torch.set_num_threads(before)
    assert_same(tmp_path / "2", arrays_of(tmp_path / "1"))


@pytest.mark.parametrize("kind", ["2D", "3D"])
def test_a_mask_leaves_the_labels_inside_and_nothing_else(untiled, small, tmp_path, kind, monkeypatch):
    volume, model, expected = untiled[kind]
    mask = np.zeros(volume.shape, np.uint8)
    mask[2:4, 20:140, 30:90] = 1
    mask[3, 50:60] = 0
    predicted = []
    runner = load_runner(model.classifier)
    scores = type(runner).scores
    monkeypatch.setattr(type(runner), "scores", lambda *given: predicted.append(1) or scores(*given))
    report = segment_volume(volume, tmp_path / "out", model, mask=mask, backend=BACKENDS[kind], **EVERYTHING)
    assert report.voxels == np.count_nonzero(mask)
    inside = mask.astype(bool)
    for name, values in arrays_of(tmp_path / "out").items():
        np.testing.assert_array_equal(values[..., inside], expected[name][..., inside])
        assert not values[..., ~inside].any()
    # Of the cells of 64 x 64 that have some of it.
    assert len(predicted) == (2 if kind == "2D" else 1) * 3 * 2


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_and_uncertainty_go_with_the_labels(untiled, kind):
    _, _, expected = untiled[kind]
    probabilities = expected["probabilities"].astype(int)
    assert abs(probabilities.sum(axis=0) - 255).max() <= 1
    ordered = np.sort(probabilities, axis=0)
    clear = ordered[-1] - ordered[-2] > 1
    assert ((probabilities.argmax(axis=0) + 1 == expected["labels"]) | ~clear).all()
    assert clear.mean() > 0.5
    counts = np.bincount(expected["labels"].ravel(), minlength=4)
    assert counts[0] == 0
    assert counts[1:].min() > 0.05 * counts.sum()
    assert expected["uncertainty"][ordered[-1] == 255].max(initial=0) <= 5
    assert expected["uncertainty"][ordered[-1] < 100].min() > 200


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 200), (3, 65, 64), (2, 2, 130), (5, 129, 3)])
def test_any_cut_of_odd_volumes_has_the_same_bits(small, spec, shape):
    volume, model = open_volume(grey(shape)), student_model(spec)
    runner, lattice = load_runner(model.classifier), run_lattice(shape, model.classifier, "cpu")
    options = PredictOptions(True, True)

    def predict(part, **mask):
        raw = read_cells(volume, part, lattice)
        assert raw.shape == box_shape(lattice.reads(part))
        found = predict_cells(raw, lattice, part, model, runner, options, **mask)
        assert found.labels.dtype == np.uint8
        return found.labels[None], found.probabilities, found.uncertainty[None]

    everything = predict(whole(shape))
    rng = np.random.default_rng(sum(shape))
    for _ in range(3):
        edges = [np.sort(rng.choice(side + 1, 2, replace=False)).tolist() for side in shape]
        part = tuple(slice(*edge) for edge in edges)
        mask = rng.random(box_shape(part)) < 0.7
        for expected, found, masked in zip(everything, predict(part), predict(part, mask=mask), strict=True):
            np.testing.assert_array_equal(found, expected[:, *part])
            np.testing.assert_array_equal(masked, found * mask)


@pytest.mark.parametrize("spec", SPECS)
def test_arrays_of_a_gpu_are_labelled_where_they_are(small, monkeypatch, spec):
    """On the CPU, by the code for a GPU: several planes at once, float16, arrays of torch until labels."""
    shape, model = (11, 130, 70), student_model(spec)
    volume = open_volume(grey(shape))
    found = {}
    for device in ("cpu", "cuda"):
        lattice = run_lattice(shape, model.classifier, device)
        assert lattice.cell[0] == 8 or device == "cpu" or spec.is_3d
        raw = read_cells(volume, whole(shape), lattice)
        runner = StudentRunner(model.classifier)
        found[device] = predict_cells(raw, lattice, whole(shape), model, runner, PredictOptions(True, True))
        monkeypatch.setattr(StudentRunner, "on_cpu", False)
    assert (found["cpu"].labels != found["cuda"].labels).mean() < 0.01
    for name in ("probabilities", "uncertainty"):
        values = [getattr(found[device], name).astype(int) for device in found]
        assert np.quantile(abs(values[0] - values[1]), 0.99) <= 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_gives_nearly_the_labels_of_the_cpu(tmp_path):
    volume, model = grey((20, 300, 190)), student_model(BESIDE)
    for device in ("cpu", "cuda"):
        segment_volume(volume, tmp_path / device, model, device=device)
    found = [arrays_of(tmp_path / device)["labels"] for device in ("cpu", "cuda")]
    assert (found[0] != found[1]).mean() < 0.01


def test_planes_are_reported_as_they_are_done(small):
    shape, model = (9, 100, 70), student_model(MIXED)
    volume, lattice = open_volume(grey(shape)), run_lattice(shape, model.classifier, "cpu")
    part, done = (slice(1, 9), slice(0, 100), slice(0, 70)), []
    raw = read_cells(volume, part, lattice)
    predict_cells(raw, lattice, part, model, load_runner(model.classifier), on_plane=done.append)
    assert done == [7, 8]


def test_images_work_like_volumes(tmp_path):
    for spec in (FLAT, BESIDE):
        image, model = grey((1, 90, 80))[0], student_model(spec)
        assert segment_volume(image, tmp_path / str(spec.planes), model).voxels == 90 * 80
        assert arrays_of(tmp_path / str(spec.planes))["labels"].shape == (90, 80)


def test_other_types_of_grey_values_and_of_labels(tmp_path):
    volume = grey((2, 80, 70))
    model = student_model(classes=(1, 300, 301))
    segment_volume(volume, tmp_path / "8", model)
    bright = replace(model, window=(-100.0, 25_400.0))
    for kind in (np.int16, np.float32, np.float64):
        values = volume.astype(kind) * 100 - 100
        segment_volume(values, tmp_path / kind.__name__, bright)
        different = arrays_of(tmp_path / kind.__name__)["labels"] != arrays_of(tmp_path / "8")["labels"]
        assert different.mean() < 0.001  # rounded otherwise
    labels = arrays_of(tmp_path / "8")["labels"]
    assert labels.dtype == np.uint16
    assert set(np.unique(labels)) == {1, 300, 301}


def test_an_output_tells_the_tiles_of_the_run(small, tmp_path):
    volume, model = grey((9, 300, 190)), student_model(BESIDE)
    segment_volume(volume, tmp_path / "out", model)
    attributes = open_label_store(tmp_path / "out").attributes
    tiles = attributes["recipe"]["tiles"]
    assert (tiles["core"], tiles["overlap"], tiles["overlap_planes"]) == (128, 56, 1)
    assert attributes["weights_sha256"] is None
    assert model.recipe.tiles == TileSpec()
    state = run_status(tmp_path / "out")
    assert state["total"] == len(blocks(volume.shape, TileSpec(**tiles))) > 4


def test_a_failing_block_is_reported(small, tmp_path):
    volume = grey((9, 300, 190)).astype(np.float32)
    volume[4, 250, 180] = np.nan
    report = segment_volume(volume, tmp_path / "out", student_model(FLAT))
    assert report.failed
    assert all("nan at z=4, y=250, x=180" in failure.reason for failure in report.failed)
    assert report.blocks > len(report.failed)


# -- input that changes -----------------------------------------------------------------------------------


def test_a_chunk_that_only_the_context_of_a_block_reads_is_watched(small, tmp_path, monkeypatch):
    volume, model = grey((9, 300, 190)), student_model(BESIDE)
    path = tmp_path / "v.zarr"
    zarr.create_array(path, data=volume, chunks=(1, 300, 190))
    read, begun = block_module.read_cells, []

    def changed(*given):
        begun.append(given[1][0])
        if len(begun) == 1:
            (path / f"c/{begun[0].stop}/0/0").touch()
        return read(*given)

    monkeypatch.setattr(block_module, "read_cells", changed)
    report = segment_volume(path, tmp_path / "out", model)
    assert begun[0].stop < 9
    assert not report.failed
    assert len(begun) == report.blocks + 1  # the first was read again
    monkeypatch.undo()
    segment_volume(volume, tmp_path / "memory", model)
    assert_same(tmp_path / "out", arrays_of(tmp_path / "memory"))


def test_blocks_of_an_input_that_was_replaced_are_named(small, tmp_path, monkeypatch):
    volume, model = grey((9, 300, 190)), student_model(BESIDE)
    path = tmp_path / "v.zarr"
    zarr.create_array(path, data=volume, chunks=(1, 300, 190))
    read, begun = block_module.read_cells, []

    def changed(*given):
        begun.append(given[1][0])
        if len(begun) == 5:
            (path / "c/0/0/0").touch()
        return read(*given)

    monkeypatch.setattr(block_module, "read_cells", changed)
    report = segment_volume(path, tmp_path / "out", model)
    assert report.failed
    assert {failure.index[0] for failure in report.failed} == {0}
    assert all("changed during the run" in failure.reason for failure in report.failed)


@pytest.mark.parametrize("spec", SPECS)
def test_what_is_read_lies_in_what_is_watched(small, tmp_path, spec):
    path = tmp_path / "v.zarr"
    zarr.create_array(path, data=grey((19, 300, 100)), chunks=(2, 50, 50))
    with ExitStack() as stack:
        options, _ = RunOptions(device="cpu").placed()
        job = prepare(path, tmp_path / "out", student_model(spec), stack, options).job
    for block in blocks(job.volume.shape, job.tiles):
        z, y, x = job.lattice.reads(block.core)
        watched = input_states(job, block)[0].by_index
        assert (z.start // 2, y.start // 50, x.start // 50) in watched
        assert ((z.stop - 1) // 2, (y.stop - 1) // 50, (x.stop - 1) // 50) in watched


# -- what is refused, and what is noted -------------------------------------------------------------------


@pytest.mark.parametrize("in_recipe", [False, True])
def test_a_crf_is_refused_before_anything_is_written(tmp_path, in_recipe):
    model = student_model()
    if in_recipe:
        model = replace(model, recipe=model.recipe.with_(crf=CrfSpec()))
    with pytest.raises(
        ModelError, match=r"^model: found a CRF.* expected none, or the model that taught it$"
    ):
        segment_volume(grey((1, 90, 80)), tmp_path / "out", model, crf=not in_recipe)
    assert not list(tmp_path.iterdir())


def notices_of(caplog):
    return [message for message in caplog.messages if not message.startswith(("device:", "backend:"))]


def test_a_student_on_its_own_volume_is_silent(tmp_path, caplog):
    volume = grey((2, 200, 190))
    caplog.set_level("INFO", "hrvol.run")
    identity = open_volume(volume).identity()
    for number, model in enumerate((student_model(), taught(student_model(), volume=identity))):
        segment_volume(volume, tmp_path / str(number), model)
    assert notices_of(caplog) == []


def test_a_student_on_another_volume_tells_how_grey_values_differ(tmp_path, caplog):
    volume = grey((2, 200, 190))
    caplog.set_level("INFO", "hrvol.run")
    mean, std = grey_statistics(open_volume(volume), (0.0, 255.0))
    other = {"sha256": "ab" * 32, "source": "there.zarr"}
    model = taught(student_model(), volume=other, grey={"mean": mean, "std": std})
    segment_volume(volume, tmp_path / "alike", model)
    assert notices_of(caplog) == [
        "model: taught on another volume (there.zarr) than ndarray array 2x200x190; a student has no features"
        " to compare with the training strokes: segment a few planes with its teacher (--roi) to have it"
        " compared"
    ]
    caplog.clear()
    model = taught(model, volume=other, grey={"mean": mean + 0.2, "std": std + 0.01})
    segment_volume(volume, tmp_path / "darker", model)
    assert notices_of(caplog)[1] == (
        "ndarray array 2x200x190: grey values differ from those it was taught on:"
        f" mean {mean:.2f}, expected {mean + 0.2:.2f}"
    )
    caplog.clear()
    volume = volume.astype(np.float32)
    volume[0, 0, 0] = np.nan  # is for the blocks to report
    segment_volume(volume, tmp_path / "odd", model)
    assert len(notices_of(caplog)) == 1


def test_a_volume_that_is_smaller_than_the_context_is_noted_once(tmp_path, caplog):
    caplog.set_level("INFO", "hrvol.run")
    report = segment_volume(grey((2, 90, 300)), tmp_path / "out", student_model(BESIDE))
    assert report.failed == ()
    assert notices_of(caplog) == [
        "ndarray array 2x90x300: found 2 x 90 x 300 voxels, less than the 3 x 113 x 113 on which a label"
        " depends: they are mirrored at the borders"
    ]
