"""Makes lines for a task's log of an output's text: without secrets, and without what is for a terminal."""

from __future__ import annotations

from remsvc_provider.log.terminal_text import LONGEST_SEQUENCE, clean, last_state, whole_sequences
from remsvc_provider.masking import Masking

LINE_CHARACTERS = 4000
"""A longer line is broken."""


class LogLines:
    """Makes a log's lines of a text that comes in pieces.

    The beginning of a long line is given out before its end is there, except for what a secret or a terminal
    sequence may have begun in: neither is taken apart, unless a sequence is longer than ``LONGEST_SEQUENCE``.
    A secret is found as it was printed, and again when what is for a terminal has been removed: a program may
    colour a part of it.

    Args:
        masking: of the secrets.
    """

    def __init__(self, masking: Masking) -> None:
        self._masking = masking
        self._line = ""
        """What has come of the last line, as it was printed."""
        self._held_back = ""
        """What is before it on the same line, as it is to be shown."""
        self._after_gap = False

    def feed(self, text: str) -> list[str]:
        """Take the next piece; the lines that can be shown now."""
        lines, newline, self._line = (self._line + text).rpartition("\n")
        shown = self._finished(lines, cut=False) if newline else []
        if "\r" in self._line:  # a progress bar: of a line that is written again, only the last state counts
            end = "\r" if self._line.endswith("\r") else ""
            self._line = last_state(self._line) + end
            self._held_back = ""
        if len(self._line) > LINE_CHARACTERS + LONGEST_SEQUENCE + self._masking.longest:
            shown += self._begun()
        return shown

    def cut(self) -> list[str]:
        """Take notice that what follows is left out, maybe from the middle of a line on. Returns the line
        as far as it has come."""
        shown = self._rest(cut=True)
        self._after_gap = True
        return shown

    def end(self) -> list[str]:
        """Take notice that nothing follows. Returns the last line, if it did not end with a newline."""
        return self._rest(cut=False)

    def _rest(self, *, cut: bool) -> list[str]:
        line, self._line = self._line, ""
        return self._finished(line, cut=cut) if line or self._held_back else []

    def _finished(self, lines: str, *, cut: bool) -> list[str]:
        """Lines that have come to their end, the first of which may have been given out in part."""
        begin, self._after_gap = self._after_gap, False
        text = clean(self._held_back + self._masking.cut(lines, begin=begin, end=cut))
        self._held_back = ""
        text = self._masking.cut(text, begin=begin, end=cut)
        return [piece.rstrip() for line in text.split("\n") for piece in _pieces(line)]

    def _begun(self) -> list[str]:
        """What can be given out of a long line that goes on."""
        masked, rest = self._masking.begun(self._line)
        size = whole_sequences(masked, max(len(masked) - LONGEST_SEQUENCE, 0))
        self._line = masked[size:] + rest
        self._held_back = clean(self._held_back + masked[:size])
        if len(self._held_back) <= LINE_CHARACTERS + self._masking.longest:
            return []
        if self._after_gap:
            self._after_gap = False
            self._held_back = self._masking.cut(self._held_back, end=False)
        text, rest = self._masking.begun(self._held_back)
        *shown, last = _pieces(text)
        self._held_back = last + rest
        return [piece.rstrip() for piece in shown]


def _pieces(line: str) -> list[str]:
    """A line, broken where it is too long."""
    return [line[at : at + LINE_CHARACTERS] for at in range(0, len(line), LINE_CHARACTERS)] or [""]
