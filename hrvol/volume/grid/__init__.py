"""Divide volumes into blocks and tiles: integer geometry only."""
