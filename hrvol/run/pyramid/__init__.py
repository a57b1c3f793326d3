"""Build the coarser levels of outputs and of images."""
