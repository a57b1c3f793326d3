"""Measurements of labels: objects, boxes, agreement with a ground truth."""
