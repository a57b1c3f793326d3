"""Estimate what a run would cost with a student of its model, before there is one.

A student of random weights predicts one window: its time does not depend on what it was taught. The rest of a
run's cost, reading and storing, is that of the trial blocks of the model.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Shape3, most_likely, to_host
from hrvol.backend import TORCH, choose_backend
from hrvol.device import cpus
from hrvol.distil.cubes import MOST, SIDE, learns_from_cubes, steps_of
from hrvol.distil.dimensions import Wish, apparent_spacing, dimensions_of
from hrvol.distil.examples import crop_shape
from hrvol.distil.fit import FitSettings
from hrvol.distil.options import AUTO, DistilOptions
from hrvol.distil.sample import FEWEST, GPU_MINUTES, LABELLING, MINUTES
from hrvol.distil.stand_in import stand_in
from hrvol.distil.training import THREADS
from hrvol.errors import InputError
from hrvol.planning.plan import Plan, StudentPlan
from hrvol.planning.task import Task
from hrvol.run.cache_choice import choose_cache
from hrvol.run.students.predict_student import run_lattice
from hrvol.segment.model.model import Model
from hrvol.segment.student.lattice import Lattice, bytes_per_voxel, student_tiles
from hrvol.segment.student.runner import StudentRunner
from hrvol.segment.student.shapes import flop_per_voxel
from hrvol.segment.student.spec import Dimensions, StudentSpec, student_spec
from hrvol.segment.student.student import StudentClassifier
from hrvol.training.colour import STUDENTS
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.tiling import Box, box_shape
from hrvol.volume.read_forecast import simulate_reads
from hrvol.volume.region import region_box
from hrvol.volume.storage.location import located
from hrvol.volume.volume import Volume, expect_grey, open_volume

if TYPE_CHECKING:
    from hrvol.run.options import RunOptions

SIZES = ("small", "medium")
"""Sizes of students that a plan shows."""

WORKER_BYTES = 610 * 2**20
"""Memory of a worker process with torch loaded, which has predicted nothing yet, about."""

_LIVE = 1.65  # arrays in memory per intermediate result of a window, as torch keeps and rounds them up

_BLOCKS = 3  # bytes of labels per voxel of a block, in memory and as encoded, of two blocks in flight

_BACKWARD = 3  # times of a prediction that a training step takes per voxel of its crops

_WINDOW = 2**20  # voxels of the measured window, about

_VISITS = 5_000  # of the simulated cache


def plan_students(task: Task, plan: Plan, backend: str = "auto") -> tuple[StudentPlan, ...]:
    """Return what students of the sizes :data:`SIZES` would cost.

    None if the model is a student itself, or the volume a colour one, of which there are no students.

    Parameters
    ----------
    task
        The run with the model.
    plan
        Its plan, measured.
    backend
        Of students, as in :func:`hrvol.segment_volume`.
    """
    model, job = task.prepared.model, task.job
    if isinstance(model.classifier, StudentClassifier) or job.volume.colour:
        return ()
    if not plan.blocks or not plan.voxels:
        return ()
    sees = dimensions(job.volume, job.region)
    chosen = choose_backend(backend, task.spec.device).name
    return tuple(_plan_student(task, plan, name, student_spec(name, sees), chosen) for name in SIZES)


def dimensions(volume: Volume, region: Box, wish: Wish = "auto", seed: int = 0) -> Dimensions:
    """Return what a student of a volume will see; single planes if the volume cannot be read."""
    try:
        spacing = apparent_spacing(volume, seed, region)
    except InputError:  # the run will report it
        return "planes"
    return dimensions_of(wish, spacing, box_shape(region))[0]


def planned_student(
    volume: Any, teacher: Model, distilling: DistilOptions, options: RunOptions
) -> tuple[Model, str]:
    """Return a student of random weights in the place of one that will be distilled, and a remark on it.

    Parameters
    ----------
    volume, teacher
        What is distilled.
    distilling, options
        How, and the request of the run.
    """
    opened = open_volume(located(volume, options.storage_options), level=options.input.level)
    expect_grey(opened, STUDENTS)
    region = region_box(options.input.roi, opened)
    sees = dimensions(opened, region, distilling.volumetric, distilling.seed)
    size = "medium" if distilling.size == AUTO else distilling.size
    spec = student_spec(size, sees)
    default = GPU_MINUTES if options.placed()[0].engine.device == "cuda" else MINUTES
    minutes = distilling.minutes or default
    others = "" if distilling.size != AUTO else " (auto may choose another size)"
    return stand_in(teacher, spec), (
        f"There is no student yet: measured with a {size} one of random weights{others}."
        f" Distilling takes about {minutes:g} min more."
    )


def _plan_student(task: Task, plan: Plan, size: str, spec: StudentSpec, backend: str) -> StudentPlan:
    """Return what one student would cost."""
    job, engine = task.job, task.spec
    model = stand_in(task.prepared.model, spec)
    student = model.classifier
    assert isinstance(student, StudentClassifier)
    lattice = run_lattice(job.volume.shape, student, engine.device)
    per_computed = _measure(student, lattice, engine.device, backend)
    window = prod(c + 2 * around for c, around in zip(lattice.cell, spec.network_halo, strict=True))
    cells = prod(-(-length // c) for length, c in zip(lattice.shape, lattice.cell, strict=True))
    network = per_computed * window * cells / prod(lattice.shape)
    grid = BlockGrid(job.volume.shape, student_tiles(lattice), job.volume.chunks)
    blocks = grid.inside(job.region)
    # A student labels what is done with the model again: it is another run.
    voxels = plan.voxels * (plan.blocks + plan.done) / plan.blocks
    at_once = min(task.workers, len(blocks))
    threads = cpus() if engine.serial and engine.device == "cpu" else 1
    if not engine.remote and engine.device == "cpu":
        at_once = min(at_once, cpus())
    busy = network / threads
    each = busy + plan.machinery_s
    if not engine.serial and (at_once < cpus() or engine.device == "cuda"):  # one block is read while another
        each = max(busy, each / 2)  # is computed
    trained = per_computed if backend == TORCH else _measure(student, lattice, engine.device, TORCH)
    training = _training_seconds(spec, trained, engine.device)
    if learns_from_cubes(spec):
        training += _planes_seconds(task, lattice.shape)
    return StudentPlan(
        size=size,
        kflop=flop_per_voxel(spec, len(model.classes)) / 1e3,
        network_s=network,
        seconds=plan.start_s + voxels * each / at_once + plan.pyramid_s,
        distil_s=_labelling_seconds(task, plan) + training,
        worker_memory=_memory(task, grid, blocks, lattice, spec),
    )


def _measure(student: StudentClassifier, lattice: Lattice, device: str, backend: str) -> float:
    """Return the seconds per computed voxel of a window: of a thread's CPU, or of the GPU."""
    spec = student.spec
    cell = _smaller(lattice.cell, spec)
    shape = [c + 2 * around for c, around in zip(cell, spec.halo, strict=True)]
    window = np.random.default_rng(0).random(shape, np.float32)
    runner = StudentRunner(student, device, backend)
    clock: Callable[[], float] = time.thread_time if device == "cpu" else time.monotonic

    def predict(values: NDArray[np.float32]) -> float:
        began = clock()
        scores = runner.scores(values)
        to_host(scores.placed(most_likely(scores.values, student.classes)))
        return clock() - began

    first, *steady = runner.each(predict, [window] * 3)  # the first prepares what depends on the shape
    computed = prod(c + 2 * around for c, around in zip(cell, spec.network_halo, strict=True))
    return min(first, *steady) / computed


def _smaller(cell: Shape3, spec: StudentSpec) -> Shape3:
    """Return a cell, made smaller along y and x where its window is too large for a quick measurement."""
    z, y, x = cell
    while True:
        window = prod(c + 2 * around for c, around in zip((z, y, x), spec.halo, strict=True))
        if window <= _WINDOW or max(y, x) <= max(spec.alignment[1], 128):
            return z, y, x
        step = spec.alignment[1]
        y, x = (side if side < max(y, x) else -(-side // (2 * step)) * step for side in (y, x))


def _memory(
    task: Task, grid: BlockGrid, blocks: NDArray[np.int64], lattice: Lattice, spec: StudentSpec
) -> int:
    """Return the peak memory of a worker in bytes."""
    job = task.job
    itemsize, classes = job.volume.dtype.itemsize, len(task.prepared.model.classes)
    window = prod(c + 2 * around for c, around in zip(lattice.cell, spec.network_halo, strict=True))
    threads = cpus() if task.spec.serial else 1
    kinds = classes * job.predicting.probabilities + job.predicting.uncertainty
    per_voxel = 2 * itemsize + _BLOCKS + 2 * kinds
    cache = choose_cache(job.volume, grid, blocks, job.region, task.spec, job.cache.scratch)
    capacity = cache.capacity if cache.scratch is None else 0
    decoded = job.volume.decoded_itemsize
    reads = simulate_reads(grid, blocks, job.region, decoded, workers=1, capacity=capacity, most=_VISITS)
    return round(
        WORKER_BYTES
        + threads * _LIVE * window * bytes_per_voxel(spec, classes)
        + per_voxel * prod(grid.side)
        + reads.held
    )


def _labelling_seconds(task: Task, plan: Plan) -> float:
    """Return the seconds for labelling tiles with the model, as many as a distillation labels by default."""
    default = GPU_MINUTES if task.spec.device == "cuda" else MINUTES
    grid = task.grid
    tiles = max(1, round(prod(grid.side[1:]) / task.prepared.model.recipe.tiles.core**2))
    of_tile = plan.block_s / (grid.side[0] * tiles)
    return max(60 * LABELLING * default, FEWEST * of_tile / task.workers)


def _planes_seconds(task: Task, shape: Shape3) -> float:
    """Return the seconds for training a student of planes that labels cubes, and for these."""
    planes, device = student_spec("small"), task.spec.device
    student = stand_in(task.prepared.model, planes).classifier
    assert isinstance(student, StudentClassifier)
    per_voxel = _measure(student, run_lattice(shape, student, device), device, TORCH)
    voxels = min(3 * MOST * SIDE**3, 3 * prod(shape))
    threads = 1 if device == "cuda" else cpus()
    return _training_seconds(planes, per_voxel, device) + voxels * per_voxel / threads


def _training_seconds(spec: StudentSpec, per_voxel: float, device: str) -> float:
    """Return the seconds for training a student in this process."""
    shape = crop_shape(spec)
    crops = shape.count * prod(shape.side)
    threads = 1 if device == "cuda" else min(cpus(), THREADS)
    return steps_of(spec, FitSettings().steps) * crops * _BACKWARD * per_voxel / threads
