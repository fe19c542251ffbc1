"""Exit codes that scripts can rely on, and the one place where errors become words."""

from __future__ import annotations

import os
import sys
import traceback
from enum import IntEnum

import click


class Exit(IntEnum):
    """What `$?` says."""

    OK = 0
    FAILURE = 1
    """It was understood and could not be done."""
    USAGE = 2
    """The command line or the project's files are wrong."""
    NO_DAEMON = 3
    """Nothing runs for this project: `knlocal up` first."""
    NOT_FOUND = 4
    TIMEOUT = 5
    INTERNAL = 70
    """A bug in knlocal."""
    INTERRUPTED = 130


class CliError(Exception):
    """Something a person should read, and the exit code that goes with it."""

    def __init__(self, message: str, code: Exit = Exit.FAILURE, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.code, self.hint = message, code, hint


def say(error: BaseException) -> int:
    """Tell a person what went wrong, on standard error; returns the exit code."""
    if isinstance(error, CliError):
        _print(error.message, error.hint)
        return error.code
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if _is_interrupt(error):
        print(file=sys.stderr)
        return Exit.INTERRUPTED
    known = _known(error)
    if known is not None:
        _print(str(error))
        return known
    if os.environ.get("KNLOCAL_DEBUG"):
        traceback.print_exception(error)
    _print(
        f"internal error: {type(error).__name__}: {error}",
        "this is a bug in knlocal; KNLOCAL_DEBUG=1 shows where it happened",
    )
    return Exit.INTERNAL


def _is_interrupt(error: BaseException | None) -> bool:
    """Ctrl-C, also where it struck while a class was being made, which Python reports in its place
    as a RuntimeError (until 3.12)."""
    while error is not None:
        if isinstance(error, (KeyboardInterrupt, click.Abort)):
            return True
        error = error.__cause__
    return False


def _known(error: BaseException) -> Exit | None:
    """The exit code for errors whose text is already meant for people."""
    codes = {
        "ProjectError": Exit.USAGE, "StatusError": Exit.FAILURE, "BuildFailure": Exit.FAILURE,
        "NotASource": Exit.USAGE, "RuntimeFailure": Exit.FAILURE, "StateError": Exit.FAILURE,
    }  # fmt: skip
    # By name: importing all of them would slow every command down.
    for base in type(error).__mro__:
        if base.__module__.startswith("knlocal.") and base.__name__ in codes:
            return codes[base.__name__]
    return None


def _print(message: str, hint: str = "") -> None:
    first, *rest = message.splitlines() or [""]
    print(f"knlocal: {first}", file=sys.stderr)
    for line in rest:
        print(line, file=sys.stderr)
    if hint:
        print(f"  {hint}", file=sys.stderr)
