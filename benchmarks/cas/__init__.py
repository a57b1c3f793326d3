"""Classes found without labels: ``python -m benchmarks.cas``."""
