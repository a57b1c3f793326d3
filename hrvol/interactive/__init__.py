"""A session of drawing strokes and seeing what they give, without a user interface."""
