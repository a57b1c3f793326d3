"""The machinery of ``benchmarks.runs.painting``, with few strokes."""

import re
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.runs import painting


def test_a_stroke_is_a_brush_dragged_over_100_pixels():
    z, y, x = painting.stroke(7)
    places = np.unique(np.stack([z, y, x]), axis=1)
    assert len(np.unique(z)) == 1
    assert 1_000 < places.shape[1] < 1_400
    assert np.hypot(np.ptp(y), np.ptp(x)) > 85
    assert not np.array_equal(painting.stroke(8)[1], y)


def test_the_page_has_what_was_measured(tmp_path):
    page = tmp_path / "painting.md"
    few = ["--strokes", "3", "5", "--pause", "0", "--delays", "1", "--kills", "1", "--seconds", "0.2"]
    painting.main([*few, "--folder", str(tmp_path), "-o", str(page)])
    text = " ".join(page.read_text(encoding="utf-8").split())
    assert re.search(r"\| 5 \| 5,\d{3} \|", text)
    assert "1 processes were killed" in text
    assert "0 times anything else differed" in text
    assert list(tmp_path.iterdir()) == [page]
