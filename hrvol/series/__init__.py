"""Run a workflow file over many volumes: train, distil, segment, cluster, evaluate, export."""
