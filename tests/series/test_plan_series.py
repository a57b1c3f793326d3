"""Volumes and tasks of workflow files."""

from pathlib import Path

import pytest
import yaml

from hrvol.series.plan_series import plan_series
from hrvol.series.volumes import natural, stem_of


def plan(folder, values):
    file = folder / "w.yaml"
    file.write_text(yaml.safe_dump({"steps": {"segment": {"model": "m.hrvol"}}, **values}))
    return plan_series(file)


def tasks(folder, values):
    return {task.id: task for task in plan(folder, values).tasks}


def short(folder, path):
    return str(Path(path).relative_to(folder))


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("path", "stem"),
    [
        ("x/a.ome.zarr", "a"),
        ("x/a.ome.tif", "a"),
        ("a.tif", "a"),
        ("b/a.zarr/", "a"),
        ("scan", "scan"),
        ("s3://bucket/a.ome.zarr", "a"),
        ("a.nxs::/entry/data", "a"),
        ("a.b.h5", "a.b"),
    ],
)
def test_stems(path, stem):
    assert stem_of(path) == stem


def test_volumes_are_named_by_globs_lists_mappings_and_tables(tmp_path):
    touch(tmp_path, "s/v10.tif", "s/v9.tif", "s/v9/rec.tif", "t/x.tif", "s/.hidden.tif")
    (tmp_path / "t" / "t.csv").write_text("path,name,sample\nx.tif,one,steel\ns3://b/y.zarr,,bone\n")

    def found(volumes):
        return [(v.name, v.path) for v in plan(tmp_path, {"volumes": volumes}).volumes]

    here = f"{tmp_path}/"
    assert found("s/*.tif") == [("v9", f"{here}s/v9.tif"), ("v10", f"{here}s/v10.tif")]
    assert found({"path": "s/*/rec.tif", "name": "{folder}"}) == [("v9", f"{here}s/v9/rec.tif")]
    assert found({"b": "s/*.tif"}) == [("b", f"{here}s/*.tif")]
    assert found(["s3://b/z*.zarr", {"path": "s/v9.tif", "name": "n"}]) == [
        ("z*", "s3://b/z*.zarr"),
        ("n", f"{here}s/v9.tif"),
    ]
    assert found("t/t.csv") == [("one", f"{here}t/x.tif"), ("y", "s3://b/y.zarr")]
    assert found("s/*.tif::/a/b") == [("v9", f"{here}s/v9.tif::/a/b"), ("v10", f"{here}s/v10.tif::/a/b")]


def test_numbers_in_names_are_sorted_by_value():
    assert sorted(["a10", "a9", "b1", "a09x", "10", "9"], key=natural) == [
        "9",
        "10",
        "a9",
        "a09x",
        "a10",
        "b1",
    ]


def test_outputs_beside_the_volumes_are_no_volumes(tmp_path):
    touch(tmp_path, "a.zarr", "b.zarr", ".hrvol-run/b.zarr.json")
    assert [v.name for v in plan(tmp_path, {"volumes": "*.zarr", "out": "."}).volumes] == ["a"]


def test_columns_of_a_table_are_placeholders_and_group_models(tmp_path):
    touch(tmp_path, *(f"{n}.tif" for n in ("a", "b", "c")), "sa.tif", "sb.tif", "sc.tif")
    (tmp_path / "t.csv").write_text(
        "path,sample,strokes\na.tif,steel,sa.tif\nb.tif,bone,sb.tif\nc.tif,steel,\n"
    )
    found = tasks(
        tmp_path, {"volumes": "t.csv", "steps": {"train": {"output": "{sample}.hrvol"}, "segment": {}}}
    )
    assert list(found) == ["train.steel", "train.bone", "segment.a", "segment.b", "segment.c"]
    assert short(tmp_path, found["segment.c"].paths["model"]) == "results/steel.hrvol"
    assert found["segment.c"].needs == ("train.steel",)
    assert found["segment.b"].needs == ("train.bone",)
    assert [short(tmp_path, path) for path in found["train.steel"].inputs] == ["a.tif", "sa.tif"]


def test_the_settings_of_a_volume_override_those_of_the_step(tmp_path):
    volumes = ["a.tif", {"path": "b.tif", "segment": {"crf": True, "options": {"workers": 2}}}]
    found = tasks(
        tmp_path,
        {
            "volumes": volumes,
            "options": {"engine": "local", "workers": 8, "device": "cpu"},
            "steps": {"segment": {"model": "{stem}.hrvol", "uncertainty": True}},
        },
    )
    a, b = found["segment.a"], found["segment.b"]
    assert (a.spec.crf, a.spec.uncertainty, a.compute.workers, a.compute.device) == (False, True, 8, "cpu")
    assert (b.spec.crf, b.spec.uncertainty, b.compute.workers, b.compute.device) == (True, True, 2, "cpu")
    assert short(tmp_path, b.paths["model"]) == "b.hrvol"


def test_tuning_training_distilling_and_several_exports_hang_together(tmp_path):
    touch(tmp_path, "a.tif", "b.tif", "strokes/a.tif", "extra.tif", "extra_strokes.tif")
    steps = {
        "tune": {"strokes": "strokes/{name}.tif"},
        "train": {
            "strokes": "strokes/{name}.tif",
            "pairs": [{"volume": "extra.tif", "strokes": "extra_strokes.tif"}],
        },
        "distil": {"volumes": ["b"], "minutes": 1},
        "segment": {},
        "export": [{"output": "{name}.tif"}, {"output": "{name}_image.tif", "what": "image"}],
    }
    found = tasks(tmp_path, {"volumes": "?.tif", "steps": steps})
    assert {name: task.needs for name, task in found.items()} == {
        "tune": (),
        "train": ("tune",),
        "segment.a": ("train",),
        "export.a": ("segment.a",),
        "export2.a": (),
        "distil.b": ("train",),
        "segment.b": ("distil.b",),
        "export.b": ("segment.b",),
        "export2.b": (),
    }
    assert len(found["train"].pairs) == 2
    assert found["train"].recipe == str(tmp_path / "results/recipe.yaml")


def test_one_student_for_all_volumes(tmp_path):
    steps = {"distil": {"output": "s.hrvol", "on": "b", "model": "m.hrvol"}, "segment": {}}
    found = tasks(tmp_path, {"volumes": ["a.tif", "b.tif"], "steps": steps})
    assert list(found) == ["distil", "segment.a", "segment.b"]
    assert short(tmp_path, found["distil"].paths["volume"]) == "b.tif"
    assert found["segment.a"].needs == found["segment.b"].needs == ("distil",)


def test_one_volume_is_clustered_and_the_others_segmented_with_its_model(tmp_path):
    steps = {"cluster": {"volumes": ["b"], "model": "c.hrvol", "boxes": "{name}.csv"}, "segment": {}}
    found = tasks(tmp_path, {"volumes": ["a.tif", "b.tif"], "steps": steps})
    assert {name: task.needs for name, task in found.items()} == {
        "cluster.b": (),
        "segment.a": ("cluster.b",),
    }
    assert [short(tmp_path, path) for path in found["cluster.b"].outputs] == [
        "results/b.ome.zarr",
        "results/b.csv",
        "results/c.hrvol",
    ]


def test_ids_are_safe_and_different(tmp_path):
    found = tasks(tmp_path, {"volumes": {"a b": "1.tif", "a_b": "2.tif", "ä": "3.tif"}})
    assert list(found) == ["segment.a_b", "segment.a_b-2", "segment._"]


def test_braces_can_be_text(tmp_path):
    found = tasks(
        tmp_path, {"volumes": "a.tif", "steps": {"segment": {"model": "m", "output": "{{{name}}}.zarr"}}}
    )
    assert short(tmp_path, found["segment.a"].output) == "results/{a}.zarr"


def test_brackets_in_names_are_no_patterns(tmp_path):
    folder = tmp_path / "[2024] visit"
    touch(folder, "scan[1].tif", "scan[2].tif")
    assert [v.name for v in plan(folder, {"volumes": "*.tif"}).volumes] == ["scan[1]", "scan[2]"]
    assert [v.name for v in plan(folder, {"volumes": "scan[1].tif"}).volumes] == ["scan[1]"]


def test_the_template_of_a_workflow_is_valid(tmp_path):
    template = Path(__file__).parents[2] / "workflows" / "series.yaml"
    touch(
        tmp_path, "scans/a.ome.zarr/zarr.json", "scans/b.ome.zarr/zarr.json", "strokes/a.tif", "truth/b.tif"
    )
    (tmp_path / "w.yaml").write_text(template.read_text())
    found = [task.id for task in plan_series(tmp_path / "w.yaml").tasks]
    assert found == [
        *("train", "segment.a", "export.a", "export2.a"),
        *("segment.b", "evaluate.b", "export.b", "export2.b"),
    ]
