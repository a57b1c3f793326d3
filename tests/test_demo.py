"""The demo without its network: writes all results, can be repeated, and changes no other folder."""

import json

import pytest
from matplotlib.image import imread

from hrvol import demo
from hrvol.errors import OutputExistsError
from hrvol.recipe.recipe import Recipe
from hrvol.segment.model.model import load_model
from hrvol.volume.ome.labels import open_label_store
from hrvol.volume.volume import open_labels, open_volume


@pytest.fixture
def small(monkeypatch, quick, tmp_path_factory):
    monkeypatch.setenv("HRVOL_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(demo, "STUDENT_STEPS", 3)
    monkeypatch.setattr(demo, "SHAPE", (4, 96, 96))
    monkeypatch.setattr(demo, "STROKE_PLANES", (0, 3))
    monkeypatch.setattr(demo, "PICTURE_PLANE", 2)
    monkeypatch.setattr(demo, "PRESETS", {"classical": quick, "fast": Recipe.load("fast")})
    monkeypatch.setattr(demo, "cpus", lambda: 1)


def test_demo_leaves_data_models_results_and_pictures(small, tmp_path):
    folder = tmp_path / "demo"
    stages = set()
    report = demo.run_demo(folder, classical_only=True, progress=lambda stage, *_: stages.add(stage))
    assert set(report.scores) == set(report.costs) == {"classical", "student"}
    assert all(cost > 0 for cost in report.costs.values())
    assert set(report.scores["classical"]["iou"]) == {"pore", "binder", "particle", "crack"}
    assert "classical: segment" in stages
    volume = open_volume(folder / "volume.ome.zarr")
    assert (volume.shape, volume.voxel_size, volume.unit) == ((4, 96, 96), (0.2, 0.2, 0.2), "micrometer")
    truth, strokes = (open_labels(folder / f"{name}.ome.zarr").read() for name in ("truth", "strokes"))
    assert (strokes[strokes > 0] == truth[strokes > 0]).all()
    assert not strokes[1:3].any()
    assert [c.name for c in load_model(folder / "classical.hrvol").classes] == [
        *("pore", "binder", "particle", "crack")
    ]
    assert open_label_store(folder / "classical.ome.zarr").complete
    for picture in report.pictures:
        assert imread(picture).std() > 0
    assert json.loads((folder / demo.MARKER).read_text())["scores"].keys() == {"classical", "student"}
    again = demo.run_demo(folder, classical_only=True)
    assert again.scores == report.scores
    assert again.costs.keys() == report.costs.keys()


def test_demo_refuses_a_folder_that_is_not_its_own(small, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="not from hrvol demo"):
        demo.run_demo(tmp_path, classical_only=True)
    with pytest.raises(OutputExistsError, match="not from hrvol demo"):
        demo.run_demo(tmp_path / "mine.txt", classical_only=True)
