"""Class weights as text: read, written, requested, and restored from outputs."""

from pathlib import Path

import pytest

from hrvol.classes import ClassInfo
from hrvol.errors import UsageError
from hrvol.napari.provenance import request_of
from hrvol.napari.requests import SegmentRequest
from hrvol.napari.slurm import job_script
from hrvol.napari.weights_text import named_weights, parse_weights, weights_text


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", ()),
        (" pore=0.5 ", (("pore", 0.5),)),
        ("pore = .5", None),
        ("pore=0.5, dark, wet=2e-1,3=7", (("pore", 0.5), ("dark, wet", 0.2), ("3", 7.0))),
        ("a=b=2", (("a=b", 2.0),)),
        ("pore", None),
        ("pore=x", None),
        ("pore=1.2.3", None),
    ],
)
def test_weights_are_read(text, pairs):
    if pairs is None:
        with pytest.raises(UsageError, match="class weights: found"):
            parse_weights(text)
    else:
        assert parse_weights(text) == pairs
        assert parse_weights(weights_text(pairs)) == pairs


def test_weights_have_the_names_of_their_classes():
    classes = [ClassInfo(1, "pore", (0, 0, 0)), ClassInfo(2, "a=2", (1, 1, 1)), ClassInfo(3, "c", (2, 2, 2))]
    assert named_weights({1: 0.5, 2: 3.0, 3: 1.0, 9: 4.0}, classes) == (("pore", 0.5), ("2", 3.0))


def test_weights_are_part_of_the_request():
    request = SegmentRequest("v.zarr", "m.hrvol", "o.zarr", class_weights=(("dark pore", 0.5),))
    for arguments in (request.arguments(), request.plan_arguments()):
        assert arguments[arguments.index("--class-weight") + 1] == "dark pore=0.5"
    assert "--class-weight 'dark pore=0.5'" in job_script(request)


def test_weights_of_an_output_are_requested_again(files, tmp_path):
    import hrvol

    out: Path = tmp_path / "weighed.ome.zarr"
    hrvol.segment_volume(
        files / "volume.ome.zarr",
        out,
        files / "model.hrvol",
        engine="serial",
        roi=(slice(0, 1), slice(0, 64), slice(0, 64)),
        class_weights={"disc": 0.25},
    )
    assert request_of(str(out)).class_weights == (("disc", 0.25),)
