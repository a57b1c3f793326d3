"""Commands of napari's menus: each opens the dock at one of its tabs."""

from __future__ import annotations

from typing import Any

from hrvol.napari.notify import report

PLUGIN, WIDGET = "hrvol", "Segment volumes"
"""Names of the plugin and of the dock in the manifest."""


def show_paint() -> Any:
    """Open the dock to paint strokes."""
    return show("Paint")


def show_segment() -> Any:
    """Open the dock to segment a volume."""
    return show("Segment")


def show_distil() -> Any:
    """Open the dock to distil a model."""
    return show("Distil")


def show_cluster() -> Any:
    """Open the dock to find classes without strokes."""
    return show("Cluster")


def show_similar() -> Any:
    """Open the dock to find what is similar to a point."""
    return show("Similar")


def show(tab: str, viewer: Any = None) -> Any:
    """Open the dock of the present viewer at a tab, and return the tab's panel; ``None`` without a viewer."""
    import napari

    viewer = viewer or napari.current_viewer()
    if viewer is None:
        report("open a viewer first")
        return None
    dock, widget = viewer.window.add_plugin_dock_widget(PLUGIN, WIDGET)
    dock.show()
    dock.raise_()
    return widget.select(tab)
