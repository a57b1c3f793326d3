"""See a volume as the network sees it: three principal components of its features, as colours.

    python examples/pca_picture.py [volume.ome.zarr [pca.png]]

Without arguments: a synthetic electrode. The components are fitted once, on a sample of all planes, so that
a colour means the same in each of them: what has one colour is one kind of thing to the network. Also
shown is where its CLS token looks, in units of "as much as uniform attention would give".
"""

import sys

import hrvol
from hrvol.phantom import make_phantom


def main(source: str = "", out: str = "pca.png") -> None:
    """Write a picture of four planes, their features and their attention."""
    volume = source or make_phantom((40, 256, 256), seed=1).image

    report = hrvol.pca_picture([volume], out, planes=4, attention=True, overwrite=True)

    shares = ", ".join(f"{100 * share:.0f} %" for share in report.explained)
    print(f"{out}: red, green and blue are {shares} of the variance of the features")


if __name__ == "__main__":
    main(*sys.argv[1:])
