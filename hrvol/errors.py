"""Every error that hrvol raises on purpose.

::

    HrvolError                 exit code 1
    ├── UsageError             exit code 2   the request itself makes no sense
    │   ├── RecipeError                      a recipe has an unknown field or a bad value
    │   └── MissingExtraError                an optional dependency is not installed
    ├── InputError             exit code 1   a file or array is not what is needed
    │   ├── UnreadableError                  a part of a file cannot be read, at least now
    │   ├── StrokesError                     strokes do not fit their volume, or cannot train
    │   └── ModelError                       a *.hrvol file is damaged or made with other weights
    ├── WeightsError           exit code 1   network weights are not to be had, or are not the right ones
    ├── DeviceError            exit code 1   a GPU is wanted and not to be had, or two workers have the same
    ├── OutputExistsError      exit code 1   an output is in the way
    │   ├── OtherRunError                    an unfinished output was begun with other settings
    │   └── BusyError                        another process is writing the output
    ├── ResourceError              exit code 1   memory, disk or permissions do not suffice
    ├── BlockError             exit code 1   blocks of a run failed
    └── StoppedError           exit code 75  stopped on request; can be resumed

A message is one line that names the file, what was found and what was expected.
"""


class HrvolError(Exception):
    """Base of all deliberate errors; the command line prints its message and no traceback.

    Attributes
    ----------
    exit_code
        Of the command line.
    transient
        Whether the same may succeed when it is tried again.
    ends_run
        Whether a block that fails for this reason tells that every block will.
    """

    exit_code = 1
    transient = False
    ends_run = False


class UsageError(HrvolError):
    """The request itself makes no sense (exit code 2)."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe has an unknown field or a value out of range."""


class MissingExtraError(UsageError):
    """A feature needs an optional dependency; the message names the extra to install."""


class InputError(HrvolError):
    """A file or array is not what is needed."""


class UnreadableError(InputError):
    """A part of a file cannot be read: it is damaged, or its file system does not answer."""

    transient = True


class StrokesError(InputError):
    """Strokes do not fit their volume, or hold too little to train on."""


class ModelError(InputError):
    """A model file is damaged, or does not fit what it is used with."""

    ends_run = True


class WeightsError(HrvolError):
    """Network weights are not to be had, or are not the ones expected."""

    ends_run = True


class DeviceError(HrvolError):
    """A GPU is wanted and not to be had, or two workers have the same."""

    ends_run = True


class OutputExistsError(HrvolError):
    """An output is in the way; nothing was written."""


class OtherRunError(OutputExistsError):
    """An output was begun with other settings, or from another input; the message names the difference."""


class BusyError(OutputExistsError):
    """Another process is writing the output."""


class ResourceError(HrvolError):
    """Memory, disk space or permissions do not suffice; nothing was begun."""


class BlockError(HrvolError):
    """Blocks of a run failed; the message lists them."""


class StoppedError(HrvolError):
    """Stopped before the end; the run can be resumed (exit code 75; 130 after Ctrl-C)."""

    exit_code = 75

    def __init__(self, message: str, exit_code: int = 75) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def one_line(error: BaseException) -> str:
    """Return an exception as one line, with the name of its type unless it is an :class:`HrvolError`."""
    text = " ".join(str(error).split())
    if isinstance(error, HrvolError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or the name of its type if there is no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
