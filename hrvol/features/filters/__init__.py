"""Classical filters."""
