"""Find classes in an image without strokes, and apply them to another image.

    python examples/classes_from_nothing.py [image.tif [classes.png]]

Without arguments: slices through synthetic electrodes. The classes are fitted once and stored in a model,
which labels the same image and any other, here one that was not used for fitting.
"""

import sys

import hrvol
from hrvol.figures.panels import draw_planes
from hrvol.phantom import make_phantom
from hrvol.run.predict import label_plane


def main(source: str = "", out: str = "classes.png") -> None:
    """Write a picture of an image with its classes."""
    if source:
        images = {"image": hrvol.open_volume(source)}
    else:
        slices = {"seen": 1, "not seen": 2}
        images = {name: hrvol.open_volume(make_phantom((1, 256, 256), s).image) for name, s in slices.items()}

    # Many small clusters, merged into classes: by default up to the semantic distance, here to four.
    first = next(iter(images.values()))
    model = hrvol.fit_classes(first, classes=4)
    featuriser = hrvol.load_featuriser(model.recipe.features)

    panels = {}
    for name, volume in images.items():
        plane = volume.read()[0]
        panels[name] = (plane, None)
        panels[f"{name}: classes"] = (plane, label_plane(volume, 0, model, featuriser))
    draw_planes(out, panels, model.classes, columns=2)

    for info, share in zip(model.classes, model.classifier.class_tally.pixels, strict=True):
        print(f"{info.name}: {100 * share / model.classifier.class_tally.pixels.sum():.1f} %")
    print(f"picture: {out}")


if __name__ == "__main__":
    main(*sys.argv[1:])
