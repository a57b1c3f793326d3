"""The panel that distils a model into a student, and compares them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QLabel, QVBoxLayout, QWidget

from hrvol.napari.background import Background
from hrvol.napari.complete_request import completing, copy_command_line
from hrvol.napari.hub import Hub
from hrvol.napari.job_box import JobBox
from hrvol.napari.notify import inform, reported
from hrvol.napari.process import Process
from hrvol.napari.region_field import RegionField
from hrvol.napari.requests import DistilRequest, absolute
from hrvol.napari.texts import table
from hrvol.napari.widgets import (
    PathField,
    VolumeField,
    button,
    engine_box,
    form,
    guard_wheel,
    narrow,
    row,
    text_label,
)

_DIMENSIONS = {"automatic": "auto", "sees neighbouring planes": "on", "sees one plane": "off"}


class DistilPanel(QWidget):
    """Train a small network on the labels of a model.

    Parameters
    ----------
    hub
        What the panels share; the student becomes the model of the panel *Segment*.
    """

    title = "Distil"

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self.hub = hub
        self._background = Background(self)
        self.volume = VolumeField(hub.viewer)
        self.region = RegionField(hub.viewer, self.volume.layer)
        self.model = PathField("Choose the teacher", "Models (*.hrvol)", hint="the teacher, *.hrvol")
        self.output = PathField("Choose the student's file", "Models (*.hrvol)", save=True, hint="*.hrvol")
        self.minutes = QDoubleSpinBox()
        self.minutes.setRange(0, 10_000)
        self.minutes.setDecimals(1)
        self.minutes.setSuffix(" min")
        self.minutes.setSpecialValueText("default")
        self.minutes.setToolTip("Time for labelling tiles and training, about; default: 10, on a GPU 2")
        self.size, self.dimensions = narrow(QComboBox()), narrow(QComboBox())
        self.size.addItems(("auto", "small", "medium", "large"))
        self.size.setToolTip("About 6, 22 and 48 kFLOP a voxel; auto: the smallest of those that agree best")
        self.dimensions.addItems(_DIMENSIONS)
        self.engine = engine_box()
        self.accept, self.fresh = (
            QCheckBox("keep it even if it fails the check"),
            QCheckBox("replace an earlier file"),
        )
        self.run_button = button(
            "Distil", reported(self.run), "Label tiles with the model, and train the student"
        )
        self.copy_button = button("Copy command", reported(self.copy_command))
        self.job = JobBox(hub.jobs, "distil")
        self.result = QLabel()
        self.result.setTextFormat(Qt.TextFormat.RichText)
        self.result.setWordWrap(True)
        fields = form()
        for name, field in (
            ("Volume", self.volume),
            ("Region", self.region),
            ("Teacher", self.model),
            ("Student", self.output),
            ("Time", self.minutes),
            ("Size", self.size),
            ("Planes", self.dimensions),
            ("Engine", self.engine),
            ("", self.accept),
            ("", self.fresh),
        ):
            fields.addRow(name, field)
        layout = QVBoxLayout(self)
        layout.addWidget(
            text_label("A student is a small network that labels like its teacher, many times as fast.")
        )
        layout.addLayout(fields)
        layout.addLayout(row(self.run_button, self.copy_button))
        layout.addWidget(self.job)
        layout.addWidget(self.result)
        layout.addStretch(1)
        guard_wheel(self, self.engine, self.minutes, self.size, self.dimensions)
        self.model.changed.connect(self._suggest_output)
        hub.model_chosen.connect(self._take_model)
        self.job.changed.connect(lambda: self.run_button.setEnabled(not self.job.running))

    def collect(self) -> Callable[[], DistilRequest]:
        """Return a function that gives the request, to be called in a thread: it may save a layer.

        Raises
        ------
        UsageError
            Something is not chosen.
        """
        file, region = self.volume.file(), self.region.region()
        request = DistilRequest(
            volume="-",
            model=self.model.path(),
            output=self.output.path(),
            minutes=self.minutes.value(),
            size=self.size.currentText(),
            volumetric=_DIMENSIONS[self.dimensions.currentText()],
            accept=self.accept.isChecked(),
            fresh=self.fresh.isChecked(),
            engine=self.engine.currentText().strip() or "local",
        )
        request.check()

        return completing(request, file, region)

    def run(self) -> None:
        """Distil in a process of its own."""
        self._background.call(self.collect(), self.begin)

    def begin(self, request: DistilRequest) -> None:
        """Start a distillation."""

        def show(process: Process) -> None:
            self.result.setText(table(report_rows(json.loads(process.result()))))
            inform(f"{Path(request.output).name}: the student is done, and chosen in the panel Segment")
            self.hub.model_chosen.emit(request.output)

        self.result.setText("")
        self.job.start(request.arguments(), show, name=request.output)

    def copy_command(self) -> None:
        """Copy the exact command line."""
        self._background.call(self.collect(), copy_command_line)

    def _take_model(self, path: str) -> None:
        """Take a model that was opened as the teacher, unless it is the student."""
        if absolute(path) != self.output.path():
            self.model.set_path(path)

    def _suggest_output(self) -> None:
        if self.model.path() and self.output.property("suggested") in (None, self.output.path()):
            teacher = Path(self.model.path())
            path = str(teacher.with_name(f"{teacher.stem}-student.hrvol"))
            self.output.set_path(path)
            self.output.setProperty("suggested", absolute(path))


def report_rows(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return how a student agrees with its teacher, as names and values, by ``hrvol distil --json``."""
    agreement = report.get("agreement") or {}
    rows = [("Student", f"{report.get('size')}, of {report.get('tiles')} tiles")]
    rows.append(("IoU with the teacher's labels", _score(agreement.get("miou"))))
    rows.append(("  by class", ", ".join(map(_score, agreement.get("iou") or ()))))
    strokes = report.get("on_strokes")
    if strokes:
        rows.append(("IoU on held-out strokes", f"{_score(strokes[1])}, of the teacher {_score(strokes[0])}"))
    notes = (*(report.get("problems") or ()), *(report.get("notes") or ()))
    return [*rows, *(("Note", str(note)) for note in notes)]


def _score(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "-"
