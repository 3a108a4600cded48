"""Turns whatever a verb raises into one line on standard error and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from remsvc.cli.exit_codes import FAILURE, INTERRUPTED, UNREAD, USAGE
from remsvc.cli.standard_streams import forget_output
from remsvc.cli.terminal import error_line
from remsvc.errors import ConfigurationError, InvalidCommandError, RemSvcError


@contextmanager
def errors_told(*others: type[Exception]) -> Iterator[None]:
    """A block around a verb: whatever it raises, except ``others``, is told and ends the program."""
    try:
        yield
    except others:
        raise
    except ConfigurationError as error:
        for problem in error.problems:
            error_line(problem)
        sys.exit(USAGE)
    except InvalidCommandError as error:
        error_line(str(error))
        sys.exit(USAGE)
    except RemSvcError as error:
        error_line(str(error))
        forget_output()
        sys.exit(FAILURE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        forget_output()
        sys.exit(UNREAD)
    except OSError as error:
        error_line(str(error) if error.filename else error.strerror or str(error))
        forget_output()
        sys.exit(FAILURE)
    except Exception as error:  # noqa: BLE001 - a defect must not look like the exit code of a command
        if _came_of_interruption(error):
            sys.exit(INTERRUPTED)
        if os.environ.get("REMSVC_TRACEBACK"):
            import traceback  # slow to load

            traceback.print_exc(file=sys.stderr)
        error_line(f"internal error: {type(error).__name__}: {error} (REMSVC_TRACEBACK=1 shows where)")
        forget_output()
        sys.exit(FAILURE)


def _came_of_interruption(error: BaseException) -> bool:
    """Whether an error came up while Ctrl-C was handled, which may come at any step."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__context__
    return cause is not None
