"""Clean labels of any size: block by block, on any engine, resumable."""
