"""Predict with students, alone or beside the model that taught them, and say when one would help."""
