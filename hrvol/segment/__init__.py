"""Classify pixels by their feature vectors; independent of volumes and of Dask."""
