"""OME-Zarr: metadata, images, labels, pyramids."""
