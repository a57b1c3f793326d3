"""Measurements on real micrographs; not part of the installed package."""
