"""Speed and memory on the CPU and on a GPU: ``python -m benchmarks.speed`` and single measurements."""
