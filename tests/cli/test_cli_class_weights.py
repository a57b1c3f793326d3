"""--class-weight and --fractions on the command line: what is accepted, and how the rest is refused."""

import json

import click
import pytest
import zarr
from click.testing import CliRunner
from run_data import QUICK, draw, make_volume

from hrvol.cli import main
from hrvol.cli.common.class_weights import parse_factors, parse_fractions
from hrvol.segment.model.model import save_model
from hrvol.training.train import train_model
from hrvol.volume.volume import open_labels


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    image, truth = make_volume(shape=(2, 70, 90))
    zarr.save_array(folder / "volume.zarr", image)
    save_model(
        train_model([(image, draw(truth, [0]))], recipe=QUICK, classes=["a=b", "disc"]), folder / "m.hrvol"
    )
    return folder


def run(place, command, out, *more, code=0):
    given = (command, place / "volume.zarr", out, "-m", place / "m.hrvol", "--engine", "serial", *more)
    result = CliRunner().invoke(main, [str(word) for word in given])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def recorded(out, name="class_weights"):
    return zarr.open_group(out, mode="r").attrs["hrvol"].get(name)


def test_weights_and_fractions_reach_the_output(place, tmp_path):
    run(place, "segment", tmp_path / "plain")
    run(place, "segment", tmp_path / "named", "--class-weight", "disc=0.01", "--class-weight", "a=b=2")
    assert recorded(tmp_path / "named") == {"a=b": 2.0, "disc": 0.01}
    stderr = run(place, "segment", tmp_path / "order", "--fractions", "0.95,0.05").stderr
    assert "fractions: labels of 4 tiles of" in stderr
    stderr = run(place, "segment", tmp_path / "order", "--fractions", "2=5, a=b=95").stderr
    assert "fractions: labels" not in stderr  # not sampled again
    assert recorded(tmp_path / "order", "fractions") == {"a=b": 0.95, "disc": 0.05}
    assert recorded(tmp_path / "order")["disc"] < recorded(tmp_path / "order")["a=b"] == 1
    assert recorded(tmp_path / "plain") is None
    discs = [(open_labels(tmp_path / n).read() == 2).mean() for n in ("plain", "order", "named")]
    assert discs[0] > discs[1] > discs[2]
    assert discs[1] == pytest.approx(0.05, abs=0.01)
    assert "class_weights" in run(place, "segment", tmp_path / "order", code=1).stderr
    line = run(place, "segment", tmp_path / "order", "--fractions", "9,1", code=1).stderr
    assert "fractions.a=b was 0.95, now 0.9" in line


def test_a_plan_takes_the_same_options(place, tmp_path):
    weights = ("--class-weight", "disc=0.5")
    plan = json.loads(run(place, "plan", tmp_path / "out", *weights, "--json", "--seconds", "0.1").stdout)
    assert plan["blocks"] > 0
    line = run(place, "plan", tmp_path / "out", "--class-weight", "dics=0.5", code=2).stderr
    assert "a=b (1), disc (2)" in line
    line = run(place, "segment", tmp_path / "out", "--dry-run", "--fractions", "1", code=2).stderr
    assert "found 1, expected 2" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--class-weight", "glue=2"], "found 'glue', expected one of the classes a=b (1), disc (2)"),
        (
            ["--class-weight", "disc=2", "--class-weight", "2=3"],
            "found disc twice, expected each of the classes",
        ),
        (
            ["--class-weight", "disc=0"],
            "found the factor 0, expected finite factors above 0, for the classes a=b",
        ),
        (["--class-weight", "disc=-2"], "found the factor -2"),
        (["--class-weight", "disc=nan"], "found the factor nan"),
        (["--class-weight", "disc=inf"], "found the factor inf"),
        (["--class-weight", "disc=1"], "found the factor 1 for each class"),
        (["--class-weight", "disc"], "expected NAME=FACTOR, such as pore=0.5"),
        (["--class-weight", "disc=much"], "found 'much' in 'disc=much'"),
        (["--fractions", "1,x"], "found 'x' in '1,x', expected numbers separated by commas"),
        (["--fractions", "a=b=1,2"], "expected numbers separated by commas, or NAME=NUMBER for each class"),
        (["--fractions", "disc=1,disc=2"], "each once"),
        (["--fractions", "0,1"], "found the fraction 0"),
        (["--fractions", "1,1", "--class-weight", "disc=2"], "expected only one of them"),
    ],
)
def test_what_makes_no_sense_is_one_line(place, tmp_path, options, message):
    stderr = run(place, "segment", tmp_path / "no", *options, code=2).stderr
    assert message in stderr.splitlines()[-1]
    assert stderr.count("\n") == 1
    assert not (tmp_path / "no").exists()


def test_parsers_return_plain_values():
    assert parse_factors(None, None, ("a = 2", "b=1e-3")) == (("a", 2.0), ("b", 0.001))
    assert parse_fractions(None, None, " 1, 2.5 ") == (1.0, 2.5)
    assert parse_fractions(None, None, None) is None
    with pytest.raises(click.BadParameter):
        parse_fractions(None, None, "1,,2")


def test_no_other_command_has_the_options():
    with_them = {
        name
        for name, command in main.commands.items()
        if {"--class-weight", "--fractions"} & {word for p in command.params for word in p.opts}
    }
    assert with_them == {"segment", "plan"}
