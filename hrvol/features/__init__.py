"""Pixels -> feature vectors. Knows no volumes and no Dask."""
