"""Define the errors that hrvol raises deliberately.

::

    HrvolError                 exit code 1
    ├── UsageError             exit code 2   the request itself is wrong
    │   ├── RecipeError                      a recipe has an unknown field or a bad value
    │   ├── WorkflowError                    a workflow file has one, or names files that do not exist
    │   └── MissingExtraError                an optional dependency is not installed
    ├── InputError             exit code 1   a file or array is not as needed
    │   ├── UnreadableError                  a part of a file cannot be read at present
    │   ├── StrokesError                     strokes do not fit their volume, or cannot train
    │   └── ModelError                       a *.hrvol file is damaged or does not fit
    ├── WeightsError           exit code 1   network weights are missing or do not match the model
    ├── DeviceError            exit code 1   a requested GPU is not available, or is used twice
    ├── EngineError            exit code 1   no worker can be started, or no scheduler answers
    ├── OutputExistsError      exit code 1   the output exists already
    │   ├── OtherRunError                    an unfinished output has other settings
    │   └── BusyError                        another process is writing the output
    ├── ResourceError          exit code 1   memory, disk or permissions do not suffice
    ├── BlockError             exit code 1   blocks of a run failed
    ├── SeriesError            exit code 1   steps of a workflow failed
    ├── ServerError            exit code 1   a server of a session cannot be reached at present
    └── StoppedError           exit code 75  stopped on request; can be resumed

A message is one line: the file, the value found and the value expected.
"""

from hrvol.text import printable

_LONGEST = 1000  # characters of a message


class HrvolError(Exception):
    """Base of all deliberate errors; the command line prints its message and no traceback.

    Attributes
    ----------
    exit_code
        Of the command line.
    transient
        Whether a retry may succeed.
    ends_run
        Whether all other blocks of a run would fail for the same reason.
    """

    exit_code = 1
    transient = False
    ends_run = False

    def __str__(self) -> str:
        """Return the message on one line; what a terminal would obey is escaped, as messages quote files."""
        return printable(" ".join(super().__str__().split()), _LONGEST)


class UsageError(HrvolError):
    """The request itself is wrong, whatever the data are (exit code 2)."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe file is not valid YAML, or has an unknown key or a wrong value."""


class WorkflowError(UsageError):
    """A workflow file is not valid YAML, has an unknown key or a wrong value, or names no volumes."""


class MissingExtraError(UsageError):
    """A feature needs an optional dependency; the message names the extra to install."""


class InputError(HrvolError):
    """A file or array is not of the kind, shape or type that is needed."""


class UnreadableError(InputError):
    """A part of a file cannot be read: it is damaged, or its file system does not respond."""

    transient = True


class StrokesError(InputError):
    """Strokes do not fit their volume, or are too few to train on."""


class ModelError(InputError):
    """A model file is damaged, or does not fit the data or weights that it is used with."""

    ends_run = True


class WeightsError(HrvolError):
    """Network weights could not be obtained, or do not match the model."""

    ends_run = True


class DeviceError(HrvolError):
    """A requested GPU is not available, or two workers use the same one."""

    ends_run = True


class EngineError(HrvolError):
    """Workers cannot be started, or the scheduler of a running cluster does not answer."""


class OutputExistsError(HrvolError):
    """The output exists already; nothing was written."""


class OtherRunError(OutputExistsError):
    """The output was started with other settings or another input; the message has the difference."""


class BusyError(OutputExistsError):
    """Another process is writing the output."""


class ResourceError(HrvolError):
    """Memory, disk space or permissions do not suffice; nothing was started."""


class BlockError(HrvolError):
    """Blocks of a run failed; the message lists them."""


class SeriesError(HrvolError):
    """Steps of a workflow failed; the message names the first one."""


class ServerError(HrvolError):
    """A server of a session cannot be reached at present, or does not answer in time."""

    transient = True


class StoppedError(HrvolError):
    """Stopped before the end; the run can be resumed (exit code 75; 130 after Ctrl-C)."""

    exit_code = 75

    def __init__(self, message: str, exit_code: int = 75) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def one_line(error: BaseException) -> str:
    """Return an exception as one line, with the name of its type unless it is an :class:`HrvolError`."""
    if isinstance(error, HrvolError):
        return str(error)
    text = printable(" ".join(str(error).split()), _LONGEST)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or the name of its type if there is no message."""
    return printable((str(error).strip().splitlines() or [type(error).__name__])[0])
