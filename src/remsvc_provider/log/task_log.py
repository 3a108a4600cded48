"""The texts by which a task's log tells of its commands."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from remsvc.printable import printable

if TYPE_CHECKING:
    from remsvc.client.options import ConnectionOptions
    from remsvc_provider.outcome import CommandReport

TAIL_LINES = 20
TAIL_CHARACTERS = 4000
COMMAND_CHARACTERS = 500
SHOWN_ID = 100
"""Characters of a job's id. Our servers give 20."""

# What a program sends that thinks it talks to a terminal (ECMA-48, in 7 bits and in 8): colours and cursor
# movements; window titles and device control strings, where their end is on the same line; character sets;
# and single commands such as those that save and restore the cursor. None goes on over the beginning of
# another: so no character is looked at more than a few times, whatever a command prints.
_ANSI_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\n\x1b\x90\x98\x9b-\x9f]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]"
)
_BEGIN_OF_SEQUENCE = "\x1b\x90\x98\x9b\x9d\x9e\x9f"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]+")
_WRITTEN_OUT = {code: chr(code).encode("unicode_escape").decode() for code in [*range(0xA0), 0x2028, 0x2029]}
GROUP, END_GROUP = "::group::", "::endgroup::"
"""Where a record has one of these anywhere, Airflow's page takes all of it for the beginning or the end of a
group that folds, and shows nothing else of it."""
_GROUP_MARK = re.compile(r"::(?=(?:end)?group::)")  # one may begin in another's end
LONGEST_SEQUENCE = 2_048
"""Characters of a sequence that is surely not taken apart where a text is cut: a link has its address in one.
Around a longer one, the halves of a secret would not be known for what they are."""


def clean(text: str) -> str:
    """``text`` without terminal sequences, with what was written over another time as it was at last, and
    with other control characters written out, and marks of groups."""
    text = _ANSI_SEQUENCE.sub("", text)
    if "\r" in text:
        text = "\n".join(map(last_state, text.split("\n")))
    text = _CONTROL.sub(lambda match: match.group().translate(_WRITTEN_OUT), text)
    return without_groups(text)


def without_groups(text: str) -> str:
    """``text`` with marks of groups written so that they are none."""
    return _GROUP_MARK.sub(r"\\x3a:", text)


def shown_id(job_id: str) -> str:
    """A job's id, as a server gave it, for one line of a log."""
    return printable(job_id, limit=SHOWN_ID)


def last_state(line: str) -> str:
    """A line that was written again and again from its beginning, as progress bars are, as it was at last."""
    return line.rstrip("\r").rpartition("\r")[2]


def whole_sequences(text: str, characters: int) -> int:
    """How much of the beginning of ``text``, about so many characters, can be taken without taking a terminal
    sequence apart."""
    begin = max(text.rfind(character, 0, characters) for character in _BEGIN_OF_SEQUENCE)
    if begin < 0 or characters - begin > LONGEST_SEQUENCE:
        return characters
    found = _ANSI_SEQUENCE.match(text, begin)
    if found is None or found.end() <= characters:
        return characters
    return begin or min(found.end(), characters + LONGEST_SEQUENCE)


def one_line(text: str) -> str:
    """A command's text on one line, shortened."""
    line = clean(text).strip().replace("\n", "\\n").replace("\t", " ")
    return line if len(line) <= COMMAND_CHARACTERS else line[:COMMAND_CHARACTERS] + " ..."


def tail(text: str, *, lines: int = TAIL_LINES, characters: int = TAIL_CHARACTERS) -> list[str]:
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
