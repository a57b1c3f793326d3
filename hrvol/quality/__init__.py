"""Measure the quality of segmentations, from arrays alone."""
