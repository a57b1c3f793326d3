"""Say how an output was made: settings, versions, checksums, the command that repeats it, how to cite."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import yaml

from hrvol.backend import TORCH
from hrvol.progress import duration, format_size
from hrvol.report.facts import Facts
from hrvol.run.attribute_names import ARITHMETIC, BACKEND, CLASS_WEIGHTS, CLEANING, COMPANION, FRACTIONS
from hrvol.text import printable

_BIBTEX = """@misc{{docherty_upsampling,
  title  = {{Upsampling {{DINOv2}} features for unsupervised vision tasks
            and weakly supervised materials segmentation}},
  author = {{Docherty, Ronan and Vamvakeros, Antonis and Cooper, Samuel J.}},
}}

@software{{hrvol,
  title   = {{hrvol: segmentation of very large volumes with features of vision transformers}},
  author  = {{{{The hrvol developers}}}},
  version = {{{version}}},
}}
"""

_LONGEST = 400  # characters of a value

Rows = list[tuple[str, str]]


def moment(seconds: float) -> str:
    """Return a time in seconds since the epoch as text, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def recipe_text(facts: Facts) -> str:
    """Return the recipe as YAML; empty for cleaned labels."""
    if facts.recipe is None:
        return ""
    return str(yaml.safe_dump(facts.recipe.to_dict(), sort_keys=False, allow_unicode=True))


def citation(facts: Facts) -> str:
    """Return BibTeX entries of hrvol, in the version that made the output, and of the paper."""
    versions = _mapping(facts.attributes, "versions")
    version = "".join(c for c in _text(versions.get("hrvol")) if c.isalnum() or c in ".+-")
    return _BIBTEX.format(version=version)


def made_rows(facts: Facts) -> Rows:
    """Return what the output records of its making, as names and values."""
    made = facts.attributes
    source, model = _mapping(made, "input"), _mapping(made, "model")
    rows: Rows = [
        ("input", _text(source.get("source"))),
        ("input shape", " x ".join(_text(side) for side in _sequence(source.get("shape")))),
        ("input type", _text(source.get("dtype"))),
        ("input SHA-256 (of samples)", _text(source.get("sha256"))),
        ("cleaned by", "; ".join(facts.steps)),
        ("resolution level", _text(made.get("level"))),
        ("region (z, y, x)", _region(facts)),
        ("mask", _mask(made.get("mask"))),
        ("model", _text(model.get("source"))),
        ("model SHA-256", _text(model.get("sha256"))),
        ("network weights SHA-256", _text(made.get("weights_sha256"))),
        ("student beside it", _text(_mapping(made, COMPANION).get("source"))),
        ("grey values", " to ".join(f"{part:g}" for part in _numbers(made.get("window")))),
        ("device", _text(made.get("device"))),
        ("backend", _backend(made)),
        ("arithmetic", _text(made.get(ARITHMETIC))),
        ("class weights", _pairs(made.get(CLASS_WEIGHTS))),
        ("fractions that were given", _pairs(made.get(FRACTIONS))),
        ("versions", _pairs(made.get("versions"))),
        ("versions of the model", _pairs(model.get("versions"))),
    ]
    return [(name, value) for name, value in rows if value]


def time_rows(facts: Facts) -> Rows:
    """Return when and how long the blocks were computed, as far as the ledger has it."""
    totals, rows = facts.totals, []
    if totals is None or not totals.last:
        return []
    rows += [("first block", moment(totals.first)), ("last block", moment(totals.last))]
    span = totals.last - totals.first
    rows += [
        ("from the first to the last block", duration(span)),
        ("time of workers", duration(totals.seconds)),
    ]
    if totals.seconds > 0:
        rows.append(("voxels per second and worker", f"{totals.voxels / totals.seconds:,.0f}"))
    if totals.read:
        rows.append(("decoded chunks of the input", format_size(totals.read)))
    if totals.peak:
        rows.append(("peak memory of a worker", format_size(totals.peak)))
    for driver in facts.status["drivers"]:
        workers = "" if driver["workers"] is None else f", {driver['workers']} workers"
        text = f"{driver['state']}, engine {_text(driver['engine'])}{workers}"
        rows.append((f"run {_text(driver['lane'])}", text))
    return rows


def command(facts: Facts) -> str:
    """Return the command line that repeats the run, on one line."""
    made = facts.attributes
    if facts.recipe is None:
        words = ["hrvol", "clean", _text(_mapping(made, "input").get("source")), str(facts.location)]
        words += [word for step in facts.steps for word in ("--step", step)]
        background = _mapping(made, CLEANING).get("background") is True
        return shlex.join([*words, "--background"] if background else words)
    words = ["hrvol", "cluster" if facts.clustered else "segment"]
    words += [_text(_mapping(made, "input").get("source")), str(facts.location)]
    if facts.clustered:
        words += ["--recipe", "recipe.yaml"]
    else:
        words += ["-m", _text(_mapping(made, "model").get("source"))]
        words += ["--crf"] if facts.recipe.crf is not None else []
    if facts.region_voxels != _voxels(facts.labels.finest.shape):
        words += ["--roi", _region(facts).replace(" ", "")]
    if source := _text(_mapping(made, "mask").get("source")):
        words += ["--mask", source]
    if level := made.get("level"):
        words += ["--level", _text(level)]
    outputs = _mapping(made, "outputs")
    words += [f"--{name}" for name in ("probabilities", "uncertainty") if outputs.get(name) is True]
    if isinstance(made.get(FRACTIONS), Mapping):
        named = _mapping(made, FRACTIONS)
        words += ["--fractions", ",".join(f"{_text(name)}={_text(value)}" for name, value in named.items())]
    else:
        for name, factor in _mapping(made, CLASS_WEIGHTS).items():
            words += ["--class-weight", f"{_text(name)}={_text(factor)}"] if factor != 1 else []
    if not facts.clustered and (name := _text(outputs.get("labels"))) not in ("", "hrvol"):
        words += ["--name", name]
    if beside := _text(_mapping(made, COMPANION).get("source")):
        words += ["--with", beside]
    if backend := _backend(made):
        words += ["--backend", backend]
    if device := _text(made.get("device")):
        words += ["--device", device]
    return shlex.join(words)


def _backend(made: Mapping[str, Any]) -> str:
    """Return what computed the network; an output records nothing of torch."""
    network = made.get("weights_sha256") is not None
    return _text(_mapping(made, BACKEND).get("name")) or (TORCH if network else "")


def _region(facts: Facts) -> str:
    spans = facts.region[-facts.labels.finest.ndim :]
    return ", ".join(f"{span.start}:{span.stop}" for span in spans)


def _voxels(shape: tuple[int, int, int]) -> int:
    return shape[0] * shape[1] * shape[2]


def _mask(values: Any) -> str:
    if not isinstance(values, Mapping):
        return ""
    parts = [_text(values.get("source")), _text(values.get("found"))]
    if isinstance(skipped := values.get("skipped"), int | float):
        parts.append(f"{100 * skipped:.1f} % of the volume skipped")
    return ", ".join(part for part in parts if part)


def _pairs(values: Any) -> str:
    if not isinstance(values, Mapping):
        return ""
    return ", ".join(f"{_text(name)} {_text(value)}" for name, value in list(values.items())[:50])


def _mapping(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = values.get(key)
    return found if isinstance(found, Mapping) else {}


def _sequence(values: Any) -> list[Any]:
    return values[:3] if isinstance(values, list) else []


def _numbers(values: Any) -> list[float]:
    return [float(value) for value in _sequence(values) if isinstance(value, int | float)]


def _text(value: Any) -> str:
    """Return a value from a file as text to show; empty for ``None``."""
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else printable(str(value), _LONGEST)
