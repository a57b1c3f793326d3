"""Ask for strokes to import, and which class counts where both draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QComboBox, QDialog, QDialogButtonBox, QFileDialog, QVBoxLayout, QWidget

from hrvol.napari.widgets import PathField, button, form, narrow, row, text_label

if TYPE_CHECKING:
    from hrvol.volume.strokes.merge import Conflicts

_WIDTH = 460  # pixels

_FILES = "Strokes (*.csv *.geojson *.json *.roi *.zip *.ilp *.tif *.tiff *.npy *.h5 *.hdf5);;All files (*)"

_CONFLICTS: dict[str, Conflicts] = {
    "import nothing": "error",
    "those drawn here count": "first",
    "the imported ones count": "last",
}


class ImportDialog(QDialog):
    """A file or folder of strokes, and what happens where other classes are drawn.

    Parameters
    ----------
    parent
        The panel.
    folder
        Where a folder is looked for.
    """

    def __init__(self, parent: QWidget, folder: str) -> None:
        super().__init__(parent)
        self._folder = folder
        self.setWindowTitle("Import strokes")
        self.setMinimumWidth(_WIDTH)
        self.path = PathField("Choose a file of strokes", _FILES, hint="CSV, GeoJSON, ROI, .ilp, TIFF, Zarr")
        self.conflicts = narrow(QComboBox())
        self.conflicts.addItems(_CONFLICTS)
        self.conflicts.setToolTip("Where the file draws another class than these strokes")
        fields = form()
        place = QWidget()
        place.setLayout(row(self.path, button("Folder", self._choose_folder, "OME-Zarr, images"), stretch=0))
        fields.addRow("Strokes", place)
        fields.addRow("On conflict", self.conflicts)
        kinds = QDialogButtonBox.StandardButton
        buttons = QDialogButtonBox(kinds.Ok | kinds.Cancel)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addWidget(text_label("Classes are those of the same name; the import is one step of undo."))
        layout.addLayout(fields)
        layout.addWidget(buttons)

    def values(self) -> tuple[str, Conflicts]:
        """Return the path, empty where none was entered, and the conflicts as ``import_strokes`` has them."""
        return self.path.path(), _CONFLICTS[self.conflicts.currentText()]

    def _choose_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Choose strokes (OME-Zarr, images)", self._folder)
        if path:
            self.path.set_path(path)
