"""Convert volumes of any format to OME-Zarr images."""
