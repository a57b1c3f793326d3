"""Hand hrvol damaged and hostile files and requests, and judge how each command ends."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))  # shares the damages of the tests
