"""The table of classes: names, colours, pixels and weights; the chosen class is the one that is painted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt, QTimer, Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QColorDialog,
    QHeaderView,
    QMenu,
    QPushButton,
    QSlider,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from hrvol.errors import UsageError
from hrvol.napari.notify import report, reported
from hrvol.napari.painting.desk import Desk
from hrvol.napari.painting.strokes_layer import show_classes
from hrvol.napari.widgets import button, guard_wheel, row
from hrvol.text import printable

_NAME, _PIXELS, _WEIGHT = range(3)

_SWATCH = 14  # pixels

_STEPS = 20  # of a slider for a factor of 10

_DELAY = 60  # milliseconds, within which strokes are counted once


def weight_of(step: int) -> float:
    """Return the class weight of a slider's position, 0.1 to 10; the middle is 1."""
    return float(round(10 ** (step / _STEPS), 3))


class ClassBox(QWidget):
    """Classes of the strokes that are open.

    Parameters
    ----------
    desk
        What is open.
    """

    weights_changed = Signal(object)
    """Class weights by class value."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._desk = desk
        self.layer: Any = None
        self.weights: dict[int, float] = {}
        self.table = QTableWidget(0, 3)
        self.table.setHorizontalHeaderLabels(["class", "pixels", "weight"])
        self.table.verticalHeader().hide()
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setEditTriggers(
            QAbstractItemView.EditTrigger.DoubleClicked | QAbstractItemView.EditTrigger.EditKeyPressed
        )
        self.table.setFixedHeight(150)
        self.table.setToolTip("The chosen class is painted; double-click a name to change it")
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(_NAME, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(_PIXELS, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(_WEIGHT, QHeaderView.ResizeMode.Fixed)
        self.table.setColumnWidth(_WEIGHT, 90)
        self.add_button = button("Add", reported(self.add), "Add a class")
        self.colour_button = button("Colour", reported(self.choose_colour), "Change the colour of the class")
        self.merge_button = QPushButton("Merge into")
        self.merge_button.setToolTip("Draw the strokes of the class as those of another one, and remove it")
        self._menu = QMenu(self.merge_button)
        self._menu.aboutToShow.connect(self._fill_menu)
        self.merge_button.setMenu(self._menu)
        self.delete_button = button("Delete", reported(self.delete), "Erase the class and its strokes")
        self.undo_button = button("Undo", self._step("undo"), "Take back a stroke or a change of classes")
        self.redo_button = button("Redo", self._step("redo"), "Make it again")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        layout.addWidget(self.table)
        layout.addLayout(row(self.add_button, self.colour_button, self.merge_button, self.delete_button))
        layout.addLayout(row(self.undo_button, self.redo_button))
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_DELAY)
        self._timer.timeout.connect(self._count)
        self.table.itemChanged.connect(reported(self._renamed))
        self.table.itemSelectionChanged.connect(reported(self._chosen))
        desk.drawn.connect(self._drawn)

    def attach(self, layer: Any) -> None:
        """Show the classes of the strokes that are open, which a layer shows; ``None`` empties the table."""
        self.layer = layer
        self.weights = {}
        if layer is not None:
            layer.events.selected_label.connect(self._show_chosen)
        self._list()

    def value(self) -> int:
        """Return the chosen class.

        Raises
        ------
        UsageError
            None is chosen.
        """
        item = self.table.item(self.table.currentRow(), _NAME)
        if item is None:
            raise UsageError("class: found none chosen, expected a row of the table")
        return int(item.data(Qt.ItemDataRole.UserRole))

    def add(self, name: str = "") -> int:
        """Add a class, choose it, and return its value."""
        store = self._desk.need().store
        names = {info.name for info in store.classes}
        number = max((info.value for info in store.classes), default=0) + 1
        while not name or name in names:
            name, number = f"class {number}", number + 1
        value = store.add_class(name)
        self._list()
        self.choose(value)
        return value

    def choose(self, value: int) -> None:
        """Paint a class from now on."""
        if self.layer is not None:
            self.layer.selected_label = value
        self._show_chosen()

    def recolour(self, value: int, colour: tuple[int, int, int]) -> None:
        """Give a class another colour."""
        self._desk.need().store.recolour_class(value, colour)

    def choose_colour(self) -> None:
        """Ask for the colour of the chosen class."""
        value = self.value()
        colour = QColorDialog.getColor(QColor(*self._info(value).colour), self, "Colour of the class")
        if colour.isValid():
            self.recolour(value, (colour.red(), colour.green(), colour.blue()))

    def merge(self, target: int) -> None:
        """Merge the chosen class into another one."""
        self._desk.need().store.merge_classes(self.value(), target)
        self._list()
        self.choose(target)

    def delete(self) -> None:
        """Erase the chosen class."""
        store = self._desk.need().store
        store.delete_class(self.value())
        self._list()
        if store.classes:
            self.choose(store.classes[0].value)

    def set_weight(self, value: int, step: int) -> None:
        """Move the slider of a class."""
        self._slider(value).setValue(step)

    def _slider(self, value: int) -> Any:
        return self.table.cellWidget(self._row(value), _WEIGHT)

    def _info(self, value: int) -> Any:
        return next(info for info in self._desk.need().store.classes if info.value == value)

    def _step(self, name: str) -> Callable[[], Any]:
        return reported(lambda: getattr(self._desk.need().store, name)())

    def _row(self, value: int) -> int:
        for i in range(self.table.rowCount()):
            if self.table.item(i, _NAME).data(Qt.ItemDataRole.UserRole) == value:
                return i
        return -1

    def _drawn(self, change: Any) -> None:
        if change.kind == "error":
            if change.message:
                report(change.message)
            return
        if change.classes:
            self._list()
        if change.kind != "paint" and self.layer is not None:
            self.layer.refresh()
        self._timer.start()

    def _list(self) -> None:
        """Show the present classes."""
        board = self._desk.board
        classes = () if board is None else board.store.classes
        with QSignalBlocker(self.table):
            self.table.setRowCount(len(classes))
            for i, info in enumerate(classes):
                item = QTableWidgetItem(printable(info.name, 200))
                swatch = QPixmap(_SWATCH, _SWATCH)
                swatch.fill(QColor(*info.colour))
                item.setIcon(QIcon(swatch))
                item.setData(Qt.ItemDataRole.UserRole, info.value)
                self.table.setItem(i, _NAME, item)
                pixels = QTableWidgetItem("")
                pixels.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable)
                pixels.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.table.setItem(i, _PIXELS, pixels)
                self.table.setCellWidget(i, _WEIGHT, self._new_slider(info.value))
        known = {info.value for info in classes}
        kept = {value: weight for value, weight in self.weights.items() if value in known}
        if kept != self.weights:  # or the class would have an invisible weight once its deletion is undone
            self.weights = kept
            self.weights_changed.emit(dict(kept))
        if board is not None and self.layer is not None:
            show_classes(self.layer, board)
        self._count()
        self._show_chosen()

    def _new_slider(self, value: int) -> QSlider:
        slider = QSlider(Qt.Orientation.Horizontal)
        slider.setRange(-_STEPS, _STEPS)
        before = self._slider_step(value)
        slider.setValue(before)
        slider.setToolTip(f"Weight of the class: {weight_of(before):g}")
        slider.valueChanged.connect(lambda step: self._weigh(value, step, slider))
        guard_wheel(self, slider)
        return slider

    def _slider_step(self, value: int) -> int:
        weight = self.weights.get(value, 1.0)
        return min(range(-_STEPS, _STEPS + 1), key=lambda step: abs(weight_of(step) - weight))

    def _weigh(self, value: int, step: int, slider: QSlider) -> None:
        self.weights[value] = weight_of(step)
        slider.setToolTip(f"Weight of the class: {weight_of(step):g}")
        self.weights_changed.emit(dict(self.weights))

    def _count(self) -> None:
        board = self._desk.board
        if board is None:
            return
        counts = {value: sum(planes.values()) for value, planes in board.store.counts().planes.items()}
        with QSignalBlocker(self.table):
            for i in range(self.table.rowCount()):
                value = self.table.item(i, _NAME).data(Qt.ItemDataRole.UserRole)
                self.table.item(i, _PIXELS).setText(f"{counts.get(value, 0):,}")
        done, undone = board.store.steps
        self.undo_button.setEnabled(done > 0)
        self.redo_button.setEnabled(undone > 0)

    def _renamed(self, item: Any) -> None:
        if item.column() != _NAME or self._desk.board is None:
            return
        value = int(item.data(Qt.ItemDataRole.UserRole))
        name = item.text().strip()
        try:
            if name and name != self._info(value).name:
                self._desk.board.store.rename_class(value, name)
        finally:
            with QSignalBlocker(self.table):
                item.setText(printable(self._info(value).name, 200))

    def _chosen(self) -> None:
        if self.layer is not None and self.table.currentRow() >= 0:
            self.layer.selected_label = self.value()

    def _show_chosen(self, *_: Any) -> None:
        if self.layer is None:
            return
        i = self._row(int(self.layer.selected_label))
        if i != self.table.currentRow():
            with QSignalBlocker(self.table):
                self.table.setCurrentCell(i, _NAME)

    def _fill_menu(self) -> None:
        self._menu.clear()
        board = self._desk.board
        for info in () if board is None else board.store.classes:
            if info.value != self.table.item(max(0, self.table.currentRow()), _NAME).data(
                Qt.ItemDataRole.UserRole
            ):
                action = self._menu.addAction(printable(info.name, 100))
                action.triggered.connect(lambda *_, value=info.value: reported(self.merge)(value))
