"""Which templates may be rendered in a triggerer: those that give the same there, each time, and at once.

A worker renders a task once, with all that Airflow offers. A triggerer is offered less, and in part something
else: ``ti.max_tries`` is 0 there, and ``ti.xcom_pull()`` waits for ever for an answer. And it renders once
more what it takes over from another triggerer. So a task may be started there only where its templates use
nothing but what is the same in both, each time.

It also has many other triggers to look after, which wait while C code runs, in whatever thread: ``9**9**9``
takes hours, ``'x' * 10**10`` all memory. So what follows lists what may stand in a template. None of it takes
longer than its text and its values are long: no loop, no variable, no arithmetic but + and -, and no filter
or method that makes a text of a width that is asked for. And none of it depends on the machine: on its clock,
time zone or language.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes

_DATES = frozenset({"logical_date", "data_interval_start", "data_interval_end"})
_DATE_TEXTS = frozenset({"ds", "ds_nodash", "ts", "ts_nodash", "ts_nodash_with_tz"})
_STORED = frozenset({"var", "conn"})
_VALUES = _DATES | _DATE_TEXTS | _STORED | {"run_id", "params"}
_TASK_INSTANCE = frozenset({"dag_id", "run_id", "task_id", "map_index", "try_number"})
_MEMBERS = {
    "ti": _TASK_INSTANCE,
    "task_instance": _TASK_INSTANCE,
    "dag_run": frozenset({"conf", "dag_id", "run_id"}),
    "dag": frozenset({"dag_id"}),
    "task": frozenset({"task_id"}),
}
_OF_DATES = frozenset(
    {"year", "quarter", "month", "day", "hour", "minute", "second", "microsecond", "days"}
    | {"day_of_week", "day_of_year", "week_of_month", "week_of_year", "days_in_month"}
    | {"int_timestamp", "float_timestamp"}
)
"""Members of a date, and of the time between two. Others tell the time of rendering, as ``age`` does."""
_NODES = frozenset(
    {nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.Const, nodes.List}
    | {nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Keyword, nodes.Slice, nodes.CondExpr, nodes.Compare}
    | {nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos, nodes.Add}
    | {nodes.Concat}
)
"""What may stand anywhere; what may under conditions: see :func:`_is_allowed`."""
_FILTERS = _DATE_TEXTS | frozenset(
    {"default", "d", "string", "int", "float", "length", "count", "first", "last"}
    | {"lower", "upper", "trim", "capitalize", "title", "tojson", "urlencode", "join", "replace"}
)
_TESTS = frozenset({"defined", "undefined", "none", "string", "number", "mapping", "true", "false"})
_FUNCTIONS = frozenset(
    # Known by their whole names: ``macros.json`` is a module, through which Python's others can be reached.
    {"macros.ds_add", "macros.ds_format", "macros.timedelta", "macros.json.dumps", "macros.json.loads"}
)
_METHODS = frozenset(
    # Of mappings, dates and texts. Which of them has it is not known: each costs little for any.
    {"get", "get_uri", "keys", "values", "items"}
    | {"add", "subtract", "strftime", "isoformat", "date", "time", "timestamp", "start_of", "end_of"}
    | {"in_timezone", "in_tz", "to_date_string", "to_datetime_string", "to_iso8601_string", "replace"}
    | {"lower", "upper", "title", "capitalize", "strip", "lstrip", "rstrip", "split", "rsplit", "splitlines"}
    | {"startswith", "endswith"}
)
_KINDS: tuple[type, ...] = (str, int, float, list, dict, type({}.keys()), timedelta)
_UNCALLED = frozenset(name for kind in _KINDS for name in dir(kind) if callable(getattr(kind, name)))
"""As text, a method that is not called tells where in memory its object is. Whatever has members may be one
of these; but what :data:`_MAPPINGS` lists has no methods but those of a dict."""
_MAPPINGS = frozenset({"params", "dag_run.conf", "var.value", "var.json", "conn"})
_GROWING = frozenset({"tojson", "urlencode", "join", "dumps"})
"""These multiply a text's length: none may be given what another of them made."""
LONGEST_ARGUMENT = 16
"""Characters that ``join`` may put between any two, and that ``rsplit`` and ``strip`` may look for."""
DEEPEST = 16
"""Nodes of a template, one in another. A text in a list that becomes a text again has twice as many
backslashes: this leaves room for six such lists, one in another."""

# Only what is a number everywhere, and has no width; "-" leaves leading zeros out.
_DATE_FORMAT = re.compile(r"(?:[^%]|%-?[mdyHIMSj]|%[YGUWVuwfzFT%])*", re.DOTALL)
# Not "local" and its like, which are the machine's.
_TIME_ZONE = re.compile(r"UTC|[A-Z]\w+(?:/[\w+-]+)+")


def is_template(text: str) -> bool:
    """Whether rendering may change the text."""
    return any(mark in text for mark in ("{{", "{%", "{#"))


def is_steady(template: str) -> bool:
    """Whether it gives the same wherever it is rendered, each time, and at once."""
    return _uses(template) is not None


def reads_secrets(template: str) -> bool:
    """Whether what it gives may hold a secret of Airflow's: of a Variable or a connection."""
    return bool(_STORED & (_uses(template) or set()))


@lru_cache(maxsize=4096)
def is_reference(template: str) -> bool:
    """Whether it is one expression, and all that this gives is looked up: no text and no number stands in it,
    but for the keys."""
    tree = _parsed(template) if template.startswith("{{") and template.endswith("}}") else None
    if tree is None or len(tree.body) != 1:
        return False
    (output,) = tree.body
    return isinstance(output, nodes.Output) and len(output.nodes) == 1 and _is_looked_up(output.nodes[0])


def _is_looked_up(node: nodes.Node) -> bool:
    if isinstance(node, nodes.Const | nodes.TemplateData):
        return False
    if isinstance(node, nodes.Getitem):
        return _is_looked_up(node.node)
    if isinstance(node, nodes.Call) and _name(node) == "get" and len(node.args) == 1 and not node.kwargs:
        return _is_looked_up(node.node)
    return all(map(_is_looked_up, node.iter_child_nodes()))


@lru_cache(maxsize=4096)
def _uses(template: str) -> frozenset[str] | None:
    """The names that it uses of the context, or None where it is not steady."""
    if not is_template(template):
        return frozenset()
    tree = _parsed(template)
    return _names(tree) if tree is not None and _is_allowed(tree) else None


def _parsed(template: str) -> nodes.Template | None:
    """None where it cannot be parsed, or is too deep."""
    try:
        tree = jinja2.Environment(extensions=["jinja2.ext.do"], autoescape=False).parse(template)  # noqa: S701
    except (jinja2.TemplateError, RecursionError, ValueError):  # the last: a number of too many digits
        return None  # whoever renders it says what is wrong
    level: list[nodes.Node] = [tree]
    for _ in range(DEEPEST):
        level = [child for node in level for child in node.iter_child_nodes()]
    return None if level else tree


def _is_allowed(node: nodes.Node) -> bool:
    """Whether a node may stand in a template, with all that is in it."""
    if isinstance(node, nodes.Name):
        return node.name in _VALUES
    if isinstance(node, nodes.Getattr | nodes.Getitem):
        if isinstance(node.node, nodes.Name) and node.node.name in _MEMBERS:
            return _member(node) in _MEMBERS[node.node.name]
        return _may_be_taken(node) and _are_parts_allowed(node)
    if isinstance(node, nodes.Call):
        return (
            _is_bounded(node)
            and _may_be_called(node.node)
            and all(map(_is_allowed, [*node.args, *node.kwargs]))
        )
    if isinstance(node, nodes.Filter):
        return node.name in _FILTERS and _is_bounded(node) and _are_parts_allowed(node)
    if isinstance(node, nodes.Test):
        return node.name in _TESTS and _are_parts_allowed(node)
    if isinstance(node, nodes.Sub):
        # Of two views it is a set, whose order is another one in each process.
        views = (call for call in node.find_all(nodes.Call) if _name(call) in ("keys", "items"))
        return not any(views) and _are_parts_allowed(node)
    return type(node) in _NODES and _are_parts_allowed(node)


def _are_parts_allowed(node: nodes.Node) -> bool:
    return all(map(_is_allowed, node.iter_child_nodes()))


def _may_be_taken(node: nodes.Getattr | nodes.Getitem) -> bool:
    """Whether a member is the same everywhere, of what :data:`_MEMBERS` does not list."""
    member = _member(node)
    if member in _UNCALLED and (hasattr(dict, member) or _path(node.node) not in _MAPPINGS):
        return False
    is_name = not isinstance(member, int | nodes.Slice | nodes.Neg)
    # Whatever else is allowed gives texts, numbers, lists and dicts.
    return not is_name or member in _OF_DATES or not _names(node.node) & _DATES


def _may_be_called(callee: nodes.Node) -> bool:
    """Whether it is a function, or a method of something that may stand there."""
    if _path(callee) in _FUNCTIONS:
        return True
    if not isinstance(callee, nodes.Getattr) or callee.attr not in _METHODS:
        return False
    # Without a word this gives something else where only a worker finds the Variable or connection.
    is_silent = callee.attr == "get" and bool(_names(callee) & _STORED)
    return not is_silent and _are_parts_allowed(callee)


def _is_bounded(call: nodes.Filter | nodes.Call) -> bool:
    """Whether what a filter, a function or a method gives is not much longer than what it is given, and does
    not depend on the machine."""
    name = _name(call)
    if call.dyn_args is not None or call.dyn_kwargs is not None:
        return False
    if name == "replace" and not call.args:  # a date's; a text's takes two
        return all(argument.key in _OF_DATES for argument in call.kwargs)
    if name in _ARGUMENTS:
        values = [argument.value if isinstance(argument, nodes.Const) else None for argument in call.args]
        if call.kwargs or not _ARGUMENTS[name](values):
            return False
    inner = call.find_all((nodes.Filter, nodes.Call))
    return name not in _GROWING or not any(_name(other) in _GROWING for other in inner)


def _is_separator(values: Sequence[Any]) -> bool:
    """Whether ``join`` is to put nothing, or one short text, between any two."""
    return len(values) < 2 and _are_short(values)


def _shortens(values: Sequence[Any]) -> bool:
    """Whether ``replace`` is to put a text in the place of one that is as long, or longer."""
    return (
        len(values) == 2
        and all(isinstance(text, str) for text in values)
        and 0 < len(values[0]) >= len(values[1])
    )


def _are_short(values: Sequence[Any]) -> bool:
    return all(value is not None and len(str(value)) <= LONGEST_ARGUMENT for value in values)


def _are_formats(values: Sequence[Any]) -> bool:
    return all(isinstance(text, str) and _DATE_FORMAT.fullmatch(text) for text in values)


def _is_time_zone(values: Sequence[Any]) -> bool:
    return len(values) == 1 and isinstance(values[0], str) and bool(_TIME_ZONE.fullmatch(values[0]))


_ARGUMENTS: dict[str, Callable[[Sequence[Any]], bool]] = {
    # As an indentation, or a width in a date's format, a text of any length may come.
    "dumps": lambda values: len(values) == 1,
    "loads": lambda values: len(values) == 1,
    "tojson": lambda values: not values,
    "strftime": lambda values: len(values) == 1 and _are_formats(values),
    "ds_format": lambda values: len(values) == 3 and _are_formats(values[1:]),
    "join": _is_separator,
    "replace": _shortens,
    # The time is that of one text's length, times the other's.
    **dict.fromkeys(("strip", "lstrip", "rstrip", "trim", "rsplit"), _are_short),
    "in_timezone": _is_time_zone,
    "in_tz": _is_time_zone,
}
"""What these may be given, and nothing by name: of each argument its value, or None where it is computed."""


def _name(call: nodes.Node) -> str:
    callee = call.node if isinstance(call, nodes.Call) else None
    return callee.attr if isinstance(callee, nodes.Getattr) else getattr(call, "name", "")


def _path(node: nodes.Node) -> str:
    """``a.b.c``; what begins with anything but a name, begins with a dot."""
    if isinstance(node, nodes.Getattr):
        return f"{_path(node.node)}.{node.attr}"
    return node.name if isinstance(node, nodes.Name) else ""


def _member(node: nodes.Getattr | nodes.Getitem) -> Any:
    """What is taken: a name, a number, or the node of what is computed."""
    if isinstance(node, nodes.Getattr):
        return node.attr
    return node.arg.value if isinstance(node.arg, nodes.Const) else node.arg


def _names(node: nodes.Node) -> frozenset[str]:
    found = (node, *node.find_all(nodes.Name))
    return frozenset(name.name for name in found if isinstance(name, nodes.Name))
