"""A task that kills its worker; on its own, because every worker that replaces a dead one imports it."""

import os
import time

POISONED = 3


def take(task):
    """Return the task, or kill the process while its other task is under way."""
    time.sleep(0.2)
    if task == POISONED:
        os._exit(1)
    return task
