"""Integer geometry of blocks and tiles."""
