"""Open other file formats than Zarr."""
