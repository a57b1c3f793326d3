"""Show three principal components of a volume's features as colours.

    python examples/pca_picture.py [volume.ome.zarr [pca.png]]

Without arguments: a synthetic electrode. The components are fitted once, on a sample of all planes, so that
a colour means the same in each of them. Also shown is the attention of the network's CLS token, relative to
uniform attention.
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
