"""Paint strokes on a volume of any size, and see at once what they give."""
