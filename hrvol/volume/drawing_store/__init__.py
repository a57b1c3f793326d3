"""Strokes that are drawn now: sparse OME-Zarr labels that are saved while one draws, with undo."""
