"""The tables of the result pages are those of the figures kept beside them."""

import argparse
import importlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.results import load
from benchmarks.studies import gpu_forecast

ROOT = Path(__file__).parents[2]


def rows_of(text):
    return [line for line in text.splitlines() if line.startswith("|")]


def options(seeds):
    return argparse.Namespace(threads=1, seeds=range(seeds), side=336, trees=200)


def shown(figures):
    from benchmarks.quality.presets import DENSE, NAMES, key_of

    keys = {key_of(name, preset) for name in DENSE for preset in NAMES}
    return [part for key, part in figures.items() if key in keys]


@pytest.mark.parametrize(
    ("page", "module", "arguments"),
    [
        ("quality/quality", "quality.tables", lambda figures: (figures, "")),
        ("quality/presets", "quality.presets", lambda figures: (shown(figures), options(5))),
        ("quality/instances", "quality.instances", lambda figures: (figures, ())),
        ("quality/doubt", "quality.doubt", lambda figures: (figures, range(5))),
        ("cas/cas", "cas.tables", lambda figures: (figures["results"], figures["failed"], "")),
        ("speed/speed", "speed.tables", lambda figures: (figures, "speed.png")),
        ("studies/classifiers", "studies.classifiers", lambda figures: (figures, options(5))),
        ("studies/pareto", "studies.pareto", lambda figures: (figures, options(3))),
        ("studies/precision", "studies.precision", lambda figures: (figures, options(3))),
    ],
)
def test_tables_are_those_of_the_kept_figures(page, module, arguments):
    path = ROOT / "benchmarks" / f"{page}.md"
    render = importlib.import_module(f"benchmarks.{module}").render
    rows = rows_of(render(*arguments(load(path.with_suffix(".json")))))
    assert len(rows) > 5
    assert rows == rows_of(path.read_text(encoding="utf-8"))


def test_the_forecast_is_arithmetic():
    path = ROOT / "benchmarks" / "studies" / "gpu_forecast.md"
    assert rows_of(gpu_forecast.render(518, 448, "")) == rows_of(path.read_text(encoding="utf-8"))
