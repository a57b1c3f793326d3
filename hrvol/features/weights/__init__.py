"""Weights of networks: names, sources, checksums, cache."""
