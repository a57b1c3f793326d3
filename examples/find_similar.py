"""Find pixels that are similar to a point, by comparing the features of a network.

    python examples/find_similar.py [image.tif y,x [similar.png]]

Without arguments: two slices through a synthetic electrode, and a point in a particle of the first. The
picture shows the similarity of every pixel to the cross, red for similar, and the best matches. Similarity is
the cosine of the angle between two feature vectors, at most 1. No training, no labels.
"""

import sys

import hrvol
from hrvol.phantom import make_phantom


def main(source: str = "", at: str = "", out: str = "similar.png") -> None:
    """Write a picture of the similarity to a point."""
    if source:
        image, targets = source, [source]
        point = tuple(int(number) for number in at.split(","))
    else:
        # Two electrodes of the same materials.
        image, other = (make_phantom((1, 256, 256), seed).image[0] for seed in (1, 2))
        targets, point = [image, other], (150, 100)

    result = hrvol.find_similar(image, [point], targets, picture=out, overwrite=True)

    for target in result.targets:
        for match in target.matches[0]:
            print(f"{target.name}: y={match.y}, x={match.x}, similarity {match.similarity:.2f}")
    print(f"picture: {out}")


if __name__ == "__main__":
    main(*sys.argv[1:])
