"""Export volumes and labels: choose files and formats, read slab by slab, write, publish."""
