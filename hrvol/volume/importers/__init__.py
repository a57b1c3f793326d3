"""Readers of other file formats."""
