"""Workflow files: what is wrong with one is told with its line and column."""

import json

import pytest
from series_data import make_series

from hrvol.errors import WorkflowError
from hrvol.series.plan_series import plan_series
from hrvol.series.workflow_file import workflow_schema

WRONG = {
    "": "1:1: found no keys, expected some workflow keys, or {} for the defaults",
    "- a": "1:1: found a list, expected a mapping of workflow keys",
    "volumes: a.tif": "1:1: found no steps, expected one",
    "volumes: a.tif\nsteps: {}": "2:1: steps: found no step, expected some",
    "volumes: 3\nsteps: {segment: {model: m}}": "1:10: volumes: found 3, expected a list",
    "volumes: a.tif\nsteps:\n  segmnt: {}": "3:3: steps.segmnt: unknown key; did you mean segment?",
    "volumes: a.tif\nsteps:\n  convert: {ome_zarr: 0.6}": (
        "3:23: steps.convert.ome_zarr: found '0.6', expected '0.5' or '0.4'"
    ),
    "volumes: a.tif\nsteps:\n  convert: {compression: zip}": (
        "3:26: steps.convert.compression: found zip, expected none, zstd, gzip, blosc-zstd, blosc-lz4,"
        " such as zstd:5"
    ),
    "volumes: a.tif\nsteps:\n  convert: {chunks: [4, 4, 4], shards: [9, 8, 8]}": (
        "3:40: steps.convert.shards: found (9, 8, 8), expected multiples of the chunks, (4, 4, 4)"
    ),
    "volumes: a.tif\nsteps:\n  convert: {uint8: '5,1'}": (
        "3:20: steps.convert.uint8: found 5,1, expected auto, LOW,HIGH or LOW%,HIGH% with LOW < HIGH"
    ),
    "volumes: a.tif\nsteps:\n  segment:\n    model: m\n    level: 1.5": (
        "5:12: steps.segment.level: found 1.5, expected an integer"
    ),
    "volumes:\n  - a.tif\n  - {path: b.tif, truht: c.tif}\nsteps: {segment: {model: m}}": (
        "3:19: volumes[1].truht: unknown key; did you mean truth?"
    ),
    "volumes:\n  x: {path: b.tif,\n    truth: 3}\nsteps: {segment: {model: m}}": (
        "3:12: volumes[0].truth: found 3, expected text"
    ),
    "volumes: a.tif\nsteps:\n  segment: {model: m}\n  export: {what: labels}": (
        "4:3: steps.export[0]: found no output, expected one"
    ),
    "volumes: a.tif\nsteps:\n  segment: {model: m}\n  export: [{output: a.tif}, {output: 5}]": (
        "4:38: steps.export[1].output: found 5, expected text"
    ),
    "volumes: a.tif\nsteps:\n  export: {output: b.tif}": (
        "2:1: steps: found export alone, expected segment or cluster too"
    ),
    "volumes: a.tif\nsteps:\n  segment: {model: m, output: {name}/x}": (
        "3:37: not valid YAML: while parsing a flow mapping, expected ',' or '}', but got '<scalar>'"
        " (text that begins with { is a mapping in YAML: put it in quotes)"
    ),
    "volumes: a.tif\ntable: t.txt\nsteps: {segment: {model: m}}": (
        "2:8: table: found t.txt, expected a file .csv or .json"
    ),
    "volumes: a.tif\nout: s3://b/c\nsteps: {segment: {model: m}}": (
        "2:6: out: found the URL s3://b/c, expected a local folder"
    ),
    "volumes: none/*.tif\nsteps: {segment: {model: m}}": (
        "1:10: volumes[0].path: found no file for none/*.tif, expected some"
    ),
    "volumes: [x/a.tif, y/a.tif]\nsteps: {segment: {model: m}}": (
        "1:20: volumes[1]: found two volumes named a (FOLDER/x/a.tif, FOLDER/y/a.tif), expected different"
        ' names, such as name: "{folder}-{stem}"'
    ),
    'volumes: {path: a.tif, name: "{nam}"}\nsteps: {segment: {model: m}}': (
        "1:30: volumes[0].name: found {nam}, expected one of {name}, {stem}, {folder}"
    ),
    "volumes: [a.tif, b.tif]\nsteps:\n  segment: {model: m,\n    output: x.ome.zarr}": (
        "4:13: steps.segment.output: found FOLDER/results/x.ome.zarr as output of segment.a and segment.b,"
        " expected different ones (such as {name} in it)"
    ),
    'volumes: a.tif\nsteps:\n  segment: {model: "{x}.hrvol"}': (
        "3:20: steps.segment.model: found {x}, expected one of {name}, {stem}, {folder}"
    ),
    'volumes: a.tif\nsteps:\n  segment: {model: "{name!r}"}': (
        "3:20: steps.segment.model: found {name!r}, expected a name in braces, such as {name}"
    ),
    'volumes: a.tif\nsteps:\n  segment: {model: m, roi: "1:2"}': (
        "3:28: steps.segment.roi: found '1:2', expected z0:z1,y0:y1,x0:x1 (or y0:y1,x0:x1 for an image)"
    ),
    "volumes: a.tif\nsteps:\n  segment: {model: m, volumes: [b]}": (
        "3:33: steps.segment.volumes[0]: found 'b', expected names of volumes: a"
    ),
    "volumes: a.tif\nsteps:\n  segment: {}": (
        "3:3: steps.segment: found no model for a, expected model, or a step that makes one (train)"
    ),
    'volumes: a.tif\nsteps:\n  train: {strokes: "no/{name}.tif"}': (
        "3:20: steps.train.strokes: found no strokes of a as no/{name}.tif, expected some"
    ),
    'volumes: a.tif\nsteps:\n  train: {strokes: "no/{name}.tif", volumes: [a]}': (
        "3:20: steps.train.strokes: found no file FOLDER/no/a.tif, expected the strokes of a"
    ),
    "volumes: {a: {path: a.tif, truth: no.tif}}\nsteps:\n  segment: {model: m}\n  evaluate: {}": (
        "1:11: volumes[0]: found no file FOLDER/no.tif, expected the truth of a"
    ),
    "volumes: [a.tif, b.tif]\nsteps:\n  cluster: {model: m.hrvol}": (
        "3:20: steps.cluster.model: found 2 volumes for one model, expected volumes: [NAME] beside it"
    ),
    "volumes: a.tif\noptions: {storage_options: {secret: x}}\nsteps: {segment: {model: m}}": (
        "2:11: options.storage_options: found a secret, secret, expected secret: env:NAME, or"
        " storage_options_file"
    ),
    "volumes: a.tif\nreading: {axis_order: xyw}\nsteps: {segment: {model: m}}": (
        "2:23: reading.axis_order: found xyw, expected the letters z, y and x in the order of the stored"
        " axes, such as xyz"
    ),
    "volumes: {path: a.tif, reading: {raw: {shape: [3]}}}\nsteps: {segment: {model: m}}": (
        "1:47: volumes[0].reading.raw.shape: found [3], expected a list of at least 2 values"
    ),
    "volumes: a.raw\nreading: {raw: {shape: [3, 4], dtype: text}}\nsteps: {segment: {model: m}}": (
        "2:11: reading.raw: found text, expected a type such as uint8, uint16 or float32"
    ),
    "volumes: {path: a.tif, cluster: {merge: 1}}\nsteps: {cluster: {classes: 3}}": (
        "1:24: classes: found a number beside merge, expected only one of them"
    ),
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_told_with_its_position(text, tmp_path):
    file = tmp_path / "w.yaml"
    file.write_text(text)
    with pytest.raises(WorkflowError) as error:
        plan_series(file)
    expected = WRONG[text].replace("FOLDER", str(tmp_path))
    assert str(error.value) == f"{file}:{expected}"


@pytest.mark.parametrize(
    ("table", "line", "told"),
    [
        ("name\na\n", 1, "found the columns name, expected path, each once"),
        ("path,path\na,b\n", 1, "found the columns path, path, expected path, each once"),
        ("path,name\na.tif,a\nb.tif\n", 3, "found 1 values, expected 2 with a path"),
        ("path,name\n,a\n", 2, "found 2 values, expected 2 with a path"),
        ("path,name\n", 0, "found no rows, expected a volume in each"),
        (b"path\n\xff\n", 0, "no CSV in UTF-8"),
    ],
)
def test_damaged_tables(table, line, told, tmp_path):
    file = tmp_path / "t.csv"
    file.write_bytes(table if isinstance(table, bytes) else table.encode())
    (tmp_path / "w.yaml").write_text("volumes: t.csv\nsteps: {segment: {model: m}}")
    with pytest.raises(WorkflowError) as error:
        plan_series(tmp_path / "w.yaml")
    assert str(error.value).startswith(f"{file}:{line}: {told}" if line else f"{file}: {told}")


def test_the_schema_describes_every_key_and_admits_every_form():
    schema = json.loads(json.dumps(workflow_schema()))
    lacking = [
        f"{name}.{key}"
        for name, section in {**schema["$defs"], "file": schema}.items()
        for key, value in section["properties"].items()
        if not value.get("description")
    ]
    assert lacking == []
    forms = schema["properties"]["volumes"]["anyOf"]
    assert {form.get("type", "section") for form in forms} == {"string", "section", "array", "object"}


def test_the_example_of_the_help_is_valid(tmp_path):
    from hrvol.cli import main

    help_text = main.commands["run"].help
    example = help_text.partition("A file:")[2].replace("\n        ", "\n")
    folder = tmp_path / "project"
    file = make_series(folder)
    file.write_text(example.replace("*.ome.zarr", "*.tif"))
    steps = [task.step for task in plan_series(file).tasks]
    assert steps == ["train", *["segment", "evaluate", "export"] * 2]
