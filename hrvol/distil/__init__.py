"""Distil a model into a student: label a sample of tiles, and train a small network on them."""
