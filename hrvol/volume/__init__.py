"""The only code that opens stores, and the integer geometry of blocks and tiles."""
