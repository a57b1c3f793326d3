"""Draw on a volume of a server: needs neither torch nor scikit-learn nor Zarr."""
