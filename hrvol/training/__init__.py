"""Fit models to pixels: from strokes, or without labels."""
