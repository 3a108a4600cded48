"""The limits of each field of a request, in one table for servers and clients.

Each limit leaves much more room than the field needs. All servers have the same limits, so a client can say
what is too large before anything is sent.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from remsvc.errors import InvalidCommandError

Unit = Literal["bytes", "characters", "entries"]


@dataclass(frozen=True, slots=True)
class Limit:
    """The most that a field may hold.

    Attributes:
        field: its name in error texts.
        most: how much it may hold, in ``unit``.
        unit: what is counted. The bytes of a text are those of its UTF-8.
        why: what may need so much, for the documentation.
    """

    field: str
    most: int
    unit: Unit
    why: str

    def check(self, value: str | bytes | Collection[object]) -> None:
        """Raises :class:`InvalidCommandError` where ``value`` holds more, naming the field and the limit."""
        size = len(value)
        # A character has one to four bytes in UTF-8, so most texts need not be encoded to be measured.
        if self.unit == "bytes" and isinstance(value, str) and 4 * size > self.most >= size:
            size = len(value.encode("utf-8", "surrogatepass"))
        if size > self.most:
            raise self.error(size)

    def error(self, size: int) -> InvalidCommandError:
        """The error for a value of this ``size``."""
        return InvalidCommandError(f"{self.field}: expected at most {self.most} {self.unit}, not {size}")


_SURROGATE = re.compile("[\ud800-\udfff]")

_ARGUMENT = 131_071
_ARGUMENT_WHY = "the longest argument that Linux starts a program with"
_SOURCE_WHY = "a path; it stands in every log line of the command"

_NOT_FOUND_WHY = "what a server never gave is not found, rather than refused"

# Wire version 1
CMD = Limit("cmd", _ARGUMENT, "bytes", _ARGUMENT_WHY)
CMDUSR = Limit("cmdusr", 16 * 1024, "bytes", "a name that nobody has is answered, not refused")
SRC = Limit("src", 4096, "bytes", _SOURCE_WHY)
DATA = Limit("data", 1024 * 1024, "bytes", "a ping's load, which comes back")

# Jobs
REQUEST_ID = Limit("request_id", 128, "characters", "printable ASCII")
ID = Limit("id", 4096, "bytes", _NOT_FOUND_WHY)
SOUGHT_REQUEST_ID = Limit("request_id", 4096, "bytes", _NOT_FOUND_WHY)
SHELL_COMMAND = Limit("shell_command", _ARGUMENT, "bytes", _ARGUMENT_WHY)
ARGV = Limit("argv", 32_768, "entries", "a long list of files")
ARGUMENT = Limit("an argument in argv", _ARGUMENT, "bytes", _ARGUMENT_WHY)
ENVIRONMENT = Limit("environment", 4096, "entries", "far more variables than a login has")
VARIABLE_NAME = Limit("the name of a variable in environment", 1024, "bytes", "the longest names in use")
VARIABLE = Limit("a variable in environment", _ARGUMENT, "bytes", "name, = and value: as an argument")
ARGUMENTS = Limit(
    "arguments and variables together",
    2 * 1024 * 1024,
    "bytes",
    "what Linux starts a program with by default",
)
USER = Limit("user", 256, "bytes", "the longest name of a user on Linux")
WORKING_DIRECTORY = Limit("working_directory", 4095, "bytes", "the longest path on Linux")
SOURCE = Limit("source", 4096, "bytes", _SOURCE_WHY)
STANDARD_INPUT = Limit("standard_input", 1024 * 1024, "bytes", "what comes before the command can read more")
LABELS = Limit("labels", 32, "entries", "of a job, or of a search")
LABEL_KEY = Limit("the key of a label", 63, "characters", "as other systems have it")
LABEL_VALUE = Limit("the value of a label", 255, "characters", "as other systems have it")
REASON = Limit("reason", 4096, "bytes", "a sentence; the first 500 characters are kept")
PAGE_TOKEN = Limit("page_token", 1024, "bytes", "a token that a server has given")
STATES = Limit("states", 64, "entries", "all states, and some of them again")

LIMITS: Mapping[str, tuple[Limit, ...]] = {
    "RemCmdMsg": (CMD, CMDUSR, SRC),
    "PingMsg": (DATA,),
    "JobSpec": (
        *(SHELL_COMMAND, ARGV, ARGUMENT, ENVIRONMENT, VARIABLE_NAME, VARIABLE, ARGUMENTS),
        *(USER, WORKING_DIRECTORY, SOURCE, STANDARD_INPUT, LABELS, LABEL_KEY, LABEL_VALUE),
    ),
    "CreateJobRequest": (REQUEST_ID,),
    "GetJobRequest": (ID, SOUGHT_REQUEST_ID),
    "ListJobsRequest": (PAGE_TOKEN, STATES, LABELS, LABEL_KEY, LABEL_VALUE),
    "CancelJobRequest": (ID, REASON),
    "WatchJobRequest": (ID,),
}
"""The whole table, by the messages that the fields belong to.

A hash has no limit of its own: whatever is not the right eight digits is refused as a mismatch.
"""


def check_text(name: str, value: object, limit: Limit | None = None) -> None:
    """Check that ``value`` is text which can be sent, and which a program can be given.

    Args:
        name: of the field, for the error.
        value: anything; it may come from anybody.
        limit: the field's limit; None where its size is checked together with that of others.

    Raises:
        InvalidCommandError: naming the field. The value is not quoted: it may be a secret.
    """
    if not isinstance(value, str):
        raise InvalidCommandError(f"{name} must be a string, not {type(value).__name__}")
    if "\0" in value:
        raise InvalidCommandError(f"{name} must not contain a NUL character")
    check_unicode(name, value)
    if limit is not None:
        limit.check(value)


def is_request_id(text: str) -> bool:
    """Whether text has 1 to 128 printable ASCII characters."""
    return 1 <= len(text) <= REQUEST_ID.most and text.isascii() and text.isprintable()


def check_unicode(name: str, text: str) -> None:
    """Check that text can be encoded as UTF-8. Raises :class:`InvalidCommandError`, naming the field."""
    if _SURROGATE.search(text):
        raise InvalidCommandError(f"{name} is not valid Unicode text: it has a lone surrogate")


def check_arguments(argv: Collection[str], environment: Mapping[str, str]) -> None:
    """Check a program's arguments and variables, one by one and all together.

    Raises:
        InvalidCommandError: naming what is too large.
    """
    ARGV.check(argv)
    ENVIRONMENT.check(environment)
    total = 0
    for argument in argv:
        ARGUMENT.check(argument)
        total += _encoded(argument)
    for name, value in environment.items():
        VARIABLE_NAME.check(name)
        size = _encoded(name) + 1 + _encoded(value)
        if size > VARIABLE.most:
            raise InvalidCommandError(f"environment: {name!r}: {VARIABLE.error(size)}")
        total += size
    if total > ARGUMENTS.most:
        raise ARGUMENTS.error(total)


def check_labels(labels: Mapping[str, str]) -> None:
    """Check labels. Raises :class:`InvalidCommandError`, naming the key."""
    LABELS.check(labels)
    for key, value in labels.items():
        if not 1 <= len(key) <= LABEL_KEY.most:
            raise InvalidCommandError(
                f"labels: {key[: LABEL_KEY.most]!r}: expected a key of 1 to {LABEL_KEY.most} characters, "
                f"not {len(key)}"
            )
        if len(value) > LABEL_VALUE.most:
            raise InvalidCommandError(
                f"labels: {key!r}: expected a value of at most {LABEL_VALUE.most} characters, "
                f"not {len(value)}"
            )
        if "\0" in key or "\0" in value:
            raise InvalidCommandError(f"labels: {key!r}: expected no NUL character")


def _encoded(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
