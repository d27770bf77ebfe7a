"""What ended a command, as a sentence and an exit status."""

from __future__ import annotations

import errno

import click

from atlas_builder.errors import AtlasError
from atlas_builder.system.signals import STOPPED, Stopped, is_broken_pool


def failure(error: BaseException) -> tuple[str, int]:
    """The sentence to say and the status to exit with, for what ended a command."""
    if isinstance(error, AtlasError):
        return str(error), error.exit_status
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return STOPPED, error.exit_status if isinstance(error, Stopped) else Stopped().exit_status
    # NumPy reports a full disk without its number, by how much it could write.
    if isinstance(error, OSError) and (error.errno == errno.ENOSPC or " requested and " in str(error)):
        where = f" ({error.filename})" if error.filename else ""
        return f"The disk is full{where}: free some space and run the same command to continue.", 1
    if is_broken_pool(error):
        return (
            "A worker process was killed, most likely for lack of memory: free some and run the command again.",
            1,
        )
    if isinstance(error, MemoryError):
        return (
            "There is not enough memory: free some, or set a smaller examples.per_unit, and run the command again.",
            1,
        )
    if isinstance(error, OSError):
        return f"{error.filename or 'A file'}: {error.strerror or error}.", 1
    return f"{type(error).__name__}: {error} (this is a bug in Atlas Builder; --debug shows where).", 1
