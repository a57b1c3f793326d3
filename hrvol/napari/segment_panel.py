"""The panel that segments a volume: request, plan, run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QGroupBox,
    QLabel,
    QLineEdit,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from hrvol.napari.background import Background
from hrvol.napari.complete_request import completing, copy_text
from hrvol.napari.hub import Hub
from hrvol.napari.job_box import JobBox
from hrvol.napari.models import describe, summary
from hrvol.napari.notify import inform, reported
from hrvol.napari.process import Process
from hrvol.napari.provenance import request_of
from hrvol.napari.region_field import RegionField
from hrvol.napari.requests import PLAN_SECONDS, SegmentRequest, absolute, command_line
from hrvol.napari.run_box import RunBox
from hrvol.napari.slurm import job_script
from hrvol.napari.texts import plan_rows, table
from hrvol.napari.weights_text import parse_weights, weights_text
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


class SegmentPanel(QWidget):
    """Segment a volume with a model, in processes of its own.

    Parameters
    ----------
    hub
        What the panels share.
    """

    title = "Segment"

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self.hub = hub
        self._background = Background(self)
        self.plan_seconds = PLAN_SECONDS
        self._planned: SegmentRequest | None = None
        self._plan: dict[str, Any] | None = None
        self.volume = VolumeField(hub.viewer)
        self.region = RegionField(hub.viewer, self.volume.layer)
        self.model = PathField("Choose a model", "Models (*.hrvol)", hint="a model or a student, *.hrvol")
        self.output = PathField("Choose the output", "OME-Zarr (*.ome.zarr)", save=True, hint="*.ome.zarr")
        self.model_text = text_label()
        self.engine = engine_box()
        self.workers = QSpinBox()
        self.workers.setRange(0, 100_000)
        self.workers.setSpecialValueText("auto")
        self.workers.setToolTip("Worker processes; auto: one per CPU, or per GPU")
        self.distil = QCheckBox("with a student, distilled first")
        self.distil.setToolTip(
            "Train a small network on the model's labels, and segment with it: many times as fast"
        )
        self.uncertainty, self.probabilities = QCheckBox("uncertainty"), QCheckBox("probabilities")
        self.weights = narrow(QLineEdit())
        self.weights.setPlaceholderText("none, or pore=0.5, binder=2")
        self.weights.setToolTip(
            "Factors of the classes' probabilities, NAME=FACTOR: below 1 a class becomes rarer"
        )
        self.background_mask, self.fresh = QCheckBox("skip background"), QCheckBox("replace earlier output")
        self.background_mask.setToolTip("Skip the rim of a round reconstruction, and air around the sample")
        self.plan_box = JobBox(hub.jobs, "plan")
        self.plan_text = QLabel()
        self.plan_text.setTextFormat(Qt.TextFormat.RichText)
        self.plan_text.setWordWrap(True)
        self.plan_text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.plan_button = button("Plan", reported(self.plan), "Measure a few blocks: hours, memory, disk")
        self.start_button = button("Start", reported(self.start), "Start the run that was planned")
        self.copy_button = button(
            "Copy command", reported(self.copy_command), "Copy the command line that does the same"
        )
        self.slurm_button = button(
            "Copy SLURM script", reported(self.copy_slurm), "Copy a job script that does the same"
        )
        self.run = RunBox(hub.jobs, self.resume, hub.open_labels)
        self._lay_out()
        self._connect()
        self._suggest_output()
        self._changed()

    def _lay_out(self) -> None:
        fields = form()
        fields.addRow("Volume", self.volume)
        fields.addRow("Region", self.region)
        fields.addRow("Model", self.model)
        fields.addRow("", self.model_text)
        fields.addRow("", self.distil)
        fields.addRow("Weights", self.weights)
        fields.addRow("Output", self.output)
        fields.addRow("Engine", row(self.engine, QLabel("workers"), self.workers, stretch=0))
        fields.addRow("Also", row(self.uncertainty, self.probabilities))
        fields.addRow("", self.background_mask)
        fields.addRow("", self.fresh)
        plan = QGroupBox("Plan")
        inner = QVBoxLayout(plan)
        inner.addWidget(self.plan_text)
        inner.addWidget(self.plan_box)
        inner.addLayout(row(self.plan_button, self.start_button))
        inner.addLayout(row(self.copy_button, self.slurm_button))
        layout = QVBoxLayout(self)
        layout.addLayout(fields)
        layout.addWidget(plan)
        layout.addWidget(self.run)
        layout.addStretch(1)
        self.model_text.hide()
        guard_wheel(self, self.engine, self.workers)

    def _connect(self) -> None:
        self.volume.changed.connect(self._suggest_output)
        for signal in (self.volume.changed, self.region.changed, self.model.changed, self.output.changed):
            signal.connect(self._changed)
        self.engine.currentTextChanged.connect(self._changed)
        self.workers.valueChanged.connect(self._changed)
        self.weights.textChanged.connect(self._changed)
        for box in (self.distil, self.uncertainty, self.probabilities, self.background_mask, self.fresh):
            box.toggled.connect(self._changed)
        self.model.changed.connect(self._describe_model)
        self.plan_box.changed.connect(self._enable)
        self.hub.model_chosen.connect(self.model.set_path)
        self.hub.weights_chosen.connect(self.weights.setText)
        self.run.watched.connect(self._restore)

    def collect(self) -> Callable[[], SegmentRequest]:
        """Return a function that gives the request, to be called in a thread: it may save a layer.

        Raises
        ------
        UsageError
            Something is not chosen.
        """
        file, region = self.volume.file(), self.region.region()
        request = SegmentRequest(
            volume="-",
            model=self.model.path(),
            output=self.output.path(),
            engine=self.engine.currentText().strip() or "local",
            workers=self.workers.value(),
            distil=self.distil.isChecked(),
            probabilities=self.probabilities.isChecked(),
            uncertainty=self.uncertainty.isChecked(),
            skip_background=self.background_mask.isChecked(),
            class_weights=parse_weights(self.weights.text()),
            fresh=self.fresh.isChecked(),
        )
        request.check()

        return completing(request, file, region)

    def plan(self) -> None:
        """Estimate the run in a process of its own, and show what it costs."""
        request = self.collect()
        self._changed()
        self._background.call(request, self._start_plan)

    def _start_plan(self, request: SegmentRequest) -> None:
        def show(process: Process) -> None:
            self._show_plan(request, json.loads(process.result()), "")

        def failed(process: Process) -> None:
            try:  # what does not fit is shown all the same
                self._show_plan(request, json.loads(process.result()), process.error())
            except ValueError:
                self._planned = None

        self.plan_box.start(request.plan_arguments(self.plan_seconds), show, failed=failed)

    def _show_plan(self, request: SegmentRequest, plan: dict[str, Any], problem: str) -> None:
        rows = plan_rows(plan, distil=request.distil)
        rows += [("Note", note) for note in plan.get("notes") or ()]
        self.plan_text.setText(table([*rows, *([("Does not fit", problem)] if problem else [])]))
        self._plan = plan
        self._planned = None if problem else request
        self._enable()

    def start(self) -> None:
        """Start the run that was planned."""

        def begin(request: SegmentRequest) -> None:
            if request != self._planned:
                self._changed()
                inform("the request has changed since it was planned: plan it again")
                return
            self.begin(request)

        self._background.call(self.collect(), begin)

    def resume(self) -> None:
        """Start the present request without a plan: what is computed already is kept."""
        self._background.call(self.collect(), lambda request: self.begin(replace(request, fresh=False)))

    def begin(self, request: SegmentRequest) -> None:
        """Start a run."""
        self.run.start(request.arguments(), request.output)
        self._planned = None
        self.fresh.blockSignals(True)  # the plan stays
        self.fresh.setChecked(False)  # the next start resumes the output
        self.fresh.blockSignals(False)
        self._enable()

    def copy_command(self) -> None:
        """Copy the exact command line."""
        self._copy(lambda request: command_line(request.arguments()), "the command line was copied")

    def copy_slurm(self) -> None:
        """Copy a job script for SLURM."""
        plan = self._plan

        def script(request: SegmentRequest) -> str:
            memory = None if plan is None else int(plan["worker_memory"])
            return job_script(request, worker_memory=memory)

        self._copy(script, "the job script was copied: save it, adapt its head, and sbatch it")

    def _copy(self, text: Callable[[SegmentRequest], str], news: str) -> None:
        def put(request: SegmentRequest) -> None:
            copy_text(text(request), news)

        self._background.call(self.collect(), put)

    def _suggest_output(self) -> None:
        """Name the output by the volume, unless the user has."""
        if self.output.property("suggested") in (None, self.output.path()):
            path = str(self.volume.folder() / f"{self.volume.name()}-labels.ome.zarr")
            self.output.set_path(path)
            self.output.setProperty("suggested", absolute(path))

    def _describe_model(self) -> None:
        """Show what the model is, once it has been read."""
        path = self.model.path()
        self.model_text.hide()
        if not path.endswith(".hrvol") or not Path(path).is_file():
            return

        def show(text: str) -> None:
            if path == self.model.path():
                self.model_text.setText(text.partition(": ")[2])
                self.model_text.show()

        self._background.call(lambda: summary(describe(path)), show)

    def _restore(self, output: str) -> None:
        """Fill in the request that the output of a watched run records, so that it can be resumed."""

        def fill(request: SegmentRequest) -> None:
            self.volume.set_path(request.volume)
            self.model.set_path(request.model)
            self.output.set_path(request.output)
            self.region.set_box(request.region)
            self.uncertainty.setChecked(request.uncertainty)
            self.probabilities.setChecked(request.probabilities)
            self.background_mask.setChecked(request.skip_background)
            self.weights.setText(weights_text(request.class_weights))

        self._background.call(lambda: request_of(output), fill, lambda error: None)

    def _changed(self, *_: Any) -> None:
        """Forget a plan that is of another request."""
        self._planned, self._plan = None, None
        self.plan_text.setText("")
        self._enable()

    def _enable(self) -> None:
        self.plan_button.setEnabled(not self.plan_box.running)
        self.start_button.setEnabled(self._planned is not None and not self.plan_box.running)
        self.plan_text.setVisible(bool(self.plan_text.text()))
