"""The panel that paints strokes and shows what they give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QTimer
from qtpy.QtWidgets import QFileDialog, QGroupBox, QMainWindow, QVBoxLayout, QWidget

from hrvol.errors import UsageError
from hrvol.napari.background import Background
from hrvol.napari.hub import Hub
from hrvol.napari.layers import shown_levels
from hrvol.napari.notify import inform, reported
from hrvol.napari.painting.board import SUFFIX, Board, free_path, suggested_path
from hrvol.napari.painting.class_box import ClassBox
from hrvol.napari.painting.connect_dialog import ConnectDialog
from hrvol.napari.painting.desk import Desk
from hrvol.napari.painting.import_dialog import ImportDialog
from hrvol.napari.painting.learn_box import LearnBox
from hrvol.napari.painting.result_layers import ResultLayers
from hrvol.napari.painting.seen import Seen, camera_of, seen_of
from hrvol.napari.painting.strokes_layer import (
    add_strokes_layer,
    let_go,
    mark_place,
    set_paintable,
    show_again,
)
from hrvol.napari.weights_text import named_weights, weights_text
from hrvol.napari.widgets import PathField, VolumeField, button, form, row

if TYPE_CHECKING:
    from hrvol.volume.strokes.merge import Conflicts

_DELAY = 80  # milliseconds without a movement, after which the view counts


class PaintPanel(QWidget):
    """Paint strokes, and see what they give.

    Parameters
    ----------
    hub
        What the panels share.
    """

    title = "Paint"

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self.hub = hub
        self._background = Background(self)
        self.desk = Desk(self)
        self.layer: Any = None
        self.results: ResultLayers | None = None
        self._preview: Any = None
        self._seen: Seen | None = None
        self._mark: Any = None
        self._canvas: Any = None  # the part of the window around it
        self._image: Any = None  # of a server's volume
        self.volume = VolumeField(hub.viewer)
        self.path = PathField("Choose the strokes", "OME-Zarr (*.ome.zarr)", save=True, hint="*.ome.zarr")
        self.new_button = button("New strokes", reported(self.new), "Begin to draw on the volume")
        self.open_button = button("Open strokes", reported(self.open), "Continue earlier strokes")
        self.connect_button = button(
            "Connect", reported(self.choose_server), "Draw on a volume of another machine (hrvol serve)"
        )
        self.import_button = button(
            "Import", reported(self.choose_import), "Add strokes of other files or programs to these"
        )
        self.classes = ClassBox(self.desk)
        self.learn = LearnBox(hub, self.desk, self.look)
        self._lay_out()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_DELAY)
        self._timer.timeout.connect(self._follow)
        self.volume.changed.connect(self._suggest)
        self.desk.opened.connect(self._opened)
        self.desk.closed.connect(self._closed)
        self.desk.began.connect(self._began)
        self.desk.previewed.connect(self._show)
        self.desk.emptied.connect(self._show_nothing)
        self.classes.weights_changed.connect(reported(self._weigh))
        self.learn.place_found.connect(reported(self.go))
        self.learn.saved.connect(self._pass_weights)
        self.learn.layers_changed.connect(self._show_again)
        viewer = hub.viewer
        viewer.dims.events.ndisplay.connect(self._turned)
        for emitter in (viewer.dims.events.point, viewer.dims.events.order, viewer.dims.events.ndisplay):
            emitter.connect(self._moved)
        for emitter in (camera_of(viewer).events.center, camera_of(viewer).events.zoom):
            emitter.connect(self._moved)
        viewer.layers.events.removed.connect(self._removed)
        hub.strokes_added.connect(self._refresh)
        hub.jobs.save_first(self.desk.save)
        hub.jobs.closing.connect(self.desk.close)
        self._suggest()
        self._enable()

    def _lay_out(self) -> None:
        fields = form()
        fields.addRow("Volume", self.volume)
        fields.addRow("Strokes", self.path)
        self.group = QGroupBox("Classes")
        inner = QVBoxLayout(self.group)
        inner.setContentsMargins(6, 6, 6, 6)
        inner.addWidget(self.classes)
        layout = QVBoxLayout(self)
        layout.addLayout(fields)
        layout.addLayout(row(self.new_button, self.open_button, self.import_button))
        layout.addLayout(row(self.connect_button))
        layout.addWidget(self.group)
        layout.addWidget(self.learn)
        layout.addStretch(1)

    def new(self) -> None:
        """Create strokes on the chosen volume, and show them."""
        path = self._strokes_path()
        if self.path.property("suggested") == path:
            path = str(free_path(Path(path)))
        self._open(path, create=True)

    def open(self) -> None:
        """Open strokes on the chosen volume, and show them."""
        path = self._strokes_path()
        if not Path(path).exists() and self.path.property("suggested") == path:
            path = QFileDialog.getExistingDirectory(self, "Choose the strokes", str(self.volume.folder()))
            if not path:
                return
        self._open(path, create=False)

    def choose_server(self) -> None:
        """Ask for a server, and connect to it."""
        dialog = ConnectDialog(self)
        if dialog.exec():
            self.connect_to(*dialog.values())

    def connect_to(self, url: str, token: str = "", token_file: str = "") -> None:
        """Show the volume of a server and its strokes, and draw in them."""
        if not self.desk.close():
            return

        def read() -> tuple[Board, Any]:
            board = Board.connect(url, token, token_file)
            try:
                shown = shown_levels(board.volume.name, board.levels)
            except BaseException:
                board.store.close()
                raise
            if not isalive(self):
                board.store.close()
            return board, shown

        def show(found: tuple[Board, Any]) -> None:
            board, (data, about, _) = found
            self._image = self.hub.viewer.add_image(data, **about)
            self.desk.take(board)

        self._in_background(read, show)

    def close_strokes(self) -> None:
        """Save and close the strokes."""
        self.desk.close()

    def import_from(self, path: str, conflicts: Conflicts = "error") -> None:
        """Add strokes of a file to those that are open, as one step of undo."""
        board, layer = self.desk.need(), self.layer

        def read() -> int:
            from hrvol.interactive.strokes import import_strokes

            return import_strokes(board.store, path, board.local_volume, conflicts=conflicts)

        def show(count: int) -> None:
            self._paintable(layer, board, on=True)
            inform(f"{count:,} pixels were imported")
            self._refresh()

        def failed(error: Exception) -> None:
            self._paintable(layer, board, on=True)
            raise error

        self._paintable(layer, board, on=False)  # or undo would take back a part of what is imported
        self._background.call(read, show, failed)

    def _paintable(self, layer: Any, board: Board, *, on: bool) -> None:
        set_paintable(layer, board, on=on)
        self._enable(busy=not on)

    def choose_import(self) -> None:
        """Ask for strokes to import."""
        self.desk.need()
        dialog = ImportDialog(self, str(self.volume.folder()))
        if not dialog.exec():
            return
        path, conflicts = dialog.values()
        if not path:
            raise UsageError("import: found no path, expected strokes")
        self.import_from(path, conflicts)

    def look(self) -> Seen:
        """Tell the session what is visible.

        Raises
        ------
        UsageError
            Nothing of the volume's z planes is.
        """
        seen = None if self.layer is None else seen_of(self.hub.viewer, self.layer)
        if seen is None:
            raise UsageError("view: found no z plane of the volume on the screen, expected one, in 2-D")
        if seen != self._seen:
            self._seen = seen
            self.learn.forget_shown()
        self.desk.look(seen)
        return seen

    def go(self, place: Any) -> None:
        """Move the viewer to a place, and mark it."""
        board, viewer = self.desk.need(), self.hub.viewer
        n = board.volume.ndim
        point = (place.plane, place.row, place.column)[-n:]
        world = self.layer.data_to_world(point)
        offset = viewer.dims.ndim - n
        for axis in range(n):
            viewer.dims.set_point(offset + axis, float(world[axis]))
        camera_of(viewer).center = (0.0, float(world[-2]), float(world[-1]))
        self._mark = mark_place(viewer, board, point, self._mark)
        viewer.layers.selection.active = self.layer

    def _strokes_path(self) -> str:
        path = self.path.path()
        if not path:
            raise UsageError("strokes: found no path, expected one that ends in .ome.zarr")
        return path

    def _open(self, path: str, *, create: bool) -> None:
        file = self.volume.file()
        if not self.desk.close():  # so that the same strokes can be opened again
            return

        def read() -> Board:
            board = Board.open(file(), path, create=create)
            if not isalive(self):
                board.store.close()
            return board

        def show(board: Board) -> None:
            self.path.set_path(board.store.source)
            self.path.setProperty("suggested", None)
            self.desk.take(board)

        self._in_background(read, show)

    def _in_background(self, read: Callable[[], Any], show: Callable[[Any], None]) -> None:
        """Open something; no other is opened meanwhile."""
        for each in (self.new_button, self.open_button, self.connect_button):
            each.setEnabled(False)

        def failed(error: Exception) -> None:
            self._enable()
            raise error

        self._background.call(read, show, failed)

    def _opened(self) -> None:
        board = self.desk.need()
        self.hub.board = board
        viewer = self.hub.viewer
        self.layer = add_strokes_layer(viewer, board, board.name)
        self.results = ResultLayers(viewer, board, self.layer)
        self.classes.attach(self.layer)
        if not self.learn.model.path():
            name = Path(board.store.source).name.removesuffix(SUFFIX).partition(".")[0]
            self.learn.model.set_path(str(board.folder / f"{name}.hrvol"))
        self._enable()
        self.desk.with_session(self.learn.recipe_text())  # prepares features of what is visible

    def _closed(self) -> None:
        if not isalive(self):
            return
        layer, results, mark, image = self.layer, self.results, self._mark, self._image
        self.layer = self.results = self._preview = self._mark = self._seen = self._image = None
        self.hub.board = None
        self.classes.attach(None)
        if results is not None:
            results.remove()
        for one in (layer, mark, image):
            if one is not None:
                let_go(self.hub.viewer, one)
        self._enable()

    def _enable(self, *, busy: bool = False) -> None:
        on = self.desk.board is not None and not busy
        for widget in (self.group, self.learn, self.import_button):
            widget.setEnabled(on)
        for each in (self.new_button, self.open_button, self.connect_button):
            each.setEnabled(True)

    def _began(self) -> None:
        if self.classes.weights:
            self._weigh(self.classes.weights)
        self._follow()

    def _weigh(self, weights: dict[int, float]) -> None:
        if self.desk.session is not None:
            self.desk.session.class_weights = weights

    def _pass_weights(self) -> None:
        """Give the weights to the panels, beside the model that was saved, of which they are no part."""
        if self.desk.board is not None:
            pairs = named_weights(self.classes.weights, self.desk.board.store.classes)
            self.hub.weights_chosen.emit(weights_text(pairs))

    def _moved(self, *_: Any) -> None:
        if isalive(self) and self.layer is not None:
            self._timer.start()

    def _turned(self, *_: Any) -> None:
        """Show large strokes again that were hidden in 3-D."""
        if isalive(self) and self.layer is not None:
            show_again(self.hub.viewer, self.layer)

    def showEvent(self, event: Any) -> None:
        """Follow the size of the canvas, too, once the panel is in a window."""
        super().showEvent(event)
        window: Any = self.window()
        canvas = window.centralWidget() if isinstance(window, QMainWindow) else None
        if canvas is not None and canvas is not self._canvas:
            self._canvas = canvas
            canvas.installEventFilter(self)

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Hear of a new size of the canvas, which moves nothing else."""
        if event.type() == QEvent.Type.Resize and watched is self._canvas:
            self._moved()
        return False

    def _follow(self) -> None:
        """Tell the session what is visible, if that has changed."""
        if self.layer is None or self.desk.session is None:
            return
        if seen_of(self.hub.viewer, self.layer) not in (None, self._seen) or self._preview is None:
            try:
                self.look()
            except UsageError:
                return  # another orientation, or 3-D

    def _show(self, preview: Any) -> None:
        self._preview = preview
        self._show_again()

    def _show_nothing(self) -> None:
        self._preview = None
        if self.results is not None:
            self.results.remove()

    def _show_again(self) -> None:
        if self.results is None or self._preview is None:
            return
        self.results.uncertainty = self.learn.uncertainty.isChecked()
        self.results.probabilities = self.learn.probabilities.isChecked()
        reported(self.results.show)(self._preview)

    def _refresh(self) -> None:
        """Show what was drawn by others."""
        if self.layer is not None:
            self.layer.refresh()

    def _removed(self, event: Any) -> None:
        shown = [one for one in (self.layer, self._image) if one is not None]
        if isalive(self) and self.layer is not None and event.value in shown and not self.desk.close():
            QTimer.singleShot(0, self._put_back)  # after the removal

    def _put_back(self) -> None:
        """Show strokes again that could not be saved."""
        if isalive(self) and self.layer is not None and self.layer not in self.hub.viewer.layers:
            self.hub.viewer.layers.append(self.layer)

    def _suggest(self) -> None:
        if self.desk.board is not None:
            return
        shown = self.path.path()
        if shown in ("", self.path.property("suggested")):
            path = suggested_path(self.volume.folder(), self.volume.name())
            self.path.set_path(str(path))
            self.path.setProperty("suggested", self.path.path())
