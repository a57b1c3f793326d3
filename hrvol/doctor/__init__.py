"""Check an installation: packages, GPUs, weights, disk and memory."""
