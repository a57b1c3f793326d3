"""Plans and states of runs in words, for the panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from hrvol.progress import count, duration, format_size
from hrvol.text import printable

FAILURES = 3
"""Failed blocks that are listed."""


def plan_rows(plan: Mapping[str, Any], *, distil: bool = False) -> list[tuple[str, str]]:
    """Return the lines of a plan as names and values.

    Parameters
    ----------
    plan
        Values of ``hrvol plan --json``.
    distil
        Whether the run is one with a student that is distilled first: then its estimates come first.
    """
    rows = []
    students = plan.get("students") or ()
    for student in students if distil else ():
        rows.append((f"Time, {student['size']} student", f"about {duration(student['seconds'])}"))
        rows.append(("  to distil it", f"about {duration(student['distil_s'])}"))
    done = f" ({plan['done']:,} are done)" if plan["done"] else ""
    rows += [
        ("Time, the model" if distil else "Time", duration(plan["seconds"])),
        ("Blocks", f"{plan['blocks']:,}{done}, {count(plan['voxels'])} voxels"),
        ("Engine", f"{plan['engine']}, {plan['workers']} worker{'s' * (plan['workers'] > 1)}"),
        ("Memory", _of(plan["memory_needed"], plan["memory_free"])),
        ("Disk", _of(plan["output_bytes"], plan["disk_free"])),
    ]
    if plan["gpu_needed"] is not None:
        rows.append(("GPU memory", _of(plan["gpu_needed"], plan["gpu_free"])))
    for entry in plan.get("by_workers") or ():
        if entry["workers"] != plan["workers"]:
            name = f"  with {entry['workers']} worker{'s' * (entry['workers'] > 1)}"
            rows.append((name, duration(entry["seconds"])))
    if not distil:
        for student in students:
            text = f"about {duration(student['seconds'])}, and {duration(student['distil_s'])} to distil it"
            rows.append((f"  {student['size']} student", text))
    return rows


def _of(needed: int, free: int | None) -> str:
    return f"{format_size(needed)} of {'unknown' if free is None else format_size(free)} free"


def table(rows: list[tuple[str, str]]) -> str:
    """Return rows as a table in Qt's HTML; texts are shown as they are."""
    cells = "".join(
        f"<tr><td style='padding-right: 10px'>{_cell(name)}</td><td>{_cell(value)}</td></tr>"
        for name, value in rows
    )
    return f"<table>{cells}</table>"


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows, the head first, as a table in Qt's HTML; all columns but the first are numbers."""
    lines = []
    for i, (name, *numbers) in enumerate(rows):
        tag = "th" if i == 0 else "td"
        cells = "".join(
            f"<{tag} align='right' style='padding-left: 12px'>{_cell(n)}</{tag}>" for n in numbers
        )
        lines.append(f"<tr><{tag} align='left'>{_cell(name)}</{tag}>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _cell(text: str) -> str:
    indent = len(text) - len(text.lstrip(" "))
    return "&nbsp;" * 2 * (indent > 0) + escape(printable(text.strip(), 300))


def state_text(status: Mapping[str, Any]) -> str:
    """Return how far a run is, in one line, by the values of :func:`hrvol.run_status`."""
    total, done, failed = status["total"], status["done"], status["failed"]
    parts = [f"{status['state']}: {done:,} of {total:,} blocks"]
    if failed:
        parts.append(f"{failed:,} failed")
    if status["voxels_per_s"]:
        parts.append(f"{count(status['voxels_per_s'])} voxels/s")
    if status["eta_s"] is not None and status["left"]:
        parts.append(f"{duration(status['eta_s'])} left")
    return ", ".join(parts)


def failure_text(status: Mapping[str, Any]) -> str:
    """Return the first failed blocks and their reasons; empty without any."""
    lines = [
        printable(f"block {tuple(failure['block'])}: {failure['reason']}", 300)
        for failure in status["failures"][:FAILURES]
    ]
    more = len(status["failures"]) - FAILURES
    return "\n".join([*lines, *([f"and {more:,} more"] if more > 0 else [])])
