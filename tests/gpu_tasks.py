"""Tasks, and ways to name a GPU, for workers without one; on their own, so that workers start quickly."""

import os
import time

from hrvol.engine.task import attempt
from hrvol.errors import DeviceError


def own_gpu():
    """A GPU that nobody else has."""
    return f"GPU-{os.getpid()}"


def shared_gpu():
    """The same GPU for everybody."""
    return "GPU-5e7"


def gpu_of_the_first(folder):
    """A GPU for whoever comes first."""
    try:
        (folder / "taken").touch(exist_ok=False)
    except FileExistsError:
        raise DeviceError("no GPU for me") from None
    return "GPU-1"


def process_id(task):
    time.sleep(0.1)
    return os.getpid()


def environment(folder):
    """The GPUs that the process sees, and how it was started; waits until two processes are here."""
    meet(folder)
    with open("/proc/self/environ") as file:  # Dask changes os.environ later, when glibc has read it
        begun = dict(line.partition("=")[::2] for line in file.read().split("\0"))
    names = ("PYTORCH_CUDA_ALLOC_CONF", "MALLOC_TRIM_THRESHOLD_")
    return os.environ.get("CUDA_VISIBLE_DEVICES"), *(begun.get(name) for name in names)


def meet(folder):
    """Wait until two processes are here."""
    (folder / str(os.getpid())).touch()
    end = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2:
        if time.monotonic() > end:
            raise TimeoutError("nobody came")
        time.sleep(0.02)
    return os.getpid()


def die_once(task):
    if task is not None and not task.exists():
        task.touch()
        os._exit(1)
    return os.getpid()


def out_of_memory_once(task):
    """Task 3 finds the GPU full at its first try, and task 4 is under way in the same process for long."""
    folder, number = task
    broken = folder / "broken"
    if number == 3 and attempt() == 0:
        import torch

        (folder / "process").write_text(str(os.getpid()))
        (folder / "process").rename(broken)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    if number == 4:
        while not broken.exists():
            time.sleep(0.02)
        if broken.read_text() == str(os.getpid()):
            time.sleep(60)
    return os.getpid()


def predict_with_a_full_gpu(folder, block):
    """Predict a block; the first process that comes to the third finds the GPU full."""
    from hrvol.run.block import predict_block

    if block.index == (1, 0, 0) and attempt() == 0:
        import torch

        (folder / "broken").write_text(str(os.getpid()))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    report = predict_block(block)
    with (folder / "done").open("a") as log:
        log.write(f"{os.getpid()} {block.index} {attempt()}\n")
    return report


class OutOfMemoryError(MemoryError):
    """As CuPy has one."""

    __module__ = "cupy.cuda.memory"


def always_out_of_memory(task):
    if task == 0:
        raise OutOfMemoryError("Out of memory allocating 2,147,483,648 bytes")
    return task
