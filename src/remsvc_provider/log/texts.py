"""The texts by which a task's log tells of its commands, its jobs and its connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remsvc.printable import printable
from remsvc_provider.log.terminal_text import LONGEST_SEQUENCE, clean

if TYPE_CHECKING:
    from remsvc.client.options import ConnectionOptions
    from remsvc_provider.outcome import CommandReport

LAST_LINES, LAST_CHARACTERS = 20, 4_000
"""Lines and characters at the end of an output that tell enough: shown of a command of version 1, and
repeated where a job has failed."""
COMMAND_CHARACTERS = 500
SHOWN_ID = 100
"""Characters of a job's id. Our servers give 20."""


def shown_id(job_id: str) -> str:
    """A job's id, as a server gave it, for one line of a log."""
    return printable(job_id, limit=SHOWN_ID)


def one_line(text: str) -> str:
    """A command's text on one line, shortened."""
    line = clean(text).strip().replace("\n", "\\n").replace("\t", " ")
    return line if len(line) <= COMMAND_CHARACTERS else line[:COMMAND_CHARACTERS] + " ..."


def tail(text: str, *, lines: int = LAST_LINES, characters: int = LAST_CHARACTERS) -> list[str]:
    """The last lines of an output, after a line that says how much was left out."""
    # An output may be long: only its end is looked at, and what a sequence may begin before it.
    end = clean(text[-characters - LONGEST_SEQUENCE :]).rstrip("\n")
    all_lines = end[-characters:].split("\n")
    kept = all_lines[-lines:]
    if not any(kept):
        return []
    if len(text) <= characters + LONGEST_SEQUENCE and len(end) <= characters and len(kept) == len(all_lines):
        return kept
    return [f"... ({len(text)} characters in all, this is their end)", *kept]


def security_text(options: ConnectionOptions) -> str:
    """How the connection is protected."""
    transport = "plaintext, no TLS"
    if options.tls:
        transport = "mutual TLS" if options.client_cert else "TLS"
    return f"{transport}, {'bearer token' if options.token else 'no token'}"


def failure_text(result: CommandReport) -> str:
    """A command that failed: which one, its exit code, and its last words."""
    tid = result["tid"]
    text = f"command {tid} (commands[{tid - 1}]) ended with rc {result['rc']}"
    last = tail(result["err"], lines=3, characters=300)
    return f"{text}: {' / '.join(last)}" if last else text


def without_nul(out: str, err: str) -> tuple[str, str, str]:
    """Both outputs as Airflow can store them (PostgreSQL's JSONB cannot hold a NUL), and a note if they
    were changed."""
    if "\0" not in out and "\0" not in err:
        return out, err, ""
    note = "the output had NUL characters, which Airflow cannot store; each became U+FFFD"
    return out.replace("\0", "\ufffd"), err.replace("\0", "\ufffd"), note


def command_report(
    tid: int, cmd: str, rc: int, out: str, err: str, seconds: float, *, notes: tuple[str, ...] = ()
) -> str:
    """Everything about one command, for one log call: a call costs the triggerer's event loop most of
    a millisecond, however much it says."""
    report = [f"Command {tid}: {one_line(cmd)}", f"ended with rc {rc} after {seconds:.2f} s"]
    report += [f"note: {note}" for note in notes]
    for name, text in (("out", out), ("err", err)):
        if lines := tail(text):
            report.append(f"{name}:")
            report += [f"  | {line}" for line in lines]
    return "\n".join(report)
