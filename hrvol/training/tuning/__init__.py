"""Choose a recipe by cross-validation on strokes."""
