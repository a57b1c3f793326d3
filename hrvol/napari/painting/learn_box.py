"""What the strokes give: previews, places to draw next, quality, a model."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QLabel, QMessageBox, QVBoxLayout, QWidget

from hrvol.errors import ModelError, UsageError
from hrvol.files import MODEL, atomic_write, check_file
from hrvol.napari.background import Background
from hrvol.napari.hub import Hub
from hrvol.napari.job_box import JobBox
from hrvol.napari.notify import inform, report, reported
from hrvol.napari.painting.desk import Desk
from hrvol.napari.painting.taught import SavedModel, give_student
from hrvol.napari.process import Process
from hrvol.napari.requests import absolute
from hrvol.napari.texts import table
from hrvol.napari.widgets import PathField, button, form, guard_wheel, narrow, row, text_label

PRESETS = ("fast", "classical", "balanced", "best")

_SCOPES = {"in the view": "view", "in visited planes": "visited", "in the volume": "volume"}

_RECIPE_SUFFIX = "-recipe.yaml"

SUGGEST_MINUTES = 5.0
"""Approximate time of a search for a recipe, by default."""


class LearnBox(QWidget):
    """Buttons that ask the session.

    Parameters
    ----------
    hub
        What the panels share.
    desk
        What is open.
    look
        Tells the session what is visible, and raises a :class:`UsageError` if it cannot.
    """

    place_found = Signal(object)
    """A place to draw next."""
    saved = Signal()
    """A model was saved."""
    layers_changed = Signal()
    """Other layers are wanted."""

    def __init__(self, hub: Hub, desk: Desk, look: Callable[[], Any]) -> None:
        super().__init__()
        self._hub, self._desk, self._look = hub, desk, look
        self._background = Background(self)
        self._tickets: list[Any] = []
        self._saved: SavedModel | None = None
        self._shown = ""  # what the present preview is
        self._wanted: Any = None  # what an update is to show, until its exact preview is there
        self.suggest_minutes = SUGGEST_MINUTES
        self.recipe = narrow(QComboBox())
        self.recipe.addItems(PRESETS)
        self.recipe.setEditable(True)
        self.recipe.setToolTip("A preset, or the path of a recipe file")
        self.suggest_button = button(
            "Suggest", reported(self.suggest), "Find the recipe that suits these strokes best (hrvol tune)"
        )
        self.update_button = button("Update", reported(self.update_once), "Show what the strokes give here")
        self.live = QCheckBox("live")
        self.live.setToolTip(
            "Follow the strokes and the view; of a large view only Update makes the exact preview"
        )
        self.cancel_button = button("Cancel", self.cancel, "Cancel what is computed")
        self.uncertainty, self.probabilities = QCheckBox("uncertainty"), QCheckBox("probabilities")
        self.state = text_label()
        self.scope = narrow(QComboBox())
        self.scope.addItems(_SCOPES)
        self.next_button = button(
            "Next place", reported(self.next_place), "Go to where a stroke would teach most"
        )
        self.quality_button = button(
            "Quality", reported(self.measure), "Cross-validated IoU of each class, whole strokes held out"
        )
        self.quality = QLabel()
        self.quality.setTextFormat(Qt.TextFormat.RichText)
        self.quality.setWordWrap(True)
        self.quality.hide()
        self.model = PathField("Choose the model's file", "Models (*.hrvol)", save=True, hint="*.hrvol")
        self.save_button = button("Save model", reported(self.save), "Train on the strokes, and save it")
        self.tuning = JobBox(hub.jobs, "tune")
        self._lay_out()
        guard_wheel(self, self.recipe, self.scope)
        self.live.toggled.connect(reported(self._live_toggled))
        self.recipe.activated.connect(self._recipe_chosen)
        self.recipe.lineEdit().editingFinished.connect(self._recipe_chosen)
        for box in (self.uncertainty, self.probabilities):
            box.toggled.connect(lambda *_: self.layers_changed.emit())
        self.tuning.changed.connect(lambda: self.suggest_button.setEnabled(not self.tuning.running))
        desk.progressed.connect(self._progressed)
        desk.previewed.connect(self._previewed)
        desk.emptied.connect(self._emptied)
        desk.began.connect(self._began)
        desk.failed.connect(lambda: self.live.setChecked(False))
        desk.closed.connect(self._closed)
        hub.model_chosen.connect(self._take_student)

    def _lay_out(self) -> None:
        fields = form()
        recipe = QWidget()
        recipe.setLayout(row(self.recipe, self.suggest_button, stretch=0))
        fields.addRow("Recipe", recipe)
        target = QWidget()
        target.setLayout(row(self.model, self.save_button, stretch=0))
        saving = form()
        saving.addRow("Model", target)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(5)
        layout.addLayout(fields)
        layout.addWidget(self.tuning)
        layout.addLayout(row(self.update_button, self.live, self.cancel_button))
        layout.addLayout(row(self.uncertainty, self.probabilities))
        layout.addWidget(self.state)
        layout.addLayout(row(self.next_button, self.scope, self.quality_button, stretch=1))
        layout.addWidget(self.quality)
        layout.addLayout(saving)

    def recipe_text(self) -> str:
        """Return the recipe: a preset's name, or the path of a file."""
        text = self.recipe.currentText().strip()
        return text if text in PRESETS else absolute(text) or PRESETS[0]

    def update_once(self) -> None:
        """Make previews of what is visible, the last of them exact."""

        def request(session: Any) -> Any:
            self._wanted = self._look()
            return session.update()

        def made(_: Any) -> None:
            if self._wanted is not None and self._visible() not in (None, self._wanted):
                self.update_once()

        self._ask(request, made)

    def _visible(self) -> Any:
        with suppress(UsageError):
            return self._look()
        return None  # no plane of z

    def forget_shown(self) -> None:
        """Take note that the present preview is not of what is visible now."""
        self._shown = ""
        self._say("working" if self._tickets else "")

    def next_place(self) -> None:
        """Look for the next place."""
        scope = _SCOPES[self.scope.currentText()]

        def found(places: Any) -> None:
            if places:
                self.place_found.emit(places[0])
            else:
                inform("no place to draw next was found")

        self._ask(lambda session: session.request_places(1, scope), found)

    def measure(self) -> None:
        """Cross-validate."""

        def show(quality: Any) -> None:
            rows = [
                (info.name, "too few strokes" if math.isnan(iou) else f"{iou:.3f}")
                for info, iou in zip(quality.classes, quality.iou, strict=True)
            ]
            mean = "unknown" if math.isnan(quality.mean) else f"{quality.mean:.3f}"
            self.quality.setText(table([("IoU", quality.description), *rows, ("mean", mean)]))
            self.quality.show()

        self._ask(lambda session: session.request_quality(), show)

    def save(self) -> None:
        """Train a model on the strokes, save it, and give it to the other panels."""
        path = self.model.path()
        if not path.endswith(".hrvol"):
            raise UsageError(f"model: found {path or 'no path'}, expected a name that ends in .hrvol")

        replaced = os.path.lexists(path)
        check_file(path, MODEL, replaced)  # only an earlier model may be replaced, as by hrvol train --fresh
        if replaced and not self.confirm(f"{path} exists. Replace the model?"):
            return
        board = self._desk.need()
        version = board.store.version

        def write(data: bytes) -> SavedModel:
            try:
                with atomic_write(Path(path), durable=True) as partial:
                    partial.write_bytes(data)
            except OSError as error:
                raise ModelError(f"{path}: cannot be written: {error.strerror or error}") from None
            return SavedModel.of(board, version, data)

        def saved(model: SavedModel) -> None:
            self._saved = model
            inform(f"the model was saved as {path}")
            self.saved.emit()
            self._hub.model_chosen.emit(path)

        self._ask(lambda session: session.request_model_bytes(), saved, write)

    def confirm(self, question: str) -> bool:
        """Ask a question that is answered by yes or no."""
        answers = QMessageBox.StandardButton
        return bool(QMessageBox.question(self, "hrvol", question) == answers.Yes)

    def _take_student(self, path: str) -> None:
        """Show a student's labels while strokes are those of its teacher."""
        session, saved = self._desk.session, self._saved
        board = self._desk.board
        if session is None or saved is None or saved.board is not board or board.remote:
            return

        def told(given: bool) -> None:
            if given:
                inform(f"previews have a further stage, the student {Path(path).name}")

        self._background.call(lambda: give_student(session, saved, path), told)

    def suggest(self) -> None:
        """Search a recipe, in a process of its own."""
        board = self._desk.need()
        board.check_local("hrvol tune")
        board.check_drawn()
        board.store.flush()
        strokes = Path(board.store.source)
        output = strokes.with_name(strokes.name.partition(".")[0] + _RECIPE_SUFFIX)

        def take(_: Process) -> None:
            self.recipe.setCurrentText(str(output))
            self._recipe_chosen()
            inform(f"the recipe was saved as {output}")

        options = "-o", str(output), "--minutes", f"{self.suggest_minutes:g}", "--fresh"
        self.tuning.start(("tune", board.path, str(strokes), *options), take)

    def cancel(self) -> None:
        """Cancel what is computed."""
        self.live.setChecked(False)
        for ticket in self._tickets:
            ticket.cancel()
        self._desk.cancel()
        self._say(self._shown)

    def _ask(
        self,
        request: Callable[[Any], Any],
        done: Callable[[Any], Any],
        then: Callable[[Any], Any] = lambda value: value,
    ) -> None:
        """Ask the session, call ``then`` with the answer in a thread, and ``done`` with what it returns."""
        self._desk.need().check_drawn()

        def ask(session: Any) -> None:
            self._look()
            ticket = request(session)
            self._tickets.append(ticket)
            self._say("working")

            def arrived(value: Any) -> None:
                self._over(ticket)
                done(value)

            def failed(error: Exception) -> None:
                self._over(ticket)
                if not isinstance(error, CancelledError):
                    report(error)

            self._background.call(lambda: then(ticket.result()), arrived, failed)

        self._desk.with_session(self.recipe_text(), reported(ask))

    def _over(self, ticket: Any) -> None:
        if ticket in self._tickets:
            self._tickets.remove(ticket)
        if not self._tickets:
            self._say(self._shown)

    def _recipe_chosen(self, *_: Any) -> None:
        """Take another recipe at once in live mode; else with the next question."""
        if self.live.isChecked() and self._desk.board is not None:
            reported(self._desk.with_session)(self.recipe_text())

    def _live_toggled(self, on: bool) -> None:
        if not on:
            if self._desk.session is not None:
                self._desk.session.live = False
            return
        try:
            self._desk.with_session(self.recipe_text(), self._go_live)
        except UsageError:
            self.live.setChecked(False)
            raise

    def _go_live(self, session: Any) -> None:
        reported(self._look)()
        session.live = self.live.isChecked()

    def _began(self) -> None:
        if self.live.isChecked():
            self._go_live(self._desk.session)

    def _closed(self) -> None:
        self.live.setChecked(False)
        self.quality.hide()
        self._saved = None
        self._shown = ""
        self._say("")

    def _progressed(self, stage: str, done: int, total: int) -> None:
        self._say(f"{stage}: {done:,} of {total:,}" if done < total else self._shown)

    def _previewed(self, preview: Any) -> None:
        kind = "exact" if preview.exact else f"preview, {preview.stage}"
        part = "" if preview.step == 1 else f", every {preview.step}th pixel"
        self._shown = f"{kind}{part}"
        self._say(self._shown)
        if preview.exact and self._wanted is not None and self._visible() == self._wanted:
            self._wanted = None

    def _emptied(self) -> None:
        self._shown = ""
        self._say("")

    def _say(self, text: str) -> None:
        self.state.setText(text)
