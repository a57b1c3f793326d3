"""Run a bounded map over tasks in this process, in worker processes or on a cluster; knows no imaging."""
