"""Show the first three principal components of an image's features as colours.

    python examples/features_of_an_image.py image.tif features.png

Also shows the attention of the network's CLS token, relative to uniform attention.
"""

import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA

import hrvol
from hrvol.recipe.specs import IntensitySpec
from hrvol.volume.intensity import intensity_window, to_unit


def main(source: str, out: str) -> None:
    """Write a picture of an image, its features and its attention."""
    volume = hrvol.open_volume(source)
    image = to_unit(volume.read()[0], intensity_window(volume, IntensitySpec()))

    # The balanced recipe's deep features; `fast` is four times cheaper.
    spec = hrvol.Recipe.load("deep").features
    result = hrvol.load_featuriser(spec).upsampled(image, attention=True)

    pixels = result.features.permute(1, 2, 0).reshape(-1, len(result.features)).numpy()
    components = PCA(3, random_state=0).fit_transform(pixels)
    low, high = np.percentile(components, [1, 99], axis=0)
    colours = ((components - low) / (high - low)).clip(0, 1).reshape(*image.shape, 3)

    figure, axes = plt.subplots(1, 3, figsize=(15, 5.4), layout="constrained")
    axes[0].imshow(image, cmap="gray")
    axes[1].imshow(colours)
    shown = axes[2].imshow(result.attention.mean(0), cmap="magma")
    figure.colorbar(shown, ax=axes[2], label="attention, times uniform")
    for axis, title in zip(axes, ("image", "features: 3 principal components", "attention"), strict=True):
        axis.set(title=title, xticks=[], yticks=[])
    figure.savefig(out, dpi=80)


if __name__ == "__main__":
    main(*sys.argv[1:3])
