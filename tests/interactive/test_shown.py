"""What is shown: in order, and nothing that has been replaced."""

import threading

import numpy as np
import pytest

from hrvol.classes import default_classes
from hrvol.interactive import shown as module
from hrvol.interactive.preview import RawPreview, preview_of
from hrvol.interactive.regions import Region
from hrvol.interactive.shown import Listeners, Shown

REGION = Region(0, slice(0, 4), slice(0, 4))


def raw(version, **changes):
    values = {"region": REGION, "step": 1, "stage": "recipe", "exact": False, "complete": True} | changes
    probabilities = np.full((2, 4, 4), 0.5, np.float32)
    return RawPreview(classes=default_classes((1, 2)), probabilities=probabilities, version=version, **values)


@pytest.fixture
def shown():
    made = Shown(Listeners())
    made.region = REGION
    return made


def told(shown, event="preview"):
    found = []
    shown._listeners.add(event, lambda *values: found.append(values[0].version if values else None))
    return found


def test_a_preview_that_was_replaced_is_not_told(shown, monkeypatch):
    shown.publish(raw(1))
    versions = told(shown)
    begun, replaced = threading.Event(), threading.Event()

    def slow(of, weights):
        if threading.current_thread().name == "weights":
            begun.set()
            assert replaced.wait(30)
        return preview_of(of, weights)

    monkeypatch.setattr(module, "preview_of", slow)
    weighing = threading.Thread(target=shown.weigh, name="weights")
    weighing.start()
    assert begun.wait(30)
    newer = threading.Thread(target=lambda: shown.publish(raw(2)))
    newer.start()
    while shown._raw.version != 2:  # it waits for the weights, or is told before them
        assert newer.is_alive()
    replaced.set()
    weighing.join(30)
    newer.join(30)
    assert versions == [2]
    assert shown.preview.version == 2


def test_nothing_is_shown_of_strokes_that_give_no_preview(shown):
    previews, nothings = told(shown), told(shown, "nothing")
    shown.clear(0)
    assert nothings == []  # nothing was shown
    shown.publish(raw(1))
    shown.clear(2)
    assert shown.preview is None
    assert nothings == [None]
    shown.publish(raw(1, exact=True))  # it was computed meanwhile
    shown.clear(2)
    assert (shown.preview, previews, nothings) == (None, [1], [None])
    shown.publish(raw(3))
    shown.clear(2)
    assert (shown.preview.version, previews, nothings) == (3, [1, 3], [None])
