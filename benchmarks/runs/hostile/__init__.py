"""Hand hrvol damaged and hostile files and requests, and judge how each command ends."""
