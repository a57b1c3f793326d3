"""Where and in which order work happens."""
