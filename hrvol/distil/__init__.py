"""Distil a model into a student: label a sample of tiles with the model, and train a small network on them."""
