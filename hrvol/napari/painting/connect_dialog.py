"""Ask for the server of a session."""

from __future__ import annotations

from qtpy.QtWidgets import QDialog, QDialogButtonBox, QLineEdit, QVBoxLayout, QWidget

from hrvol.napari.widgets import PathField, form, text_label

_WIDTH = 460  # pixels

_HELP = (
    "On the machine with the data: hrvol serve VOLUME. It prints the command of the tunnel, which you start"
    " here, the URL and the token."
)


class ConnectDialog(QDialog):
    """URL and token of ``hrvol serve``.

    Parameters
    ----------
    parent
        The panel.
    """

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Connect to a server")
        self.setMinimumWidth(_WIDTH)
        self.url, self.token = QLineEdit(), QLineEdit()
        self.url.setPlaceholderText("http://127.0.0.1:8765")
        self.token.setEchoMode(QLineEdit.EchoMode.Password)
        self.token_file = PathField("Choose the file of the token", hint="or a file with it")
        fields = form()
        fields.addRow("URL", self.url)
        fields.addRow("Token", self.token)
        fields.addRow("Token file", self.token_file)
        kinds = QDialogButtonBox.StandardButton
        buttons = QDialogButtonBox(kinds.Ok | kinds.Cancel)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addWidget(text_label(_HELP))
        layout.addLayout(fields)
        layout.addWidget(buttons)

    def values(self) -> tuple[str, str, str]:
        """Return URL, token and path of the token's file, empty where nothing was entered."""
        return self.url.text().strip(), self.token.text().strip(), self.token_file.path()
