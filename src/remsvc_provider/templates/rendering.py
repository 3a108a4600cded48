"""Renders the templates of commands into the very text that their author wrote.

Jinja takes away a text's final newline and turns CR LF into LF. Native rendering, which a DAG may ask for,
makes of ``3.10`` a number, and of a text in quotes one without. So what has to be text is rendered as text.
A field as a whole, and anything that may be a list or a dict, is rendered as the DAG wants it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Render = Callable[[Any], Any]

_NATIVE_KEYS = ("cmdtyp", "argv")
"""Keys of a command under which a template may stand for something that is not text."""

# With it at its end a text has no final newline, and is no literal of Python.
_END = "\0"

# A tag of Jinja, with the white space that it takes away ("-"). What is outside is passed on. White space is
# looked at from its beginning only, and a tag that does not end takes all of the rest: else the time would be
# in proportion to the square of a text's length.
_TAG = re.compile(r"(?:(?<!\s)\s*\{[{%#]-|\{[{%#]).*?(?:-[}%#]\}\s*|[}%#]\}|\Z)", re.DOTALL)


def renders_natively(task: Any) -> bool:
    """Whether a template of this task may give something other than text."""
    asked: bool | None = getattr(task, "render_template_as_native_obj", None)
    if asked is not None:
        return asked
    return bool(getattr(task.get_dag(), "render_template_as_native_obj", False))


def render_field(name: str, value: Any, render: Render) -> Any:
    """Render one of the operator's fields.

    Args:
        name: of the field.
        value: as the DAG has it.
        render: Airflow's own way, of any value.
    """
    if name == "commands" and isinstance(value, list | tuple):
        return [_command(command, render) for command in value]
    if name == "env":
        return _environment(value, render)
    if name == "metadata" and isinstance(value, list | tuple):
        return [
            tuple(_text(item, render) for item in pair) if isinstance(pair, list | tuple) else render(pair)
            for pair in value
        ]
    if name in ("cwd", "grpc_conn_id"):
        return _text(value, render)
    return render(value)


def _command(command: Any, render: Render) -> Any:
    if not isinstance(command, Mapping):
        return render(command)
    return {key: _entry(key, value, render) for key, value in command.items()}


def _entry(key: Any, value: Any, render: Render) -> Any:
    if key == "env":
        return _environment(value, render)
    if key == "argv" and isinstance(value, list | tuple):
        return [_text(argument, render) for argument in value]
    if key == "input" and isinstance(value, str):
        rendered = render(value)
        # A template may give bytes, where it is rendered natively.
        return rendered if isinstance(rendered, bytes) else _text(value, render)
    return render(value) if key in _NATIVE_KEYS else _text(value, render)


def _environment(env: Any, render: Render) -> Any:
    if not isinstance(env, Mapping):
        return render(env)
    return {name: _text(value, render) for name, value in env.items()}


def _text(value: Any, render: Render) -> Any:
    """What a template gives as text; anything but text is rendered in Airflow's way."""
    if not isinstance(value, str):
        return render(value)
    if "\0" in value:
        return value  # cannot be sent, and the check says so
    if "\r" not in value:
        return render(value + _END)[: -len(_END)]
    stand_in = _not_in(value)
    kept = "".join(part if _TAG.fullmatch(part) else part.replace("\r", stand_in) for part in _parts(value))
    return render(kept + _END)[: -len(_END)].replace(stand_in, "\r")


def _parts(text: str) -> list[str]:
    """The tags of a template, and what is between them."""
    parts, end = [], 0
    for tag in _TAG.finditer(text):
        parts += [text[end : tag.start()], tag.group()]
        end = tag.end()
    return [*parts, text[end:]]


def _not_in(text: str) -> str:
    """A character for private use that the text does not have."""
    return next(character for character in map(chr, range(0xE000, 0xF8FF)) if character not in text)
