"""Labels of the mean of a model and a student: what they are, with which settings they are resumed."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import zarr
from run_data import QUICK, draw, make_volume
from student_data import CUBIC, FLAT, student_model

from hrvol.arrays import added_up
from hrvol.backend import choose_backend
from hrvol.classes import ClassInfo
from hrvol.errors import BlockError, ModelError, OtherRunError, UsageError
from hrvol.features.featuriser import load_featuriser
from hrvol.info import describe
from hrvol.planning.plan_run import plan_run
from hrvol.run import job as job_module
from hrvol.run.attribute_names import COMPANION
from hrvol.run.classify import classify
from hrvol.run.job import COMPANION_FILE
from hrvol.run.options import PredictOptions
from hrvol.run.predict import predict_part, read_window
from hrvol.run.segment import segment_volume
from hrvol.run.students.companion import CompanionPlanes
from hrvol.segment.class_weights import weighted
from hrvol.segment.model.model import save_model
from hrvol.segment.student.block_lattice import block_lattice, reach_of
from hrvol.segment.student.lattice import Lattice
from hrvol.segment.student.runner import StudentRunner
from hrvol.segment.student.spec import SIZES, student_spec
from hrvol.training.train import train_model
from hrvol.volume.grid.tiling import block_shape, blocks, tiles_of, whole
from hrvol.volume.intensity import to_unit
from hrvol.volume.ome.labels import open_label_store
from hrvol.volume.volume import open_volume

SHAPE = (5, 150, 130)
ARRAYS = ("labels/hrvol/0", "probabilities/0", "uncertainty/0")
ALL = {"probabilities": True, "uncertainty": True}


def arrays(path):
    return {name: zarr.open_array(path / name, mode="r")[:] for name in ARRAYS}


def same(ours, theirs):
    for name, values in ours.items():
        np.testing.assert_array_equal(values, theirs[name], err_msg=name)


def named(model, names=("matrix", "disc")):
    entries = zip(names, model.classes, strict=True)
    return replace(model, classes=tuple(replace(info, name=name) for name, info in entries))


@pytest.fixture(scope="module")
def image():
    return make_volume(shape=SHAPE)[0]


@pytest.fixture(scope="module")
def teacher():
    volume, truth = make_volume(shape=SHAPE)
    return train_model([(volume, draw(truth))], recipe=QUICK, classes=["matrix", "disc"])


@pytest.fixture(scope="module")
def students():
    return {
        name: named(student_model(spec, (1, 2), temperature=0.02))
        for name, spec in (("flat", FLAT), ("cubic", CUBIC))
    }


@pytest.fixture(scope="module")
def runs(image, teacher, students, tmp_path_factory):
    """Outputs of the teacher alone, and with each student."""
    folder = tmp_path_factory.mktemp("runs")
    for name, student in (("alone", None), *students.items()):
        segment_volume(image, folder / name, teacher, companion=student, **ALL)
    return {name: folder / name for name in ("alone", *students)}


def of_student(image, model, lattice, backend="torch"):
    """Return the student's probabilities (K, z, y, x), cell by cell of a lattice."""
    runner = StudentRunner(model.classifier, backend=backend)
    found = np.zeros((2, *lattice.shape), np.float32)
    for cell in lattice.cells(whole(lattice.shape)):
        window = to_unit(lattice.cut(lattice.window(cell), image, (0, 0, 0)), model.window)
        inside = tuple(
            slice(0, min(span.stop, length) - span.start)
            for span, length in zip(cell, lattice.shape, strict=True)
        )
        found[(slice(None), *cell)] = runner.probabilities(window)[(slice(None), *inside)]
    return found


def of_teacher(image, model):
    """Return the teacher's probabilities (K, z, y, x), block by block: with one tile, nothing is blended."""
    featuriser = load_featuriser(model.recipe.features)
    found = np.zeros((2, *image.shape), np.float32)
    for block in blocks(image.shape, model.recipe.tiles):
        (tile,) = tiles_of(block, image.shape[1:], model.recipe.tiles)
        for z in range(block.core[0].start, block.core[0].stop):
            plane = to_unit(image[(z, *tile.window_slices)], model.window)
            proba = np.moveaxis(classify(plane, tile.core_in_window, model, featuriser), -1, 0)
            found[(slice(None), z, *tile.core_slices)] = proba / added_up(proba)
    return found


@pytest.mark.parametrize("name", ["flat", "cubic"])
def test_the_result_is_that_of_the_mean_of_both(image, teacher, students, runs, name):
    model = students[name]
    side = block_shape(SHAPE, teacher.recipe.tiles)
    lattice = block_lattice(SHAPE, model.classifier.spec, side, classes=2)
    assert all(block % cell == 0 for block, cell in zip(side[1:], lattice.cell[1:], strict=True))
    backend = choose_backend("auto", "cpu").name
    one, other = of_teacher(image, teacher), of_student(image, model, lattice, backend)
    mean = (one + other) / 2
    stored = arrays(runs[name])
    np.testing.assert_array_equal(stored["labels/hrvol/0"], mean.argmax(axis=0) + 1)
    np.testing.assert_array_equal(stored["probabilities/0"], np.round(255 * mean).astype(np.uint8))
    for apart in (one, other):  # neither alone
        assert (apart.argmax(axis=0) != mean.argmax(axis=0)).mean() > 0.02


def test_the_companion_is_recorded_where_there_is_one(runs, students):
    stored = {name: open_label_store(out).attributes for name, out in runs.items()}
    assert COMPANION not in stored["alone"]
    assert "companion" not in describe(str(runs["alone"]))
    assert describe(str(runs["flat"]))["companion"] == "model"
    assert stored["flat"][COMPANION]["sha256"] != stored["cubic"][COMPANION]["sha256"]
    assert {name: entry for name, entry in stored["flat"].items() if name in ("recipe", "model")} == {
        name: entry for name, entry in stored["alone"].items() if name in ("recipe", "model")
    }


@pytest.mark.parametrize(
    ("run", "student", "message"),
    [
        ("alone", "flat", 'companion.sha256 was null, now "'),
        ("flat", "cubic", 'companion.sha256 was ".*", now "'),
        ("flat", None, 'companion.sha256 was ".*", now null'),
    ],
)
def test_another_companion_is_another_run(image, teacher, students, runs, run, student, message):
    options = {"companion": students.get(student), **ALL}
    for function in (segment_volume, plan_run):
        with pytest.raises(OtherRunError, match=message):
            function(image, runs[run], teacher, **options)


def test_the_same_companion_is_the_same_run(image, teacher, students, runs):
    report = segment_volume(image, runs["flat"], teacher, companion=students["flat"], **ALL)
    assert report.before == report.voxels == image.size


@pytest.mark.parametrize("name", ["flat", "cubic"])
def test_workers_from_files_give_the_same_bits(image, teacher, students, runs, tmp_path, name):
    zarr.create_array(tmp_path / "volume.zarr", data=image, chunks=(2, 50, 40))
    files = tmp_path / "m.hrvol", tmp_path / "s.hrvol"
    for file, model in zip(files, (teacher, students[name]), strict=True):
        save_model(model, file)
    where = {"engine": "local", "workers": 2}
    segment_volume(tmp_path / "volume.zarr", tmp_path / "out", files[0], companion=files[1], **where, **ALL)
    same(arrays(tmp_path / "out"), arrays(runs[name]))


def test_parts_a_region_and_a_mask_are_those_of_the_whole(image, teacher, students, runs, tmp_path):
    for k in (2, 1):
        segment_volume(image, tmp_path / "parts", teacher, part=(k, 2), companion=students["cubic"], **ALL)
    expected = arrays(runs["cubic"])
    same(arrays(tmp_path / "parts"), expected)
    roi = (slice(1, 4), slice(40, 90), slice(30, 100))
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:, 20:70, :60] = 1
    for name, options in (("roi", {"roi": roi}), ("mask", {"mask": mask})):
        segment_volume(image, tmp_path / name, teacher, companion=students["cubic"], **options, **ALL)
    chosen = np.zeros(SHAPE, bool)
    chosen[roi] = True
    for name, inside in (("roi", chosen), ("mask", mask > 0)):
        stored = arrays(tmp_path / name)
        for key, values in stored.items():
            np.testing.assert_array_equal(values, np.where(inside, expected[key], 0), err_msg=f"{name} {key}")


def test_class_weights_are_applied_to_the_mean(image, teacher, students, runs, tmp_path):
    weights = {"disc": 0.2}
    segment_volume(image, tmp_path / "out", teacher, companion=students["flat"], class_weights=weights, **ALL)
    before = arrays(runs["flat"])["probabilities/0"].astype(np.float32) / 255
    expected = weighted(before / added_up(before), (1, 0.2))
    clear = abs(expected[0] - expected[1]) > 0.02
    assert clear.mean() > 0.8
    labels = arrays(tmp_path / "out")["labels/hrvol/0"]
    np.testing.assert_array_equal(labels[clear], (expected.argmax(axis=0) + 1)[clear])


def test_what_cannot_be_averaged_is_one_line(image, teacher, students, tmp_path):
    out, student = tmp_path / "out", students["flat"]
    for model, companion, options, message in (
        (teacher, named(student, ("matrix", "crack")), {}, "found the classes 1 matrix, 2 crack, expected"),
        (teacher, named(student_model(FLAT, (1, 3))), {}, "found the classes 1 matrix, 3 disc, expected"),
        (teacher, teacher, {}, "found no student as a companion, expected one made by hrvol distil"),
        (student, student, {}, "found a student beside the companion"),
        (teacher, student, {"crf": True}, "found a CRF, expected none with a companion"),
        (teacher, tmp_path / "none.hrvol", {}, "found no such file"),
    ):
        with pytest.raises(ModelError, match=message) as caught:
            segment_volume(image, out, model, companion=companion, **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="fractions: found a companion, expected none"):
        segment_volume(image, out, teacher, companion=student, fractions=[0.9, 0.1])
    save_model(student, tmp_path / "s.hrvol")
    with pytest.raises(UsageError, match=r"is .* the input"):
        segment_volume(image, tmp_path / "s.hrvol", teacher, companion=tmp_path / "s.hrvol")
    assert not out.exists()


def test_a_companion_that_is_replaced_is_noticed(image, teacher, students, tmp_path):
    file, out = tmp_path / "s.hrvol", tmp_path / "out"
    save_model(students["flat"], file)
    job_module._models.clear()

    def swap(stage, done, total):
        if done:
            save_model(students["cubic"], file)
            job_module._models.clear()  # as if another run in this process had begun

    with pytest.raises(BlockError, match=r"s\.hrvol: found a model with SHA-256"):
        segment_volume(image, out, teacher, companion=file, progress=swap)


def test_workers_of_other_machines_read_the_copy_in_the_output(image, teacher, students, tmp_path):
    from distributed import LocalCluster

    zarr.save_array(tmp_path / "volume.zarr", image)
    save_model(students["flat"], tmp_path / "s.hrvol")
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp://", dashboard_address=None
    ) as cluster:
        segment_volume(
            tmp_path / "volume.zarr",
            tmp_path / "out",
            teacher,
            companion=tmp_path / "s.hrvol",
            engine=cluster.scheduler_address,
            roi=(slice(0, 2), slice(0, 64), slice(0, 64)),
        )
    copy = open_label_store(tmp_path / "out").read_file(COMPANION_FILE)
    assert copy == (tmp_path / "s.hrvol").read_bytes()
    segment_volume(image, tmp_path / "out", teacher, roi=(slice(0, 1),) * 3, overwrite=True)
    assert not (tmp_path / "out" / COMPANION_FILE).exists()


def test_a_file_that_only_the_companion_reads_must_not_change(image, teacher, students, tmp_path):
    volume = tmp_path / "volume.zarr"
    big = np.tile(image, (1, 4, 4))
    zarr.create_array(volume, data=big, chunks=(5, 50, 40))
    changed = volume / "c/0/2/2"

    def swap(stage, done, total):
        if done and changed.exists():
            shutil.copyfile(volume / "c/0/0/0", changed)

    roi = (slice(0, 2), slice(0, 64), slice(0, 64))
    for name, companion in (("alone", None), ("both", students["flat"])):
        report = segment_volume(volume, tmp_path / name, teacher, companion=companion, roi=roi, progress=swap)
        assert bool(report.failed) == (companion is not None), name


@pytest.mark.parametrize("options", [{}, {"roi": (slice(1, 4), slice(50, 140), slice(0, 100))}])
def test_the_run_is_as_planned(image, teacher, students, tmp_path, options):
    zarr.create_array(tmp_path / "volume.zarr", data=image, chunks=(2, 50, 40))
    save_model(teacher, tmp_path / "m.hrvol")
    request = {"companion": students["cubic"], **options, **ALL}
    given = tmp_path / "volume.zarr", tmp_path / "out", tmp_path / "m.hrvol"
    plan = plan_run(*given, seconds=0.3, **request)
    report = segment_volume(*given, **request)
    assert plan.blocks == report.blocks
    assert (plan.voxels, plan.wanted) == (report.voxels, report.wanted)
    assert plan.read == pytest.approx(report.read, rel=0.3)
    assert plan.worker_memory == pytest.approx(report.peak, rel=0.25)


def test_a_layer_of_cells_is_computed_once():
    model = named(student_model(CUBIC, (1, 2)))
    image = make_volume(shape=(10, 20, 20))[0]
    lattice = Lattice((10, 20, 20), (8, 64, 64), model.classifier.spec.halo)
    runner = StudentRunner(model.classifier)
    part = (slice(3, 10), slice(2, 18), slice(0, 20))
    planes = CompanionPlanes(image, lattice, part, model, runner)
    computed = []
    compute = planes._compute
    planes._compute = lambda k: computed.append(k) or compute(k)
    found = np.stack([planes(k) for k in range(7)], axis=1)
    assert computed == [0, 5]
    np.testing.assert_array_equal(found, of_student(image, model, lattice)[(slice(None), *part)])


@pytest.mark.parametrize("dimensions", ["planes", "mixed", "volume"])
@pytest.mark.parametrize("size", list(SIZES))
@pytest.mark.parametrize(
    ("shape", "block"),
    [
        ((200, 2000, 3000), (64, 448, 448)),
        ((64, 900, 900), (64, 100, 100)),
        ((5, 150, 130), (2, 64, 64)),
        ((1, 500, 4000), (1, 500, 1344)),
    ],
)
def test_blocks_read_what_their_cells_need(dimensions, size, shape, block):
    lattice = block_lattice(shape, student_spec(size, dimensions), block)
    reach = reach_of(lattice, block)
    for number in range(3):
        core = tuple(
            slice(min(number, -(-length // side) - 1) * side, min((number + 1) * side, length))
            for side, length in zip(block, shape, strict=True)
        )
        for read, span, around, length in zip(lattice.reads(core), core, reach, shape, strict=True):
            assert read.start >= max(span.start - around, 0)
            assert read.stop <= min(span.stop + around, length)


def test_class_infos_compare_by_value_and_name(image, teacher, students, tmp_path):
    other = tuple(ClassInfo(info.value, info.name, (1, 2, 3)) for info in students["flat"].classes)
    coloured = replace(students["flat"], classes=other)
    segment_volume(
        image, tmp_path / "out", teacher, companion=coloured, roi=(slice(0, 1), slice(0, 9), slice(0, 9))
    )


def test_a_plane_of_several_tiles_is_averaged_once_it_is_blended(image, teacher):
    recipe = QUICK.with_(**{"tiles.across": 2, "tiles.overlap": 20})
    model = replace(teacher, recipe=recipe)
    volume, featuriser = open_volume(image), load_featuriser(recipe.features)
    block = blocks(SHAPE, recipe.tiles)[0]
    raw = read_window(volume, block, block.core, model)
    planes = np.random.default_rng(0).dirichlet((1, 1), block.shape).astype(np.float32)
    planes = np.ascontiguousarray(np.moveaxis(planes, -1, 0))
    asked = []

    def companion(k):
        asked.append(k)
        return planes[:, k]

    given = raw, volume, block, block.core, model, featuriser
    alone = predict_part(*given, PredictOptions(probabilities=True))
    both = predict_part(*given, PredictOptions(probabilities=True, companion=companion))
    assert asked == list(range(block.shape[0]))
    assert both.seams == alone.seams
    assert alone.seams.pixels > 0
    mean = (alone.probabilities / 255 + planes) / 2
    np.testing.assert_allclose(both.probabilities / 255, mean, atol=1.1 / 255)
    clear = abs(mean[0] - mean[1]) > 0.02
    np.testing.assert_array_equal(both.labels[clear], (mean.argmax(axis=0) + 1)[clear])
