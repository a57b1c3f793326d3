"""Judge how a command ended."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.runs.hostile.case import REFUSE, SAME, Case
from benchmarks.runs.hostile.runner import Ending

VERDICTS = {
    "ok": "right result",
    "refused": "refused clearly",
    "poor": "poor message",
    "silent": "silently wrong",
    "unsafe": "terminal escapes",
    "traceback": "tracebacks",
    "fault": '"a fault in hrvol"',
    "hang": "hangs",
    "crash": "crashes",
    "memory": "memory",
}
"""Verdicts and the titles of their columns."""

MORE_MEMORY = 300.0
"""MB above an ordinary run of the same command."""

_LONGEST = 1200  # characters of a message that somebody reads

_ORDINARY = re.compile(
    r"device: |.*: \d+ % \(|block .* failed: |\.\.\. and \d+ more|failed: "
    r"|computing a few blocks|hrvol: warning: |.*found a damaged record"
    r"|.*restored missing or changed metadata: |$"
)
"""Lines on standard error that are hrvol's own beside the last one."""


@dataclass(frozen=True)
class Sound:
    """What a command does with the undamaged files.

    Attributes
    ----------
    result
        See :func:`observe`.
    peak
        Memory in MB.
    lines
        Lines on standard error, without their numbers.
    """

    result: Any
    peak: float
    lines: frozenset[str]


def judge(case: Case, ending: Ending, result: Any, sound: Sound, kept: bool) -> tuple[str, str]:
    """Return the verdict, and the reason for a bad one."""
    verdict, note = _judge(case, ending, result, sound, kept)
    if verdict in ("ok", "refused", "poor") and ending.peak > sound.peak + MORE_MEMORY:
        return "memory", f"{ending.peak - sound.peak:.0f} MB more than an ordinary run"
    return verdict, note


def _judge(case: Case, ending: Ending, result: Any, sound: Sound, kept: bool) -> tuple[str, str]:
    text = ending.out + ending.err
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    if ending.code is None:
        return "hang", f"still running after {ending.seconds:.0f} s"
    if ending.code < 0:
        return "crash", f"signal {-ending.code}"
    if "Traceback (most recent call last)" in text:
        return "traceback", last
    if "a fault in hrvol" in text:
        return "fault", last
    hidden = unsafe(text)
    if hidden:
        return "unsafe", f"printed {hidden}"
    if not kept:
        return "silent", f"changed or deleted {', '.join(case.keep)}"
    if ending.code == 0:
        if case.shows not in text:
            return "silent", f"does not show {case.shows}"
        return _result(case, ending, result, sound)
    if case.tty:
        return ("refused", "") if "hrvol: error: " in text else ("poor", last)
    return _message(case, ending, sound)


def _result(case: Case, ending: Ending, result: Any, sound: Sound) -> tuple[str, str]:
    if case.expect == REFUSE:
        return "silent", "exit 0, expected a refusal"
    if case.expect == SAME and result != sound.result:
        return "silent", f"exit 0, but the result differs: {_difference(result, sound.result)}"
    noise = [line for line in ending.err.splitlines() if not _ordinary(line, sound)]
    return ("poor", f"exit 0 with noise: {noise[0]}") if noise else ("ok", "")


def _message(case: Case, ending: Ending, sound: Sound) -> tuple[str, str]:
    lines = [line for line in ending.err.splitlines() if not _ordinary(line, sound)]
    if len(lines) != 1:
        return "poor", f"{len(lines)} lines: {' / '.join(lines[:3])}"
    (line,) = lines
    if not line.startswith("hrvol: ") or ending.code not in (1, 2, 75):
        return "poor", f"exit code {ending.code}: {line}"
    if len(line) > _LONGEST:
        return "poor", f"{len(line)} characters: {line[:100]}"
    if case.names and not any(name in line for name in case.names):
        return "poor", f"names none of {', '.join(case.names)}: {line}"
    return "refused", ""


def _ordinary(line: str, sound: Sound) -> bool:
    return bool(_ORDINARY.match(line)) or bare(line) in sound.lines


def bare(line: str) -> str:
    """Return a line without its numbers."""
    return re.sub(r"\d[\d.]*( [kMGT])?", "#", line)


def unsafe(text: str) -> str:
    """Return the characters that a terminal obeys or hides, escaped."""
    found = {
        letter
        for letter in set(text)
        if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") and letter not in "\n\r\t"
    }
    return " ".join(sorted(ascii(letter) for letter in found))


def observe(words: Sequence[str], folder: Path, ending: Ending) -> Any:
    """Return what a command made: stored labels and their metadata, a model, or the values it printed."""
    if ending.code != 0:
        return None
    if words[0] in ("segment", "cluster"):
        found = stored(folder / words[2])
        # The settings of a new output name the model, which may be another one.
        new = words[2].startswith("new")
        return {name: value for name, value in found.items() if name.startswith("labels/")} if new else found
    if "-o" in words and words[0] == "train":
        return _model(folder / words[words.index("-o") + 1])
    if "--json" in words:
        try:
            return without(json.loads(ending.out), ("path", "eta_s", "voxels_per_s", "seen_s", "drivers"))
        except ValueError:
            return {"no JSON": ending.out[:200]}
    return ending.out


def stored(out: Path) -> dict[str, Any]:
    """Return digests of the arrays of an output, and its metadata but for paths and the ledger."""
    if not out.is_dir():
        return {}
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out)
        if not path.is_file() or name.parts[0] in ("ledger", "model"):
            continue
        if name.name == "zarr.json":
            try:
                found[str(name)] = without(json.loads(path.read_bytes()), ("source",))
            except ValueError:
                found[str(name)] = "no JSON"
        elif "c" in name.parts:
            found[str(name)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _model(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return {}
    found: dict[str, Any] = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
    return found | {"info.json": without(json.loads(members["info.json"]), ("trained_on",))}


def without(values: Any, keys: Sequence[str]) -> Any:
    """Return JSON values without some keys."""
    if isinstance(values, dict):
        return {key: without(value, keys) for key, value in values.items() if key not in keys}
    return [without(value, keys) for value in values] if isinstance(values, list) else values


def _difference(ours: Any, theirs: Any) -> str:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        names = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        name = names[0] if names else ""
        return f"{', '.join(names[:3])} ({str(theirs.get(name))[:60]} became {str(ours.get(name))[:60]})"
    return f"{str(theirs)[:60]} became {str(ours)[:60]}"
