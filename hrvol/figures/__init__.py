"""Figures, drawn with matplotlib but without pyplot."""
