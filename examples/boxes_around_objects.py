"""Draw boxes around the objects of an image and write its foreground mask, without any labels.

    python examples/boxes_around_objects.py [image.tif [boxes.png]]

Without arguments: a slice through a synthetic electrode. Clusters with high attention are foreground. Each
connected component of a foreground class gets a box, and the largest component of the whole foreground a
dashed one. The picture shows the classes, their attention, and the boxes.
"""

import sys
from pathlib import Path

import hrvol
from hrvol.explore.detect import DetectionFiles, write_detection
from hrvol.phantom import make_phantom


def main(source: str = "", out: str = "boxes.png") -> None:
    """Write a picture of an image and its objects, and the foreground mask beside it."""
    image = source or make_phantom((1, 256, 256), seed=1).image[0]

    # By default clusters closer than the semantic distance are merged: `merge=0.9` gives more classes,
    # `merge=1.1` fewer.
    detection = hrvol.detect_objects(image, classes=3)

    for box in detection.to_dict()["boxes"]:
        print(f"{box['name']}: {box['size']} px, y {box['y0']}..{box['y1']}, x {box['x0']}..{box['x1']}")
    picture = Path(out)
    write_detection(detection, DetectionFiles(picture, picture.with_name(f"{picture.stem}_foreground.tif")))
    print(f"{out}: {100 * detection.mask.mean():.0f} % of the image is foreground")


if __name__ == "__main__":
    main(*sys.argv[1:])
