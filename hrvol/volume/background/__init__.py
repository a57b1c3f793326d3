"""Find and keep the part of a volume that holds no material."""
