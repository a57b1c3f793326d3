"""Serve a volume, its strokes and a session to a client on another machine."""
