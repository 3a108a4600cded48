"""Makes text from somebody else safe to show: in a terminal, in a log, in the text of an error.

A caller, or a server that answers, chooses texts that a person reads elsewhere. Such a text must not control
that person's terminal, forge a line in a log, reverse the direction of writing, or fill the screen. It is
cleaned only where it is shown; programs get it unchanged.
"""

from __future__ import annotations

LONGEST = 4096
"""Characters that are shown of a text, where its place asks for no other length."""

# Controls (C0, DEL, C1), formats such as right-to-left overrides and invisible tags, surrogates, and the
# separators of lines and paragraphs.
_UNSAFE = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))


def printable(text: str, *, limit: int | None = LONGEST, keep: str = "") -> str:
    r"""``text`` on one line that steers nothing: a line end becomes ``\n``, ESC becomes ``\x1b``.

    What is printable stays as it is, a backslash too. Cleaning twice changes nothing more.

    Args:
        text: anything; it may come from anybody.
        limit: how many characters the result may have, at least 40. A longer one is cut, and says how long
        ``text``
            was. None: there is no limit.
        keep: control characters that stay, such as ``"\n\t"`` for a text of several lines.
    """
    if limit is None or len(text) <= limit:
        if text.isprintable():
            return text
        shown = _escape(text, keep)
        if limit is None or len(shown) <= limit:
            return shown
    else:
        shown = _escape(text[:limit], keep)  # what is beyond is not shown, and costs nothing
    note = f"… ({len(text)} characters)"
    return shown[: limit - len(note)] + note


def _escape(text: str, keep: str) -> str:
    from unicodedata import category  # slow to load, and rarely needed

    return "".join(
        [
            c
            if c.isprintable() or c in keep or category(c) not in _UNSAFE
            # A surrogate has no UTF-8, but an escape.
            else c.encode("unicode_escape").decode("ascii")
            for c in text
        ]
    )
