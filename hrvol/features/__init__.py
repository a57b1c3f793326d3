"""Features of pixels. Imports no volumes and no Dask."""
