"""Separate the touching objects of a class, block by block, as on the whole array."""
