"""Describe model files in a process of its own: reading one imports packages that take seconds."""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Callable, Mapping
from os.path import basename
from typing import Any

from hrvol.errors import HrvolError, ModelError
from hrvol.napari.notify import inform, report
from hrvol.napari.process import Process
from hrvol.text import listed, printable

_SECONDS = 120.0

_LISTENERS: list[weakref.WeakMethod[Callable[[str], None]]] = []


def listen(method: Callable[[str], None]) -> None:
    """Have a method called with each model that napari opens, as long as its object exists."""
    _LISTENERS[:] = [known for known in _LISTENERS if known() is not None]
    _LISTENERS.append(weakref.WeakMethod(method))


def announce(path: str) -> threading.Thread:
    """Show what a model is, as a notification and in docks that listen, once it has been read."""
    for method in [known() for known in _LISTENERS]:
        if method is not None:
            method(path)

    def read() -> None:
        try:
            inform(summary(describe(path)))
        except Exception as error:
            report(error)

    thread = threading.Thread(target=read, name="hrvol-model", daemon=True)
    thread.start()
    return thread


def describe(path: str) -> dict[str, Any]:
    """Return the description of a model by ``hrvol info``.

    Raises
    ------
    ModelError
        It cannot be read, or is no model.
    """
    process = Process.start(("info", path, "--json"))
    code = process.wait(_SECONDS)
    if code is None:
        process.kill()
        raise ModelError(f"{path}: not read within {_SECONDS:.0f} s")
    try:
        if code:
            raise HrvolError(process.error())
        values: dict[str, Any] = json.loads(process.result())
    finally:
        process.discard()
    if values.get("kind") != "model":
        raise ModelError(f"{path}: found {values.get('kind')}, expected a model (*.hrvol)")
    return values


def summary(values: Mapping[str, Any]) -> str:
    """Return what a model is in one line."""
    names = listed((values.get("classes") or {}).values(), 8)
    path = printable(basename(str(values.get("path"))), 100)
    if values.get("classifier") == "student":
        cost = f"{values.get('flop_per_voxel', 0) / 1000:.0f} kFLOP a voxel"
        kind = f"a {values.get('dimensions')} student of {cost}"
    elif values.get("classifier") == "clusters":
        kind = f"classes found without strokes, {values.get('features')} features"
    else:
        weights = f" of {values['weights']}" if values.get("weights") else ""
        kind = f"{values.get('classifier')} on {values.get('features')} features{weights}"
    return f"{path}: {kind}; classes: {names}"
