"""Show what the classes of a complete output fill: voxels, share, and volume in units of length."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from hrvol.errors import InputError
from hrvol.napari.background import Background
from hrvol.napari.complete_request import copy_text
from hrvol.napari.notify import report, reported
from hrvol.napari.texts import columns
from hrvol.napari.widgets import button, row
from hrvol.text import printable

if TYPE_CHECKING:
    from hrvol.run.class_volumes import ClassVolumes

_SYMBOLS = {"nanometer": "nm", "micrometer": "µm", "millimeter": "mm", "meter": "m"}

_POWERS = {2: "²", 3: "³"}


class MeasureTable(QWidget):
    """The table of one output; hidden without one."""

    def __init__(self) -> None:
        super().__init__()
        self._background = Background(self)
        self._output = ""
        self.measured: ClassVolumes | None = None
        self.text = QLabel()
        self.text.setTextFormat(Qt.TextFormat.RichText)
        self.text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.copy_button = button("Copy table", reported(self.copy), "Copy it for a spreadsheet")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.text)
        layout.addLayout(row(self.copy_button))
        self.hide()

    def clear(self) -> None:
        """Show nothing."""
        self._output, self.measured = "", None
        self.hide()

    def measure(self, output: str) -> None:
        """Add up what the blocks of a complete output recorded, in a thread, and show it; once per output."""
        if output == self._output:
            return
        self._output = output

        def read() -> tuple[str, ClassVolumes]:
            from hrvol.run.class_volumes import class_volumes

            return output, class_volumes(output)

        def failed(error: Exception) -> None:
            if not isinstance(error, InputError):  # the output of a conversion has no classes
                report(error)

        self._background.call(read, self._show, failed)

    def copy(self) -> None:
        """Copy the table, its columns separated by tabs."""
        if self.measured is not None:
            lines = ["\t".join(line) for line in exact_rows(self.measured)]
            copy_text("\n".join(lines) + "\n", "the table was copied")

    def _show(self, found: tuple[str, ClassVolumes]) -> None:
        output, measured = found
        if output == self._output:
            self.measured = measured
            self.text.setText(columns(shown_rows(measured)))
            self.show()


def shown_rows(measured: ClassVolumes) -> list[list[str]]:
    """Return the table for people, its head first."""
    rows = [_head(measured, "share")]
    for found in measured.classes:
        volume = [] if measured.unit is None else [f"{found.volume:,.4g}"]
        rows.append([found.info.name, f"{found.voxels:,}", f"{100 * found.fraction:.2f} %", *volume])
    return rows


def exact_rows(measured: ClassVolumes) -> list[list[str]]:
    """Return the table for programs, its head first."""
    rows = [_head(measured, "fraction")]
    for found in measured.classes:
        volume = [] if measured.unit is None else [repr(found.volume)]
        rows.append([printable(found.info.name, 200), str(found.voxels), repr(found.fraction), *volume])
    return rows


def _head(measured: ClassVolumes, share: str) -> list[str]:
    unit = measured.unit
    volume = [] if unit is None else [f"{_SYMBOLS.get(unit, unit)}{_POWERS[measured.ndim]}"]
    return ["class", "voxels" if measured.ndim == 3 else "pixels", share, *volume]
