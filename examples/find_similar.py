"""Point at something, and see where else it is: the network's features compared, pixel by pixel.

    python examples/find_similar.py [image.tif y,x [similar.png]]

Without arguments: two slices through a synthetic electrode, and a point in a particle of the first. The
picture shows the similarity of every pixel to the cross, red for similar, and the best matches. It is the
cosine of the angle between two features: 1 is alike. No training, no labels.
"""

import sys

import hrvol
from hrvol.phantom import make_phantom


def main(source: str = "", at: str = "", out: str = "similar.png") -> None:
    """Write a picture of what looks like a point."""
    if source:
        image, targets = source, [source]
        point = tuple(int(part) for part in at.split(","))
    else:
        # Two electrodes that have nothing in common but what they are made of.
        image, other = (make_phantom((1, 256, 256), seed).image[0] for seed in (1, 2))
        targets, point = [image, other], (150, 100)

    found = hrvol.find_similar(image, [point], targets, picture=out, overwrite=True)

    for target in found.targets:
        for match in target.matches[0]:
            print(f"{target.name}: y={match.y}, x={match.x}, similarity {match.similarity:.2f}")
    print(f"picture: {out}")


if __name__ == "__main__":
    main(*sys.argv[1:])
