"""Makes the text of a version-1 command from the words of a command line.

Version 1 has no fields for a directory, for variables or for an argument list. So they become lines that a
POSIX shell carries out before the command.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from remsvc.errors import InvalidCommandError

SHELLS = ("sh", "pwsh", "none")


def command_text(
    words: Sequence[str],
    shell: str = "sh",
    cwd: str | None = None,
    env: Sequence[tuple[str, str]] = (),
) -> str:
    """The text that runs ``words``.

    Args:
        words: joined with blanks, as ssh does, for the shell to interpret. With the shell
            ``none``: a program and its arguments, which reach it exactly as they are.
        shell: one of :data:`SHELLS`.
        cwd: the directory to run in; where it cannot be entered, nothing runs and the exit code is 255.
        env: variables to set: valid names, any values.

    Raises:
        InvalidCommandError: the combination cannot be expressed.
    """
    if shell == "pwsh" and (cwd is not None or env):
        raise InvalidCommandError("--cwd and --env need --shell sh or none on protocol version 1")
    lines = []
    if cwd is not None:
        lines.append(f"cd -P -- {shlex.quote(_directory(cwd))} || exit 255")
    lines += [f"export {name}={shlex.quote(value)}" for name, value in env]
    lines.append(_program(words) if shell == "none" else " ".join(words))
    return "\n".join(lines)


def _directory(cwd: str) -> str:
    if not cwd:
        raise InvalidCommandError("--cwd must not be empty")
    # cd takes "-" for the previous directory, and looks up other names in CDPATH: so it gets a path.
    return cwd if cwd.startswith("/") else f"./{cwd}"


def _program(words: Sequence[str]) -> str:
    if not words[0]:
        raise InvalidCommandError("the program's name must not be empty")
    if words[0].startswith("-"):
        raise InvalidCommandError(f"{words[0]!r} is not the name of a program")
    return f"exec {shlex.join(words)}"
