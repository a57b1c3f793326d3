"""Feature vectors -> labels. Knows no volumes and no Dask."""
