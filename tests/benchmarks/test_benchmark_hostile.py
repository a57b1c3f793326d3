"""Cases of hostile input: their number, how their ends are judged, and the tables of the verdicts."""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.runs.hostile import page
from benchmarks.runs.hostile.case import EITHER, REFUSE, SAME, Case, nothing
from benchmarks.runs.hostile.cases import all_cases
from benchmarks.runs.hostile.judge import VERDICTS, Sound, judge, observe, stored, unsafe
from benchmarks.runs.hostile.runner import Ending

SOUND = Sound({"a": 1}, 700.0, frozenset({"device: cpu"}))


def test_there_are_many_cases_of_all_classes():
    cases = all_cases()
    groups = Counter(case.group for case in cases)
    assert len(cases) >= 1200
    assert sum(case.generated for case in cases) >= 300
    assert len(groups) >= 18
    assert min(groups.values()) >= 20
    assert [case.title for case in all_cases()] == [case.title for case in cases]
    assert {case.title for case in cases} <= {case.title for case in all_cases(every=True)}


def verdict(code, err="", out="", expect=REFUSE, result=None, kept=True, peak=700.0, **more):
    case = Case("class", "case", ("info", "v.zarr"), nothing, expect, ("v.zarr",), **more)
    return judge(case, Ending(code, out, err, 1.0, peak), result, SOUND, kept)[0]


REFUSAL = "hrvol: error: v.zarr: found text, expected a volume\n"


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        ({"code": 1, "err": REFUSAL}, "refused"),
        ({"code": 2, "err": "device: cpu\nread: 50 % (1 of 2)\n" + REFUSAL}, "refused"),
        ({"code": 1, "err": "<tifffile.TiffPages @8> invalid page\n" + REFUSAL}, "poor"),
        ({"code": 1, "err": "hrvol: error: found text\n"}, "poor"),
        ({"code": 1, "err": REFUSAL.replace("text", "x" * 5000)}, "poor"),
        ({"code": 3, "err": REFUSAL}, "poor"),
        ({"code": 1}, "poor"),
        ({"code": 0}, "silent"),
        ({"code": 0, "expect": EITHER}, "ok"),
        ({"code": 0, "expect": SAME, "result": {"a": 1}}, "ok"),
        ({"code": 0, "expect": SAME, "result": {"a": 2}}, "silent"),
        ({"code": 0, "expect": EITHER, "err": "RuntimeWarning: overflow\n"}, "poor"),
        ({"code": 0, "expect": EITHER, "shows": "pore [red]", "out": "pore"}, "silent"),
        ({"code": 1, "err": REFUSAL, "kept": False}, "silent"),
        ({"code": 1, "err": "Traceback (most recent call last)\n  x\n" + REFUSAL}, "traceback"),
        ({"code": 1, "err": "hrvol: error: unexpected KeyError (a fault in hrvol; ...)\n"}, "fault"),
        ({"code": None}, "hang"),
        ({"code": -11}, "crash"),
        ({"code": 1, "err": REFUSAL, "peak": 1001.0}, "memory"),
        ({"code": 0, "expect": EITHER, "out": "class \x1b[31mred"}, "unsafe"),
    ],
)
def test_endings_are_judged(ending, expected):
    assert verdict(**ending) == expected


def test_hidden_characters_are_named():
    assert unsafe("a\tb\r\n") == ""
    assert unsafe("\x1b\u202e") == r"'\u202e' '\x1b'"


def test_outputs_are_observed_without_paths_and_ledger(tmp_path):
    for name, values in {"zarr.json": {"source": "x", "a": 1}, "ledger/zarr.json": {"at": 1}}.items():
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    assert stored(tmp_path / "out") == {"zarr.json": {"a": 1}}
    printed = Ending(0, json.dumps({"path": "x", "shape": [1]}), "", 1.0, 700.0)
    assert observe(("info", "v.zarr", "--json"), tmp_path, printed) == {"shape": [1]}


def test_the_table_is_made_of_the_verdicts():
    rows = [
        {
            "class": "recipes",
            "case": f"{n}",
            "verdict": kind,
            "seconds": 0.1,
            "mb": 1,
            "drawn": n < 2,
            "note": "",
        }
        for n, kind in enumerate(VERDICTS)
    ]
    rows.append(rows[0] | {"class": "bombs", "case": "a bomb"})
    figures = {"before": {"about": "old.", "minutes": 1, "rows": rows}}
    text = page.short_table(figures)
    assert "11 cases, 3 of them drawn at random" in text
    assert "| recipes | 10 | 1 | 1 | 1 | 1 | 1 | 1 |" in text
    assert "| **all** | 11 |" in text
    assert "| a bomb | right result | 0.1 | 1 |" in page.page(figures)
    assert page.inserted(f"a\n{page.BEGIN}\nx\n{page.END}\nb", "y\n") == f"a\n{page.BEGIN}\ny\n{page.END}\nb"


@pytest.mark.skipif(not page.FIGURES.is_file(), reason="no figures are kept")
def test_page_and_table_are_those_of_the_kept_figures():
    figures = page.load()
    assert page.PAGE.read_text(encoding="utf-8") == page.page(figures)
    assert page.short_table(figures) in page.DOCUMENT.read_text(encoding="utf-8")
