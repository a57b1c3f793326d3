"""Write OME-Zarr images, labels, arrays of features and pyramids; read their metadata."""
