"""A folder with volumes, strokes, truths, a recipe, and a workflow file over them."""

import tifffile
import yaml
from run_data import QUICK, draw, make_volume

from hrvol.series.run_series import run_series

SHAPE = (2, 90, 100)
STEPS = {
    "train": {"strokes": "strokes/{name}.tif", "classes": ["matrix", "disc"], "recipe": "recipe.yaml"},
    "segment": {"uncertainty": True},
    "evaluate": {"truth": "truth/{name}.tif"},
    "export": {"output": "{name}.tif"},
}


def save(path, values):
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, values, photometric="minisblack")


def make_series(folder, names=("a", "b"), steps=STEPS, **keys):
    """Write volumes, strokes on the first, a truth of all, and ``series.yaml``; return this file."""
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(names):
        image, truth = make_volume(seed, SHAPE)
        save(folder / "scans" / f"{name}.tif", image)
        save(folder / "truth" / f"{name}.tif", truth)
        if not seed:
            save(folder / "strokes" / f"{name}.tif", draw(truth, planes=(0,)))
    (folder / "recipe.yaml").write_text(QUICK.to_yaml())
    return write(folder, steps, **keys)


def write(folder, steps=STEPS, **keys):
    values = {"volumes": "scans/*.tif", "options": {"engine": "serial"}, "steps": steps, **keys}
    file = folder / "series.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return file


def states(file, **keywords):
    """Run, or look, and return the states of tasks by their ids."""
    return {one.task.id: one.state for one in run_series(file, **keywords).outcomes}


def change_strokes(folder, name="a"):
    path = folder / "strokes" / f"{name}.tif"
    strokes = tifffile.imread(path)
    strokes[1] = strokes[0]
    save(path, strokes)
