"""Figures, drawn with matplotlib without its global state."""
