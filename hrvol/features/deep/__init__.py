"""Deep features: a frozen vision transformer, upsampled to pixels."""
