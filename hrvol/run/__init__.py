"""Apply a model to a volume block by block, on any engine, resumably."""
