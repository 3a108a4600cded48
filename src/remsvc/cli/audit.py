"""``remsvc audit``: what the server's audit log proves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from remsvc.cli.terminal import error_line, print_json, warning_line
from remsvc.printable import printable

if TYPE_CHECKING:
    from remsvc.server.audit.chain import Head

_FILE = click.Path(path_type=Path)
_BROKEN = 1


@click.group()
def audit() -> None:
    """Check the server's audit log.

    \b
    Examples:
      remsvc audit verify /var/log/remsvc/audit.jsonl
    """


@audit.command()
@click.option("--head", "head_path", type=_FILE, help="Head of the last file.  [default: FILE.head]")
@click.option(
    "--key", "key_path", type=_FILE, help="Key of the head.  [default: FILE.key, where there is one]"
)
@click.option("--no-head", is_flag=True, help="Do not ask whether the end was cut off: there is no head.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.argument("files", type=_FILE, nargs=-1, required=True, metavar="FILE...")
def verify(
    files: tuple[Path, ...], head_path: Path | None, key_path: Path | None, no_head: bool, as_json: bool
) -> None:
    """Check that no line of an audit log was changed, removed, inserted or cut off.

    Name the files of a rotated log from the oldest to the newest. An older copy of a head, kept
    elsewhere, proves that up to its line nothing has been changed since.

    Exits 0 if the log holds, 1 if it does not, with a line for each thing that is wrong.

    \b
    Examples:
      remsvc audit verify /var/log/remsvc/audit.jsonl
      remsvc audit verify audit.jsonl.2 audit.jsonl.1 audit.jsonl
      remsvc audit verify --head /mnt/safe/monday.head /var/log/remsvc/audit.jsonl
    """
    from remsvc.server.audit.chain import verify as check

    for file in files:
        if file.is_dir():
            raise click.BadParameter(f"{str(file)!r} is a directory", param_hint="FILE")
    notes: list[str] = []
    problems: list[str] = []
    head = None
    if not no_head:
        head = _read_head(files[-1], head_path, key_path, notes, problems)
    report = check(files, head)
    problems += report.problems
    notes += report.notes
    if head is None and not report.closed and not no_head and not problems:
        problems.append(
            f"{files[-1]}: there is no head, and the server did not close the file: whether lines were "
            "cut off at its end is not known (--no-head: do not ask)"
        )
    if as_json:
        found = {"lines": report.lines, "first": report.first, "last": report.last}
        print_json({"valid": not problems, **found, "problems": problems, "notes": notes})
    else:
        for note in notes:
            warning_line(note)
        for problem in problems:
            error_line(problem)
        if not problems:
            click.echo(printable(f"{files[-1]}: valid: lines {report.first} to {report.last}"))
    click.get_current_context().exit(_BROKEN if problems else 0)


def _read_head(
    log: Path, head_path: Path | None, key_path: Path | None, notes: list[str], problems: list[str]
) -> Head | None:
    from remsvc.server.audit.chain import HEAD_SUFFIX, KEY_SUFFIX, Head, HeadError
    from remsvc.server.audit.file import read_key

    path = head_path or log.with_name(log.name + HEAD_SUFFIX)
    key_file = key_path or log.with_name(log.name + KEY_SUFFIX)
    key = None
    try:
        key = read_key(key_file)
    except FileNotFoundError:
        if key_path is not None:
            raise
    except PermissionError as error:
        if key_path is not None:
            raise
        notes.append(f"{key_file}: {error.strerror or error}")
    if head_path is None and not path.exists():
        if key is not None:
            problems.append(f"{path}: there is a key, but its head is gone")
        return None
    try:
        try:
            head = Head.decode(path.read_bytes(), key)
        except HeadError:  # it may have been read while it was written
            head = Head.decode(path.read_bytes(), key)
    except HeadError as error:
        problems.append(f"{path}: the head cannot be trusted: {error}")
        return None
    if key is None:
        notes.append(f"{path}: who made the head is not known without its key (--key)")
    return head
