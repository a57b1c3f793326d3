"""Complete what panels request, in a thread, and copy it as a command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from qtpy.QtWidgets import QApplication

from hrvol.napari.notify import inform
from hrvol.napari.region_field import Region
from hrvol.napari.requests import ClusterRequest, DistilRequest, SegmentRequest, command_line

Request = TypeVar("Request", SegmentRequest, DistilRequest, ClusterRequest)


def completing(request: Request, file: Callable[[], str], region: Region) -> Callable[[], Request]:
    """Return a function that gives a request with its volume and region; it may save a layer."""

    def complete() -> Request:
        from hrvol.volume.volume import open_volume

        path = file()
        return replace(request, volume=path, region=region(open_volume(path)))

    return complete


def copy_text(text: str, news: str) -> None:
    """Put a text into the clipboard, and tell so."""
    QApplication.clipboard().setText(text)
    inform(news)


def copy_command_line(request: SegmentRequest | DistilRequest | ClusterRequest) -> None:
    """Put the exact command line of a request into the clipboard."""
    copy_text(command_line(request.arguments()), "the command line was copied")
