"""A model file that is replaced while a run goes on: no block is labelled with another model."""

import hashlib
import shutil
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import zarr
from fault_data import Run, contents, differing, progress_of, wait_for
from run_data import QUICK, draw, make_volume

from hrvol.errors import BlockError, ModelError, OtherRunError
from hrvol.features.weights.source import WeightsSource
from hrvol.run import job as job_module
from hrvol.run.job import MODEL_FILE, ModelSource
from hrvol.run.segment import segment_volume
from hrvol.run.status import run_status
from hrvol.segment.model.model import model_bytes, save_model
from hrvol.training.train import train_model


@pytest.fixture(scope="module")
def models():
    """Return two models whose labels differ: the classes of the second are exchanged."""
    image, truth = make_volume()
    strokes = draw(truth)
    exchanged = np.where(strokes > 0, 3 - strokes, 0).astype(strokes.dtype)
    return tuple(train_model([(image, drawn)], recipe=QUICK) for drawn in (strokes, exchanged))


@pytest.fixture
def file(models, tmp_path):
    save_model(models[0], tmp_path / "model.hrvol")
    return tmp_path / "model.hrvol"


@pytest.fixture(autouse=True)
def new_process():
    """Let this process start as a worker does, without a model."""
    job_module._models.clear()


def digest(model):
    return hashlib.sha256(model_bytes(model)).hexdigest()


def test_a_process_refuses_another_model_than_that_of_the_run_and_names_both(models, file):
    source = ModelSource(str(file), digest(models[0]))
    assert model_bytes(source.load()[0]) == model_bytes(models[0])
    job_module._models.clear()
    save_model(models[1], file)
    with pytest.raises(ModelError) as caught:
        source.load()
    message = str(caught.value)
    assert message.startswith(
        f"{file}: found a model with SHA-256 {digest(models[1])}, expected {digest(models[0])}"
    )
    assert "\n" not in message
    file.unlink()
    with pytest.raises(ModelError, match="found no such file"):
        source.load()


def test_a_worker_of_this_machine_reads_the_copy_of_the_driver(models, file):
    with ExitStack() as stack:
        source = job_module.ModelContent.of(file).source(WeightsSource(), "cpu", stack, workers=True)
        job_module._models.clear()
        save_model(models[1], file)
        assert model_bytes(source.load()[0]) == model_bytes(models[0])


def test_a_worker_of_another_machine_reads_the_copy_in_the_output(models, file):
    class Store:
        """An output whose copy of the model may be damaged."""

        def __init__(self, data):
            self.data = data

        def read_file(self, name):
            assert name == MODEL_FILE
            return self.data

    save_model(models[1], file)
    source = ModelSource(str(file), digest(models[0]))
    job_module._models.clear()
    with pytest.raises(ModelError, match="found a model with SHA-256"):
        source.load(Store(model_bytes(models[1])))
    assert model_bytes(source.load(Store(model_bytes(models[0])))[0]) == model_bytes(models[0])


def test_a_model_in_memory_needs_no_file(models):
    with ExitStack() as stack:
        content = job_module.ModelContent.of(replace(models[0], source="nowhere"))
        source = content.source(WeightsSource(), "cpu", stack, workers=False)
        job_module._models.clear()
        assert model_bytes(source.load()[0]) == model_bytes(models[0])


def test_a_run_in_one_process_goes_on_with_its_model_or_ends(models, file, tmp_path):
    image, out = make_volume()[0], tmp_path / "out.ome.zarr"
    expected = tmp_path / "expected.ome.zarr"
    segment_volume(image, expected, models[0])
    job_module._models.clear()

    def swap(stage, done, total):
        if done:
            save_model(models[1], file)
            job_module._models.clear()  # as if another run in this process had begun

    with pytest.raises(BlockError, match=f"SHA-256 {digest(models[1])}, expected {digest(models[0])}"):
        segment_volume(image, out, file, progress=swap)
    with pytest.raises(OtherRunError, match="model"):
        segment_volume(image, out, file)
    save_model(models[0], file)
    segment_volume(image, out, file)
    labels = [zarr.open_array(path / "labels/hrvol/0", mode="r")[:] for path in (out, expected)]
    np.testing.assert_array_equal(*labels)


@pytest.mark.faults
@pytest.mark.timeout(120)
def test_workers_that_start_later_label_with_the_model_of_the_run(case, models, tmp_path):
    out, model = tmp_path / "out.ome.zarr", tmp_path / "model.hrvol"
    shutil.copyfile(case.model, model)
    words = [str(model) if word == str(case.model) else word for word in case.command(out, engine="local")]
    with Run(words, tmp_path / "log") as run:
        wait_for((out / "zarr.json").exists)  # the driver has read the model, and starts its workers
        save_model(models[1], model)
        wait_for(lambda: progress_of(out)[0] >= 1)
        for worker in run.workers():
            worker.kill()
        assert run.wait() == 0, run.said
    # The attributes differ: they name another file of the same model.
    assert [name for name in differing(contents(out), case.expected) if name] == []
    assert run_status(out)["state"] == "complete"
