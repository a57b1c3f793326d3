"""Quality of labels trained on strokes: ``python -m benchmarks.quality`` and single comparisons."""
