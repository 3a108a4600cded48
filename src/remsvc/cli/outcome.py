"""What becomes of a verb's errors: each of ours is one line on standard error, and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from remsvc.cli.exit_codes import FAILURE, INTERRUPTED, UNREAD, USAGE
from remsvc.cli.terminal import error_line
from remsvc.errors import ConfigurationError, InvalidCommandError, RemSvcError


@contextmanager
def errors_told(*others: type[Exception]) -> Iterator[None]:
    """Around a verb: whatever it raises is told and ends the program, except for ``others``."""
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
        sys.exit(FAILURE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        _forget_output()
        sys.exit(UNREAD)
    except OSError as error:
        error_line(str(error))
        sys.exit(FAILURE)
    except Exception:  # noqa: BLE001 - a defect must not look like the exit code of a command
        import traceback  # slow to load

        traceback.print_exc(file=sys.stderr)
        sys.exit(FAILURE)


def _forget_output() -> None:
    """Nobody reads it: what is left of it must not fail once more when the program ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
