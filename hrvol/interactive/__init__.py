"""Sessions without a GUI: strokes that are drawn, features of visited planes, models and previews."""
