"""The command line: ``hrvol --help``.

Each command is a thin layer over a public function. Modules that need torch, Dask or stores are imported
inside the commands, so that ``hrvol --help`` is quick; this is the one documented exception to imports at
the top.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from hrvol import __version__
from hrvol.cli.clean import clean
from hrvol.cli.cluster import cluster
from hrvol.cli.common.output import debugging, echo, echo_lines, quiet_libraries
from hrvol.cli.common.streams import safe_streams
from hrvol.cli.convert import convert
from hrvol.cli.demo import demo
from hrvol.cli.detect import detect
from hrvol.cli.distil import distil
from hrvol.cli.doctor import doctor
from hrvol.cli.evaluate import evaluate
from hrvol.cli.export import export
from hrvol.cli.features import features
from hrvol.cli.info import info
from hrvol.cli.instances import instances
from hrvol.cli.measure import measure
from hrvol.cli.merge import merge
from hrvol.cli.pca import pca
from hrvol.cli.plan import plan
from hrvol.cli.pyramid import pyramid
from hrvol.cli.recipe import recipe
from hrvol.cli.report import report
from hrvol.cli.run import run_command
from hrvol.cli.segment import segment
from hrvol.cli.serve import serve
from hrvol.cli.similar import similar
from hrvol.cli.status import status
from hrvol.cli.strokes import strokes
from hrvol.cli.suggest import suggest
from hrvol.cli.train import train
from hrvol.cli.tune import tune
from hrvol.cli.weights import weights
from hrvol.engine.stop import INTERRUPTED, STOPPED, Abandoned, program_signals
from hrvol.errors import HrvolError, StoppedError
from hrvol.text import printable


class _Program(click.Group):
    """The group of commands; errors end as one line on standard error and an exit code.

    0 done, 1 failed, 2 wrong usage, 75 stopped but resumable, 130 interrupted.
    """

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the program; standalone, end the process with an exit code."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        with safe_streams():
            sys.exit(self._exit_code(args, prog_name or "hrvol", complete_var, **extra))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; click itself would end silently on these two."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            if sys.stderr.isatty():
                click.echo(err=True)  # the terminal has shown ^C
            raise Abandoned("SIGINT") from None
        except BrokenPipeError as error:  # of a connection: standard streams raise none
            raise HrvolError(f"{error.filename or 'connection'}: broken pipe") from error

    def _exit_code(
        self, args: Sequence[str] | None, prog_name: str, complete_var: str | None, **extra: Any
    ) -> int:
        """Run the program; print an error as one line and return the exit code."""
        try:
            with program_signals():
                code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
                return code if isinstance(code, int) else 0
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "hrvol"
            return _failed(
                f"{printable(error.format_message(), 600)} (see: {command} --help)", error.exit_code
            )
        except click.ClickException as error:
            return _failed(error.format_message(), error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            return _failed("interrupted", INTERRUPTED, kind="hrvol")
        except Abandoned as error:
            if str(error) == "SIGINT":
                return _failed("interrupted", INTERRUPTED, kind="hrvol")
            return _failed(f"stopped by {error}; run the same command to resume", STOPPED, kind="hrvol")
        except StoppedError as error:  # as requested: no error
            return _failed(str(error), error.exit_code, kind="hrvol")
        except HrvolError as error:
            return _failed(str(error), error.exit_code)
        except OSError as error:  # a full disk, a read-only folder: the system's message, no fault of hrvol
            file = f"{error.filename}: " if error.filename else ""
            return _failed(f"{file}{error.strerror or str(error) or type(error).__name__}", 1)
        except Exception as error:
            what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            return _failed(f"unexpected {what} (a fault in hrvol; HRVOL_DEBUG=1 shows where)", 1)


def _failed(message: str, code: int, kind: str = "hrvol: error") -> int:
    """Print one line (and with HRVOL_DEBUG the traceback) and return the exit code."""
    if debugging():
        echo_lines(traceback.format_exc(), err=True)
    echo(f"{kind}: {printable(' '.join(message.split()), 1000)}", err=True)
    return code


@click.group(
    cls=_Program,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="hrvol")
@click.pass_context
def main(context: click.Context) -> None:
    """Segment very large tomography volumes from a few strokes.

    \b
    A demonstration on synthetic data (a few minutes):
        hrvol demo

    \b
    On your own volume: draw a few strokes per class on a few planes (an integer image of the volume's
    shape, 0 = unlabelled; or points, ROIs, a project of ilastik: hrvol strokes), then
        hrvol info    volume.ome.zarr
        hrvol train   volume.ome.zarr strokes.tif -o phases.hrvol --classes pore,binder,particle
        hrvol segment volume.ome.zarr labels.ome.zarr -m phases.hrvol --engine local
        hrvol evaluate labels.ome.zarr truth.tif
        hrvol export labels.ome.zarr -o labels.tif

    \b
    Without strokes:
        hrvol cluster volume.ome.zarr classes.ome.zarr

    \b
    Many volumes, by one file:
        hrvol run series.yaml

    Volumes, strokes and labels may be Zarr 2 or 3 arrays, OME-Zarr images, or TIFF images and stacks; 2D
    images work everywhere.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 75 stopped but resumable, 130 interrupted.
    """  # noqa: D301 (click needs the escape)
    context.with_resource(quiet_libraries())
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


_COMMANDS = (
    *(demo, doctor, info, convert, weights, recipe, strokes, tune, train, distil, plan, segment, status),
    *(pyramid, cluster, merge, detect, similar, suggest, pca, evaluate, features, export, clean),
    *(instances, measure, report, serve, run_command),
)
for _command in _COMMANDS:
    main.add_command(_command)
