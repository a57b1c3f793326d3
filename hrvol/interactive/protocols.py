"""What a user interface needs of a volume, its strokes and a session, in this process or on a server.

In this process they are :class:`hrvol.Volume`, :class:`hrvol.volume.drawing_store.store.DrawingStore` and
:class:`hrvol.Session`; on a server those of :func:`hrvol.connect`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hrvol.arrays import Shape3, Spacing3
from hrvol.classes import ClassInfo
from hrvol.interactive.lane import Ticket
from hrvol.interactive.results import Place, Preview, Quality, Scope
from hrvol.volume.drawing_store.change import Change
from hrvol.volume.drawing_store.checks import Where
from hrvol.volume.drawing_store.class_table import Colour
from hrvol.volume.drawing_store.paintable import PaintableArray
from hrvol.volume.grid.tiling import Box
from hrvol.volume.strokes.painted import Painted
from hrvol.volume.strokes.stroke_counts import StrokeCounts

if TYPE_CHECKING:  # imports Zarr
    from hrvol.volume.volume import Volume

Forget = Callable[[], None]


class ShownVolume(Protocol):
    """A volume that is drawn on; its attributes are those of :class:`hrvol.Volume`."""

    @property
    def source(self) -> str:
        """Path or URL."""

    @property
    def name(self) -> str:
        """Short name."""

    @property
    def shape(self) -> Shape3:
        """Voxels (z, y, x)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the voxels."""

    @property
    def ndim(self) -> int:
        """2 for an image, else 3."""

    @property
    def colour(self) -> bool:
        """Whether a voxel has three values."""

    @property
    def voxel_size(self) -> Spacing3:
        """Of (z, y, x), in the unit."""

    @property
    def unit(self) -> str | None:
        """OME name of a unit of length."""

    @property
    def translation(self) -> Spacing3:
        """Position (z, y, x) of the centre of the first voxel."""

    def read(self, box: Box | None = None) -> NDArray[Any]:
        """Read a box, or all of it."""


class PaintedStrokes(Protocol):
    """Strokes that are drawn; see :class:`hrvol.volume.drawing_store.drawer.Drawer`."""

    @property
    def source(self) -> str:
        """Where they are kept."""

    @property
    def shape(self) -> Shape3:
        """Voxels (z, y, x)."""

    @property
    def version(self) -> int:
        """Number of changes."""

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """Classes in order of value."""

    @property
    def labels(self) -> Volume:
        """The labels as a volume."""

    @property
    def steps(self) -> tuple[int, int]:
        """Number of steps that can be undone, and redone."""

    def array(self) -> PaintableArray:
        """Return the strokes as an array that is shown and painted."""

    def read(self, box: Box) -> NDArray[Any]:
        """Return the class values of a box."""

    def read_places(self, where: Where) -> NDArray[Any]:
        """Return the class values of voxels."""

    def points(self, planes: Sequence[int] | None = None) -> Painted:
        """Return the drawn voxels."""

    def counts(self) -> StrokeCounts:
        """Return the drawn voxels of each class and plane."""

    def changed_since(self, version: int) -> tuple[Box, ...]:
        """Return boxes that hold all voxels changed after a version."""

    def paint(self, where: Where, values: ArrayLike) -> Change:
        """Set voxels; 0 erases."""

    def stroke(self) -> AbstractContextManager[None]:
        """Make all changes inside of a ``with`` statement one step of undo."""

    def undo(self) -> Change | None:
        """Take back the last step."""

    def redo(self) -> Change | None:
        """Make the step again that was undone last."""

    def add_class(self, name: str, colour: Colour | None = None, value: int | None = None) -> int:
        """Add a class and return its value."""

    def rename_class(self, value: int, name: str) -> Change:
        """Give a class another name."""

    def recolour_class(self, value: int, colour: Colour) -> Change:
        """Give a class another colour."""

    def merge_classes(self, source: int, target: int) -> Change:
        """Draw all voxels of a class as another one, and remove it."""

    def delete_class(self, value: int) -> Change:
        """Erase all voxels of a class, and remove it."""

    def subscribe(self, function: Callable[[Change], None]) -> Forget:
        """Call a function with each change, and with errors of saving."""

    def flush(self) -> None:
        """Save all that is drawn, and wait for it."""

    def close(self) -> None:
        """Save all that is drawn, and end drawing."""


class PaintSession(Protocol):
    """What the strokes give; see :class:`hrvol.Session`."""

    live: bool
    """Whether previews follow the strokes and the view."""

    @property
    def class_weights(self) -> Mapping[int, float]:
        """Factors of the classes' probabilities."""

    @class_weights.setter
    def class_weights(self, weights: Mapping[int, float]) -> None: ...

    def view(self, plane: int, rows: slice, columns: slice, level: int = 0) -> None:
        """Set what is seen."""

    def update(self) -> Ticket[Preview]:
        """Make previews of the present strokes and view, the last of them exact."""

    def preview(self) -> Preview | None:
        """Return the present preview."""

    def on_preview(self, function: Callable[[Preview], None]) -> Forget:
        """Call a function with each new preview."""

    def on_nothing(self, function: Callable[[], None]) -> Forget:
        """Call a function when the preview is gone."""

    def on_error(self, function: Callable[[str], None]) -> Forget:
        """Call a function with each error, one line."""

    def on_progress(self, function: Callable[[str, int, int], None]) -> Forget:
        """Call a function with a stage, how much of it is done, and all of it."""

    def request_places(self, count: int = 1, planes: Scope = "view") -> Ticket[tuple[Place, ...]]:
        """Begin to look for places to draw next."""

    def next_places(self, count: int = 1, planes: Scope = "view") -> tuple[Place, ...]:
        """Return places to draw next."""

    def request_quality(self) -> Ticket[Quality]:
        """Begin a cross-validation."""

    def quality(self) -> Quality:
        """Return the cross-validated IoU of each class."""

    def request_model_bytes(self) -> Ticket[bytes]:
        """Begin to train."""

    def model_bytes(self) -> bytes:
        """Return the bytes of the model's ``*.hrvol`` file."""

    def cancel(self) -> None:
        """Cancel everything that is computed."""

    def close(self) -> None:
        """End the session."""
