"""Every command refuses an output that is one of its inputs, and deletes nothing."""

import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from run_data import QUICK

from hrvol.cli import main
from hrvol.errors import UsageError
from hrvol.explore.detect import detection_files
from hrvol.explore.pca import pca_picture
from hrvol.explore.similar import find_similar
from hrvol.run.cluster import cluster_volume
from hrvol.run.extract_features import extract_features
from hrvol.run.segment import segment_volume
from hrvol.segment.model.model import save_model
from hrvol.volume.ome.labels import open_label_store

INSIDE = "is .or holds, or is inside. the input"


@pytest.fixture(scope="module")
def place(data, model, tmp_path_factory):
    """A volume, strokes, a model, a recipe, and an earlier output of a part of the volume."""
    folder = tmp_path_factory.mktemp("place")
    image, _, strokes = data
    zarr.create_array(folder / "volume.zarr", data=image)
    zarr.create_array(folder / "strokes.zarr", data=strokes)
    save_model(model, folder / "m.hrvol")
    (folder / "recipe.yaml").write_text(QUICK.to_yaml())
    roi = (slice(0, 2), slice(0, 64), slice(0, 64))
    segment_volume(folder / "volume.zarr", folder / "mask.ome.zarr", folder / "m.hrvol", roi=roi)
    return folder


def state(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_earlier_result_as_mask_is_not_deleted(place, monkeypatch):
    before = state(place)
    monkeypatch.chdir(place)
    for out in ("mask.ome.zarr", place / "mask.ome.zarr" / ".", "mask.ome.zarr/labels/hrvol"):
        for function, model in ((segment_volume, ["m.hrvol"]), (cluster_volume, [])):
            with pytest.raises(UsageError, match=INSIDE):
                function("volume.zarr", out, *model, mask=place / "mask.ome.zarr", overwrite=True)
    assert open_label_store("mask.ome.zarr").complete
    assert state(place) == before


def test_model_weights_and_recipe_are_kept(place, monkeypatch):
    before = state(place)
    monkeypatch.chdir(place)
    recipe = place / "recipe.yaml"
    calls = [
        lambda: segment_volume("volume.zarr", place, "m.hrvol", overwrite=True),
        lambda: segment_volume("volume.zarr", "m.hrvol", "m.hrvol", overwrite=True),
        lambda: segment_volume("volume.zarr", "w", "m.hrvol", weights_path=place / "w" / "x"),
        lambda: segment_volume("volume.zarr", "w", "m.hrvol", scheduler_file="w/s.json"),
        lambda: cluster_volume("volume.zarr", "out.zarr", recipe=recipe, model=recipe, overwrite=True),
        lambda: cluster_volume("volume.zarr", "out.zarr", recipe=QUICK, model="b", boxes="b"),
        lambda: extract_features("volume.zarr", recipe, recipe=recipe, overwrite=True),
        lambda: pca_picture(["volume.zarr"], "w.png", weights_path="w.png"),
        lambda: (
            find_similar("volume.zarr", [(0, 3, 3)], ["t.png/a"], picture="t.png")
            if zarr.create_array("t.png/a", data=np.zeros((2, 8, 8), np.uint8))
            else None
        ),
        lambda: detection_files(["volume.zarr"], place, others=[place / "volume.png"]),
    ]
    (place / "w.png").touch()
    for call in calls:
        with pytest.raises(Exception, match=INSIDE) as refused:
            call()
        assert refused.type is UsageError
    after = state(place)
    assert {path: after[path] for path in before} == before


@pytest.mark.parametrize("command", ["train", "tune"])
@pytest.mark.parametrize("out", ["strokes.zarr/m.hrvol", "recipe.hrvol"])
def test_training_keeps_its_inputs(place, command, out, monkeypatch):
    monkeypatch.chdir(place)
    (place / "recipe.hrvol").write_text("# Chosen by hrvol tune\n" + QUICK.to_yaml())
    before = state(place)
    words = [command, "volume.zarr", "strokes.zarr", "-o", out, "--recipe", "recipe.hrvol", "--fresh"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert "expected another path" in result.output
    assert state(place) == before
