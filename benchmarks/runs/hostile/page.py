"""Keep the verdicts, and write the result page and the table of the documentation from them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from benchmarks.markdown import table
from benchmarks.results import save_parts
from benchmarks.runs.hostile.judge import MORE_MEMORY, VERDICTS
from benchmarks.runs.hostile.runner import LIMIT

FIGURES = Path(__file__).parents[1] / "hostile.json"
PAGE = FIGURES.with_suffix(".md")
DOCUMENT = Path(__file__).parents[3] / "docs" / "explanation" / "reliability.md"
BEGIN, END = "<!-- hostile: begin -->", "<!-- hostile: end -->"

COLUMNS = ("before", "after")

SHORT = ("refused", "silent", "traceback", "fault", "hang", "crash")
"""Verdicts in the table of the documentation."""

GOOD = ("ok", "refused")

BOMBS = "bombs"

Figures = Mapping[str, Mapping[str, Any]]


def keep(column: str, tree: Path, records: Sequence[Mapping[str, Any]], seconds: float) -> None:
    """Add verdicts to the kept ones; cases that were run before get the new verdict."""
    figures = load()
    versions = {"before": "version 0.1.0", "after": "this version"}
    part = figures.setdefault(column, {"rows": [], "minutes": 0.0})
    part["about"] = f"{versions[column]}; {describe_machine(2)}"
    rows = {(row["class"], row["case"]): row for row in part["rows"]}
    part["minutes"] = round(seconds / 60, 1) if len(records) >= len(rows) else part["minutes"]
    for record in records:
        row = {"class": record["group"], "case": record["name"], "verdict": record["verdict"]}
        row |= {"seconds": record["seconds"], "mb": record["mb"], "drawn": record["generated"]}
        rows[record["group"], record["name"]] = row | (
            {} if record["verdict"] in GOOD else {"note": record["note"]}
        )
    part["rows"] = list(rows.values())
    save_parts(FIGURES, figures)


def load() -> dict[str, Any]:
    """Return the kept verdicts."""
    return dict(json.loads(FIGURES.read_text(encoding="utf-8"))) if FIGURES.is_file() else {}


def write() -> None:
    """Write the page and the table."""
    figures = load()
    PAGE.write_text(page(figures), encoding="utf-8")
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(inserted(text, short_table(figures)), encoding="utf-8")


def inserted(text: str, tables: str) -> str:
    """Return a document with new text between the markers."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{tables}{END}{after}"


def short_table(figures: Figures) -> str:
    """Return the table of the documentation: verdicts by class, before and after."""
    names = [name for name in COLUMNS if name in figures]
    head = [
        "class of input",
        "cases",
        *(f"{name}: {VERDICTS[verdict]}" for name in names for verdict in SHORT),
    ]
    counts = {name: _counts(figures[name]["rows"]) for name in names}
    groups = list(dict.fromkeys(group for name in names for group in counts[name]))
    rows = []
    for group in [*groups, None]:
        of = {
            name: counts[name].get(group, Counter()) if group else sum(counts[name].values(), Counter())
            for name in names
        }
        cells = [of[name][verdict] for name in names for verdict in SHORT]
        rows.append([group or "**all**", max(part.total() for part in of.values()), *cells])
    drawn = max(sum(row["drawn"] for row in figures[name]["rows"]) for name in names)
    most = max(len(figures[name]["rows"]) for name in names)
    about = f"{most} cases, {drawn} of them drawn at random (seeded)."
    made = [f"*{name}*: {figures[name]['about']}" for name in names]
    return f"{about}\n\n{table(head, rows, spaced=True)}\n" + "\n\n".join(made) + "\n"


def page(figures: Figures) -> str:
    """Return the result page: all verdicts, the bombs, and the cases that ended badly."""
    parts = ["# Hostile input\n", _HEAD.format(limit=LIMIT, memory=MORE_MEMORY)]
    for name in COLUMNS:
        if name not in figures:
            continue
        part = figures[name]
        counts = _counts(part["rows"])
        total = sum(counts.values(), Counter())
        rows = [
            [group, of.total(), *(of[verdict] for verdict in VERDICTS)]
            for group, of in (*counts.items(), ("**all**", total))
        ]
        parts.append(f"## {name.capitalize()}\n\n{part['about']} {part['minutes']} minutes.\n")
        parts.append(table(["class of input", "cases", *VERDICTS.values()], rows))
    parts.append(_bombs(figures))
    if "after" in figures:
        bad = [row for row in figures["after"]["rows"] if row["verdict"] not in GOOD]
        parts.append("## Cases that end badly\n")
        lines = [
            f"- {row['class']}, `{_code(row['case'])}`: {VERDICTS[row['verdict']]}; {_code(row['note'])}"
            for row in bad
        ]
        parts.append("\n".join(lines) + "\n" if lines else "None.\n")
    return "\n".join(parts)


_HEAD = """\
Made by `python -m benchmarks.runs.hostile`. Each case is a damaged or hostile file, or an odd request, and
one command. *Right result*: exit code 0, and the result of the undamaged files where the damage does not
matter. *Refused clearly*: exit code 1 or 2 and one line that names the file. *Poor message*: several lines,
no file, or messages of other libraries. *Silently wrong*: exit code 0 where a refusal or another result was
due, or a file that is not the output was changed. *Hangs*: longer than {limit:.0f} s. *Memory*: more than
{memory:.0f} MB above an ordinary run.
"""


def _bombs(figures: Figures) -> str:
    """Return the seconds and memory of each bomb."""
    names = [name for name in COLUMNS if name in figures]
    of = {
        name: {row["case"]: row for row in figures[name]["rows"] if row["class"] == BOMBS} for name in names
    }
    head = ["bomb", *(f"{name}: {what}" for name in names for what in ("end", "s", "MB"))]
    rows = [
        [_code(case), *(cell for name in names for cell in _cells(of[name].get(case)))]
        for case in dict.fromkeys(case for name in names for case in of[name])
    ]
    return f"## Bombs\n\nSeconds, and memory above an ordinary run of the command.\n\n{table(head, rows)}"


def _cells(row: Mapping[str, Any] | None) -> tuple[object, ...]:
    return ("", "", "") if row is None else (VERDICTS[row["verdict"]], row["seconds"], row["mb"])


def _counts(rows: Sequence[Mapping[str, Any]]) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        counts.setdefault(row["class"], Counter())[row["verdict"]] += 1
    return counts


def _code(text: str) -> str:
    return ascii(text)[1:-1].replace("|", "\\|").replace("`", "'")
