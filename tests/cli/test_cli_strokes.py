"""hrvol strokes: list, merge and convert; offsets of training and evaluation."""

import json

import numpy as np
import pytest
import tifffile
import yaml
import zarr
from click.testing import CliRunner
from run_data import QUICK, draw, make_volume
from strokes_data import write_ome, write_project

from hrvol.cli import main
from hrvol.segment.model.model import load_model
from hrvol.volume.strokes.merge import count_strokes
from hrvol.volume.strokes.open_strokes import open_strokes
from hrvol.volume.volume import open_volume


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments], standalone_mode=True)
    assert result.exit_code == code, result.output
    return result.output if code else result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strokes")
    image, truth = make_volume()
    drawn = draw(truth)
    write_ome(folder / "volume.zarr", image, (3, 2, 1), (1, 0.5, 0.5))
    tifffile.imwrite(folder / "strokes.tif", drawn)
    tifffile.imwrite(folder / "crop.tif", drawn[0:4, 20:120, 10:100], photometric="minisblack")
    write_project(folder / "scan.ilp", [("scan", drawn)])
    return folder


def test_list(folder):
    drawn = tifffile.imread(folder / "strokes.tif")
    (found,) = json.loads(run("strokes", "list", folder / "scan.ilp", "--json"))
    assert [c["name"] for c in found["classes"]] == ["matrix", "fibre"]
    assert [c["pixels"] for c in found["classes"]] == [int((drawn == v).sum()) for v in (1, 2)]
    assert found["classes"][1]["planes"] == {str(z): int((drawn[z] == 2).sum()) for z in (0, 3)}
    assert found["classes"][0]["colour"] == [255, 225, 25]
    shown = run("strokes", "list", folder / "scan.ilp", "--planes", "--volume", folder / "volume.zarr")
    assert "on 5 x 150 x 130 voxels" in shown
    assert "#ffe119" in shown


@pytest.mark.parametrize("suffix", [".ome.zarr", ".tif", ".csv"])
def test_convert_keeps_every_voxel(folder, tmp_path, suffix):
    out, drawn = tmp_path / f"out{suffix}", tifffile.imread(folder / "strokes.tif")
    line = ("strokes", "convert", folder / "scan.ilp", out, "--volume", folder / "volume.zarr")
    assert f"{np.count_nonzero(drawn)} pixels of 2 classes" in run(*line)
    volume = open_volume(folder / "volume.zarr")
    back = open_strokes(out, volume)
    assert np.array_equal(back.read(np.s_[0:5, 0:150, 0:130]), drawn)
    assert "exists" in run(*line, code=1)
    run(*line, "--fresh")
    if suffix == ".ome.zarr":
        written = open_volume(out)
        assert (written.voxel_size, written.translation) == (volume.voxel_size, volume.translation)
        assert (back.classes[0].name, back.classes[0].colour) == ("matrix", (255, 225, 25))
        assert len(list((out / "0" / "c").rglob("*"))) < 12  # drawn planes only
    if suffix == ".csv":
        assert [c.name for c in back.classes] == ["matrix", "fibre"]
        assert out.read_text().startswith("z,y,x,class,name\n0,")


def test_merge(folder, tmp_path):
    for name, rows in {"a": "0,1,1\n0,1,2\n", "b": "0,1,2\n2,3,4\n"}.items():
        (tmp_path / f"{name}.csv").write_text(f"z,y,x\n{rows}")
    sources = (f"{tmp_path}/a.csv::pore", f"{tmp_path}/b.csv::solid")
    line = (
        "strokes",
        "merge",
        *sources,
        "-o",
        tmp_path / "both.ome.zarr",
        "--volume",
        folder / "volume.zarr",
    )
    assert "found class 1 as solid, expected pore" in run(*line, code=1)
    line = (*line, "--classes", "pore,solid")
    assert "found 1 pixels of other classes" in (found := run(*line, code=1))
    assert "z 0, y 1, x 2: pore and solid" in found
    assert not (tmp_path / "both.ome.zarr").exists()
    assert "3 pixels of 2 classes" in run(*line, "--conflicts", "last")
    merged = open_strokes(tmp_path / "both.ome.zarr")
    assert {v: dict(p) for v, p in count_strokes(merged).planes.items()} == {1: {0: 1}, 2: {0: 1, 2: 1}}
    run(*line, "--conflicts", "first", "--fresh")
    assert count_strokes(open_strokes(tmp_path / "both.ome.zarr")).planes[1] == {0: 2}
    other = ("strokes", "merge", *sources, "-o", tmp_path / "a.csv", "--classes", "pore,solid", "--fresh")
    assert "is (or holds, or is inside) the input" in run(*other, code=2)


def test_offsets_of_training_tuning_and_evaluation(folder, tmp_path):
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(QUICK.to_dict()))
    train = ("train", folder / "volume.zarr", folder / "crop.tif", "--recipe", tmp_path / "quick.yaml", "-o")
    assert "--offset z,y,x" in run(*train, tmp_path / "m.hrvol", code=1)
    run(*train, tmp_path / "m.hrvol", "--offset", "0,20,10")
    samples = load_model(tmp_path / "m.hrvol").trained_on[0]["samples"]
    drawn = np.bincount(tifffile.imread(folder / "crop.tif").ravel())
    assert samples == {"1": min(500, drawn[1]), "2": min(500, drawn[2])}
    wrong = run(*train, tmp_path / "n.hrvol", "--offset", "0,60,10", code=1)
    assert "found strokes at 60:160 along y, expected a part of 0:150" in wrong
    assert "expected z,y,x" in run(*train, tmp_path / "n.hrvol", "--offset", "1,2,3,4", code=2)
    assert "expected one for each of 1 pairs" in run(
        *train, tmp_path / "n.hrvol", "--offset", "0,0,0", "--offset", "0,0,0", code=2
    )
    tifffile.imwrite(tmp_path / "pred.tif", make_volume()[1])
    line = ("evaluate", tmp_path / "pred.tif", folder / "crop.tif", "--offset", "0,20,10", "--json")
    assert json.loads(run(*line))["miou"] == 1
    assert json.loads(run("evaluate", tmp_path / "pred.tif", folder / "scan.ilp", "--json"))["miou"] == 1


def test_a_huge_sparse_array_is_listed_and_converted(tmp_path):
    array = zarr.create_array(
        tmp_path / "huge.zarr", shape=(10_000,) * 3, dtype="u1", chunks=(1, 512, 512), fill_value=0
    )
    array[5000, 7000:7003, 20] = 1
    array[9999, 9999, 9999] = 2
    run("strokes", "convert", tmp_path / "huge.zarr", tmp_path / "p.csv", "--classes", "a,b")
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 5
    run("strokes", "convert", tmp_path / "p.csv", tmp_path / "again.zarr")
    (found,) = json.loads(run("strokes", "list", tmp_path / "again.zarr", "--json"))
    assert found["shape"] == [10_000] * 3
    assert [c["pixels"] for c in found["classes"]] == [3, 1]
    assert "write *.ome.zarr" in run("strokes", "convert", tmp_path / "p.csv", tmp_path / "p.tif", code=1)
