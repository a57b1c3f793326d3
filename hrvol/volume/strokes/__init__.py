"""Open strokes of any origin, count, merge and write them."""
