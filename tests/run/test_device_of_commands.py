"""The device that is chosen reaches features and fits of tune, detect, similar and pca."""

from functools import partial

import numpy as np
import pytest
import tifffile
import torch
from click.testing import CliRunner
from run_data import QUICK
from see_data import RECIPE, discs, use

from hrvol import device as devices
from hrvol.cli import main
from hrvol.device import DeviceChoice
from hrvol.errors import DeviceError, UsageError
from hrvol.explore import detect, pca, similar
from hrvol.explore.detect import detect_objects
from hrvol.explore.pca import pca_picture
from hrvol.explore.similar import find_similar
from hrvol.features import featuriser
from hrvol.segment.pixel_classifier import PixelClassifier
from hrvol.training import cluster
from hrvol.training import train as pipeline
from hrvol.training.train import train_model
from hrvol.training.tuning.tune import tune_recipe

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

CHOSEN = "cpu:0"
"""The CPU, by a name of torch's that nothing falls back to."""

IMAGE, _ = discs()
LINEAR = QUICK.with_(**{"classifier.kind": "logistic"})  # asked by torch itself, without nvForest


def strokes():
    drawn = np.zeros((1, *IMAGE.shape), np.uint8)
    drawn[0, 35:45:3, 30:60] = drawn[0, 115:125:3, 110:130] = 1
    drawn[0, 5:15:3, 5:60] = drawn[0, 60:70:3, 100:160] = 2
    return drawn


PAIR = IMAGE[None], strokes()


def do_tune(tmp_path, **options):
    return tune_recipe([PAIR], **{"recipe": LINEAR, "minutes": 0} | options)


def do_detect(tmp_path, **options):
    return detect_objects(IMAGE, recipe=RECIPE, classes=2, **options)


def do_similar(tmp_path, **options):
    return find_similar(IMAGE, [(40, 45)], recipe=RECIPE, **options)


def do_pca(tmp_path, **options):
    return pca_picture([IMAGE], tmp_path / "p.png", recipe=RECIPE, **options)


def do_auto(tmp_path, **options):
    return train_model([PAIR], recipe="auto", **options)


LOOKS = {"detect": do_detect, "similar": do_similar, "pca": do_pca}
FUNCTIONS = {"tune": do_tune, "train --recipe auto": do_auto, **LOOKS}
every_function = pytest.mark.parametrize("work", FUNCTIONS.values(), ids=FUNCTIONS)


@pytest.fixture
def quickly(monkeypatch):
    """Training chooses from a recipe for tests, without time."""
    monkeypatch.setattr(pipeline, "tune_recipe", partial(tune_recipe, recipe=LINEAR, minutes=0))


@pytest.fixture
def noted(monkeypatch, quickly):
    """Devices asked for, and where features are made and fits done, once another is chosen for all.

    What is no device to cuML is fitted on the CPU.
    """
    use(monkeypatch)
    found = {"wanted": [], "features": [], "fits": [], "asked": []}

    def choose(wanted):
        found["wanted"].append(wanted)
        return DeviceChoice(CHOSEN, "by the test")

    for module in (devices, cluster, detect, pca, pipeline, similar):
        monkeypatch.setattr(module, "choose_device", choose)

    def load(spec, *, real=featuriser.load_featuriser, device="auto", **options):
        found["features"].append(device)
        return real(spec, device=device, **options)

    def fit(*arguments, real, device="cpu", **options):
        found["fits"].append(device)
        return real(*arguments, device="cpu", **options)

    def predict(self, features, real=PixelClassifier.predict, **options):
        found["asked"].append(type(features))
        return real(self, features, **options)

    monkeypatch.setattr(featuriser, "load_featuriser", load)
    monkeypatch.setattr(PixelClassifier, "fit", partial(fit, real=PixelClassifier.fit))
    monkeypatch.setattr(PixelClassifier, "predict", predict)
    monkeypatch.setattr(cluster, "fit_clusters", partial(fit, real=cluster.fit_clusters))
    return found


@every_function
def test_a_chosen_device_reaches_features_and_fits(noted, tmp_path, work):
    work(tmp_path, device="cuda")
    assert set(noted["wanted"]) == {"cuda"}
    assert noted["features"]
    assert set(noted["features"]) == {CHOSEN}
    fitted = work not in (do_similar, do_pca)
    assert set(noted["fits"]) == ({CHOSEN} if fitted else set())


def test_what_a_pixel_costs_is_measured_where_it_is_segmented(noted, tmp_path):
    found = do_tune(tmp_path)
    assert {np.ndarray, torch.Tensor} == set(noted["asked"])
    # Scores are told on the host, whatever the device.
    assert noted["asked"].count(torch.Tensor) == 2 * len(found.rows)
    assert all(row.microseconds > 0 for row in found.rows)


def test_on_the_cpu_nothing_is_asked_but_by_numpy(noted, monkeypatch, tmp_path):
    elsewhere = do_tune(tmp_path)
    noted["asked"].clear()
    monkeypatch.setattr(devices, "choose_device", lambda wanted: DeviceChoice("cpu", "by the test"))
    here = do_tune(tmp_path)
    assert set(noted["asked"]) == {np.ndarray}
    assert [(row.recipe, row.scores) for row in here.rows] == [
        (row.recipe, row.scores) for row in elsewhere.rows
    ]


@every_function
def test_a_wrong_device_is_refused_before_the_work(monkeypatch, tmp_path, work):
    network = use(monkeypatch)
    with pytest.raises(UsageError, match="device: expected auto, cpu, cuda, got 'gpu'"):
        work(tmp_path, device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match=r"device: cuda: torch .* expected one, or device: cpu"):
            work(tmp_path, device="cuda")
    assert network.seen == []


# -- on the command line ---------------------------------------------------------------------------------


@pytest.fixture
def commands(tmp_path, monkeypatch, quickly):
    """The commands, without --device."""
    use(monkeypatch)
    image, drawn = tmp_path / "a.tif", tmp_path / "drawn.tif"
    tifffile.imwrite(image, IMAGE)
    tifffile.imwrite(drawn, PAIR[1][0])
    for name, recipe in (("looks", RECIPE), ("tuned", LINEAR)):
        (tmp_path / f"{name}.yaml").write_text(recipe.to_yaml())
    looks = "--recipe", tmp_path / "looks.yaml"
    return {
        "tune": ("tune", image, drawn, "--minutes", 0, "--recipe", tmp_path / "tuned.yaml"),
        "train": ("train", image, drawn, "-o", tmp_path / "m.hrvol", "--recipe", "auto"),
        "detect": ("detect", image, image.with_name("drawn.tif"), "--classes", 2, "--json", *looks),
        "similar": ("similar", image, "--at", "40,45", *looks),
        "pca": ("pca", image, "-o", tmp_path / "p.png", *looks),
    }


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tune", ["tune: device: cpu (as requested)"]),
        ("train", ["tune: device: cpu (as requested)", "device: cpu (as requested)"]),
        ("detect", ["device: cpu (as requested)"]),  # of two images
        ("similar", ["device: cpu (as requested)"]),
        ("pca", ["device: cpu (as requested)"]),
    ],
)
def test_a_command_says_once_which_device_it_took(commands, name, said):
    result = run(*commands[name], "--device", "cpu")
    assert result.exit_code == 0, (result.output, result.exception)
    assert [line for line in result.stderr.splitlines() if "device:" in line] == said


@pytest.mark.parametrize("name", ["tune", "train", "detect", "similar", "pca"])
def test_a_wrong_device_is_one_clear_line(commands, name):
    result = run(*commands[name], "--device", "gpu")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith(
        "hrvol: error: Invalid value for '--device': 'gpu' is not one of 'auto', 'cpu', 'cuda'."
    )
    if not torch.cuda.is_available():
        result = run(*commands[name], "--device", "cuda")
        assert result.exit_code == 1
        (line,) = result.stderr.splitlines()
        assert line.startswith("hrvol: error: device: cuda: torch ")


# -- on a GPU --------------------------------------------------------------------------------------------


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("kind", ["vote", "forest", "logistic"])
def test_recipes_are_tried_on_a_gpu_as_on_the_cpu(weights, kind):
    recipe = QUICK.with_(**{"classifier.kind": kind})
    here, there = (
        tune_recipe([PAIR], recipe=recipe, minutes=0, weights_path=weights, device=device)
        for device in ("cpu", "cuda")
    )
    of_cpu = {row.name: row.mean for row in here.rows}
    of_gpu = {row.name: row.mean for row in there.rows}
    assert of_gpu == pytest.approx(of_cpu, abs=0.1)
    assert all(row.microseconds > 0 for row in there.rows)


@pytest.mark.gpu
@on_gpu
def test_an_image_is_looked_at_on_a_gpu_as_on_the_cpu(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(featuriser, "_LOADED", {})
    options = {"weights_path": weights, "device": "cuda"}
    assert do_detect(tmp_path, **options).labels.shape == IMAGE.shape
    found = do_similar(tmp_path, **options).targets[0].heat
    explained = do_pca(tmp_path, **options).explained
    assert {loaded.device.type for loaded in featuriser._LOADED.values()} == {"cuda"}
    options["device"] = "cpu"
    expected = do_similar(tmp_path, **options).targets[0].heat
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert explained == pytest.approx(do_pca(tmp_path, overwrite=True, **options).explained, abs=0.02)
