"""Box the objects of an image, and cut out its foreground, without a single label.

    python examples/boxes_around_objects.py [image.tif [boxes.png]]

Without arguments: a slice through a synthetic electrode. Clusters that the network attends to more than to
others are foreground; each connected piece of a foreground class gets a box, and the largest piece of all of
them together a dashed one. The picture shows the classes, their attention, and the boxes.
"""

import sys
from pathlib import Path

import hrvol
from hrvol.explore.detect import DetectionFiles, write_detection
from hrvol.phantom import make_phantom


def main(source: str = "", out: str = "boxes.png") -> None:
    """Write a picture of an image and its objects, and beside it the foreground as a mask."""
    image = source or make_phantom((1, 256, 256), seed=1).image[0]

    # Asks for three classes. Without, they are merged up to the semantic distance: `merge=0.9` gives more of
    # them, `merge=1.1` fewer.
    found = hrvol.detect_objects(image, classes=3)

    for box in found.to_dict()["boxes"]:
        print(f"{box['name']}: {box['size']} px, y {box['y0']}..{box['y1']}, x {box['x0']}..{box['x1']}")
    picture = Path(out)
    write_detection(found, DetectionFiles(picture, picture.with_name(f"{picture.stem}_foreground.tif")))
    print(f"{out}: {100 * found.mask.mean():.0f} % of the image is foreground")


if __name__ == "__main__":
    main(*sys.argv[1:])
