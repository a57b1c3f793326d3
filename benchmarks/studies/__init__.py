"""Measurements behind decisions already made; kept so that they can be repeated, not maintained for use."""
