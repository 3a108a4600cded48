"""Makes text that was meant for a terminal fit for a task's log: no sequences, no control characters."""

from __future__ import annotations

import re

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
