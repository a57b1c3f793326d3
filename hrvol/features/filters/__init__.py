"""Classical features: a bank of image filters."""
