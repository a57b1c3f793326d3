"""Read small files from outside with bounds on size, depth and counts, and validate what they hold."""
