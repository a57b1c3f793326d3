"""Label all blocks of a run."""

from __future__ import annotations

from hrvol.engine.spec import EngineSpec
from hrvol.engine.stop import Stop
from hrvol.progress import ProgressCallback
from hrvol.run.block import predict_block
from hrvol.run.drive_blocks import Work, drive_blocks
from hrvol.run.report import Run


def run_blocks(run: Run, spec: EngineSpec, stop: Stop, progress: ProgressCallback | None) -> None:
    """Predict the pending blocks, record the results, and build the coarser levels.

    The job of the run is a :class:`hrvol.run.job.SegmentJob`; parameters and errors are those of
    :func:`hrvol.run.drive_blocks.drive_blocks`.
    """
    drive_blocks(run, Work(predict_block, "segment"), spec, stop, progress)
