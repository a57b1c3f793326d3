"""Give what is drawn in an open store as strokes, for training and export."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hrvol.volume.drawing_store.drawer import Drawer
from hrvol.volume.strokes.strokes import Strokes


def strokes_of(store: Drawer) -> Strokes:
    """Return what is drawn in a store, saved or not; nothing is copied, so that later strokes are in it, too.

    Boxes without strokes at present are not read later.
    """
    axes = tuple("zyx"[-store.ndim :])
    labels = replace(store.labels, array=store.array(), axes=axes, origin=None, opened=())
    bounds = [[(span.start, span.stop) for span in box] for box in store.boxes()]
    parts = np.array(bounds, np.int64).reshape(-1, 3, 2)
    return Strokes(labels.source, store.shape, labels, parts=parts, classes=store.classes)
