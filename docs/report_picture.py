"""Make the picture of the page about reports: a report of a synthetic electrode, photographed in Chromium.

``python docs/report_picture.py`` needs chromium on ``PATH`` and two minutes.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import tifffile
from PIL import Image

import hrvol
from hrvol.phantom import draw_strokes, make_phantom

PICTURE = Path(__file__).parent / "images" / "report.jpg"

SHAPE = (40, 256, 256)

WINDOW = 1180, 1180

SAVED = 940, 940

RECIPE = {
    "features": {
        "kind": "classical",
        "classical": {
            "filters": ["gaussian", "sobel", "hessian", "difference_of_gaussians"],
            "sigmas": [1, 2, 4],
        },
    },
    "classifier": {"trees": 40},
    "tiles": {"core": 256, "overlap": 24, "planes": 8},
}

CHROMIUM = "chromium --headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"


def main() -> None:
    """Make the picture."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        phantom = make_phantom(SHAPE, seed=0)
        volume = hrvol.open_volume(phantom.image, voxel_size=(0.2, 0.2, 0.2), unit="um")
        strokes = draw_strokes(phantom.labels, (8, 30), strokes=8)
        recipe = hrvol.Recipe.from_dict(RECIPE)
        model = hrvol.train_model([(volume, strokes)], recipe=recipe, classes=list(phantom.class_names))
        hrvol.segment_volume(volume, folder / "electrode.ome.zarr", model, uncertainty=True)
        tifffile.imwrite(folder / "truth.tif", phantom.labels, photometric="minisblack")
        hrvol.write_report(
            folder / "electrode.ome.zarr",
            folder / "report.html",
            volume=volume,
            truth=folder / "truth.tif",
            title="Electrode",
        )
        photograph(folder / "report.html", folder / "report.png")
        with Image.open(folder / "report.png") as picture:
            small = picture.convert("RGB").resize(SAVED, Image.Resampling.LANCZOS)
        small.save(PICTURE, quality=75, optimize=True)


def photograph(page: Path, picture: Path) -> None:
    """Save the head of a page as a PNG."""
    size = f"--window-size={WINDOW[0]},{WINDOW[1]}"
    profile = f"--user-data-dir={picture.parent / 'profile'}"
    words = [*CHROMIUM.split(), size, profile, "--hide-scrollbars", f"--screenshot={picture}", page.as_uri()]
    subprocess.run(words, check=True, capture_output=True, timeout=120)


if __name__ == "__main__":
    main()
