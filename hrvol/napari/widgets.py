"""Fields that several panels share: volume, file, region, folded options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QObject, Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMenu,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QWidget,
)

from hrvol.errors import UsageError
from hrvol.napari.folders import plugin_folder
from hrvol.napari.layers import source_of
from hrvol.napari.requests import absolute
from hrvol.napari.sources import saved_volume, stored_volume
from hrvol.volume.storage.location import is_url

ENGINES = ("local", "serial", "cuda", "slurm")

_NARROW = 90  # pixels: the least width of a field, so that a dock may be narrow


def narrow(widget: Any) -> Any:
    """Return a field that may be narrower than its text."""
    widget.setMinimumWidth(_NARROW)
    widget.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return widget


def form() -> QFormLayout:
    """Return the layout of a panel's fields: names at the left, fields as wide as the dock."""
    layout = QFormLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    layout.setLabelAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
    layout.setVerticalSpacing(5)
    return layout


def row(*widgets: QWidget, stretch: int | None = None) -> QHBoxLayout:
    """Return widgets side by side; ``stretch`` is the index of the one that grows."""
    layout = QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(4)
    for i, widget in enumerate(widgets):
        layout.addWidget(widget, 1 if i == stretch else 0)
    if stretch is None:
        layout.addStretch(1)
    return layout


def button(text: str, clicked: Callable[[], Any], tip: str = "") -> QPushButton:
    """Return a button."""
    made = QPushButton(text)
    made.setToolTip(tip)
    made.clicked.connect(lambda *_: clicked())
    return made


def text_label(text: str = "") -> QLabel:
    """Return a label that wraps its text, and shows it as it is."""
    label = QLabel(text)
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label


def engine_box() -> QComboBox:
    """Return a field for the engine."""
    box: QComboBox = narrow(QComboBox())
    box.addItems(ENGINES)
    box.setEditable(True)
    box.setToolTip("Where blocks are computed; or the address of a Dask scheduler, tcp://host:8786")
    return box


class _WheelGuard(QObject):
    """Leaves the mouse wheel to the panel, which it scrolls, where a field has no focus."""

    def eventFilter(self, watched: Any, event: Any) -> bool:
        if event.type() == QEvent.Type.Wheel and not watched.hasFocus():
            event.ignore()
            return True
        return False


def guard_wheel(panel: QWidget, *fields: QWidget) -> None:
    """Have fields change by the mouse wheel only where they have the focus."""
    guard = _WheelGuard(panel)
    for field in fields:
        field.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        field.installEventFilter(guard)


class PathField(QWidget):
    """A path that is typed or chosen.

    Parameters
    ----------
    caption
        Title of the dialog.
    pattern
        Files that the dialog shows, as Qt takes it: ``"Models (*.hrvol)"``.
    save
        Whether the path is written to.
    hint
        Text of an empty field.
    """

    changed = Signal(str)

    def __init__(self, caption: str, pattern: str = "", *, save: bool = False, hint: str = "") -> None:
        super().__init__()
        self._caption, self._pattern, self._save = caption, pattern, save
        self._line = narrow(QLineEdit())
        self._line.setPlaceholderText(hint)
        self._line.textChanged.connect(self.changed)
        browse = QToolButton()
        browse.setText("…")
        browse.setToolTip(caption)
        browse.clicked.connect(self._browse)
        self.setLayout(row(self._line, browse, stretch=0))

    def path(self) -> str:
        """Return the absolute path, or URL; empty without one."""
        return absolute(self._line.text())

    def set_path(self, path: str) -> None:
        """Show a path."""
        self._line.setText(path)
        self._line.setToolTip(path)

    def _browse(self) -> None:
        start = self.path() or str(Path.home())
        ask = QFileDialog.getSaveFileName if self._save else QFileDialog.getOpenFileName
        path, _ = ask(self, self._caption, start, self._pattern)
        if path:
            self.set_path(path)


class VolumeField(QWidget):
    """A volume: one of the viewer's images, or a path or URL.

    Parameters
    ----------
    viewer
        The viewer.
    """

    changed = Signal()

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._viewer = viewer
        self._box = narrow(QComboBox())
        self._box.setEditable(True)
        self._box.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self._box.lineEdit().setPlaceholderText("an image layer, or a path")
        self._box.setToolTip("An image layer, or the path or URL of a volume of any format that hrvol reads")
        browse = QToolButton()
        browse.setText("…")
        browse.setToolTip("Choose a file or a folder")
        browse.setStyleSheet("QToolButton::menu-indicator { image: none; }")
        browse.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(browse)
        menu.addAction("File …").triggered.connect(lambda *_: self._browse(False))
        menu.addAction("Folder (Zarr, images) …").triggered.connect(lambda *_: self._browse(True))
        browse.setMenu(menu)
        self.setLayout(row(self._box, browse, stretch=0))
        guard_wheel(self, self._box)
        for event in ("inserted", "removed", "reordered"):
            getattr(viewer.layers.events, event).connect(self._refresh)
        self._refresh()
        self._box.currentTextChanged.connect(lambda *_: self.changed.emit())

    def layer(self) -> Any:
        """Return the chosen layer; ``None`` if it is a path."""
        i = self._box.findText(self._box.currentText())
        return None if i < 0 else self._box.itemData(i)

    def set_path(self, path: str) -> None:
        """Choose a path: the layer that shows it, if there is one."""
        for i in range(self._box.count()):
            if stored_volume(self._box.itemData(i)) == path:
                self._box.setCurrentIndex(i)
                return
        self._box.setEditText(path)

    def set_layer(self, layer: Any) -> None:
        """Choose a layer."""
        self._box.setCurrentIndex(self._box.findText(layer.name))

    def file(self) -> Callable[[], str]:
        """Return a function that gives the path of the volume, to be called in a thread.

        Raises
        ------
        UsageError
            Nothing is chosen.
        """
        layer = self.layer()
        if layer is not None:
            return lambda: saved_volume(layer)
        path = absolute(self._box.currentText())
        if not path:
            raise UsageError("volume: found none, expected an image layer or a path")
        return lambda: path

    def folder(self) -> Path:
        """Return the folder where results of the volume go by default, as far as that is known."""
        layer = self.layer()
        path = (source_of(layer) or "") if layer is not None else absolute(self._box.currentText())
        place = Path(path.partition("::")[0]).parent
        # Results do not belong into the plugin's own folders.
        own = plugin_folder("samples").parent in place.parents
        return Path.home() if own or not path or is_url(path) else place

    def name(self) -> str:
        """Return the name of the volume without suffixes."""
        layer = self.layer()
        text = layer.name if layer is not None else Path(self._box.currentText()).name
        return str(text).split(".")[0] or "volume"

    def _browse(self, folder: bool) -> None:
        start = str(self.folder())
        if folder:
            path = QFileDialog.getExistingDirectory(self, "Choose a volume", start)
        else:
            path, _ = QFileDialog.getOpenFileName(self, "Choose a volume", start)
        if path:
            self.set_path(path)

    def _refresh(self, *_: Any) -> None:
        """List the image layers; the chosen one stays, a new one is chosen where none was."""
        if not isalive(self):
            return
        before, text = self.layer(), self._box.currentText()
        images = [layer for layer in reversed(self._viewer.layers) if _is_volume(layer)]
        self._box.blockSignals(True)
        self._box.clear()
        for layer in images:
            self._box.addItem(layer.name, layer)
            layer.events.name.connect(self._refresh)
        if before in images:
            self._box.setCurrentIndex(images.index(before))
        elif text and before is None:
            self._box.setEditText(text)
        elif not images:
            self._box.setEditText("")
        self._box.blockSignals(False)
        if self.layer() is not before or self._box.currentText() != text:
            self.changed.emit()


def _is_volume(layer: Any) -> bool:
    return bool(layer._type_string == "image" and not layer.rgb and layer.ndim in (2, 3))
