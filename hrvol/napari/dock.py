"""The dock: a tab for each panel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import QFrame, QScrollArea, QTabWidget, QVBoxLayout, QWidget

from hrvol.napari.cluster_panel import ClusterPanel
from hrvol.napari.distil_panel import DistilPanel
from hrvol.napari.hub import Hub
from hrvol.napari.models import listen
from hrvol.napari.painting.panel import PaintPanel
from hrvol.napari.segment_panel import SegmentPanel
from hrvol.napari.similar_panel import SimilarPanel
from hrvol.napari.window_guard import guard

_WIDTH = 380  # pixels


@dataclass(frozen=True)
class Tab:
    """A tab of the dock: its title, and the function that makes its panel of what the panels share."""

    title: str
    make: Callable[[Hub], QWidget]


TABS: tuple[Tab, ...] = (
    Tab(PaintPanel.title, PaintPanel),
    Tab(SegmentPanel.title, SegmentPanel),
    Tab(DistilPanel.title, DistilPanel),
    Tab(ClusterPanel.title, ClusterPanel),
    Tab(SimilarPanel.title, SimilarPanel),
)


class Dock(QWidget):
    """The panels of hrvol.

    Parameters
    ----------
    napari_viewer
        The viewer; napari passes it by this name.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self.hub = Hub(napari_viewer, self)
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        self.panels: dict[str, QWidget] = {}
        for tab in TABS:
            panel = tab.make(self.hub)
            self.panels[tab.title] = panel
            self.tabs.addTab(_scrolled(panel), tab.title)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.tabs)
        self.setMinimumWidth(_WIDTH)
        listen(self.hub.take_model)

    def select(self, title: str) -> QWidget:
        """Show a tab, and return its panel."""
        self.tabs.setCurrentIndex(list(self.panels).index(title))
        return self.panels[title]

    def event(self, event: Any) -> bool:
        """Guard the window once the dock is in it; end what is open once it is taken out."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.hub.jobs.closing.emit()
        if event.type() in (QEvent.Type.Show, QEvent.Type.ParentChange) and self.window() is not self:
            guard(self.window(), self.hub.jobs)
        return bool(super().event(event))


def _scrolled(panel: QWidget) -> QScrollArea:
    area = QScrollArea()
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setWidget(panel)
    return area
