"""Deep features: tokens of a frozen vision transformer, upsampled to pixels."""
