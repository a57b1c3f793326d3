"""A bounded map over tasks, in this process, on worker processes or on a cluster; knows no imaging."""
