"""Separate touching objects of label volumes of any size: block by block, on any engine, resumable."""
