"""Which templates may be rendered in a triggerer: those that give the same there, each time, and at once.

A worker renders a task once, with all that Airflow offers. A triggerer is offered less, and in part something
else: ``ti.max_tries`` is 0 there, and ``ti.xcom_pull()`` waits for ever for an answer. And it renders once
more what it takes over from another triggerer. So a task may be started there only where its templates use
nothing but what is the same in both, each time.

It also has many other triggers to look after, which wait while C code runs, in whatever thread: ``9**9**9``
takes hours, ``'x' * 10**10`` all memory. So what follows lists what may stand in a template. None of it takes
longer than its text and its values are long: no loop, no variable, no arithmetic but + and -, and no filter
or method that makes a text of a width that is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import jinja2
from jinja2 import nodes

_VALUES = frozenset(
    {
        "ds",
        "ds_nodash",
        "ts",
        "ts_nodash",
        "ts_nodash_with_tz",
        "run_id",
        "logical_date",
        "data_interval_start",
        "data_interval_end",
    }
)
_TASK_INSTANCE = frozenset({"dag_id", "run_id", "task_id", "map_index", "try_number"})
_MEMBERS: dict[str, frozenset[str] | None] = {
    # None: all of them
    "var": None,
    "conn": None,
    "params": None,
    "ti": _TASK_INSTANCE,
    "task_instance": _TASK_INSTANCE,
    "dag_run": frozenset({"conf", "dag_id", "run_id"}),
    "dag": frozenset({"dag_id"}),
    "task": frozenset({"task_id"}),
    "macros": frozenset({"ds_add", "ds_format", "ds_format_locale", "json", "timedelta"}),
}
_UNSTEADY = frozenset(
    # What tells the time of a date's rendering.
    {"now", "utcnow", "today", "tomorrow", "yesterday", "age", "is_past", "is_future"}
    | {"diff", "diff_for_humans", "is_birthday", "is_anniversary"}
)
_NODES = frozenset(
    {nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.Name, nodes.Const, nodes.List}
    | {nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Keyword, nodes.Slice, nodes.CondExpr, nodes.Compare}
    | {nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos, nodes.Add, nodes.Sub}
    | {nodes.Concat}
)
"""What may stand anywhere; what may under conditions: see :func:`_is_allowed`."""
_DATES = frozenset({"ds", "ds_nodash", "ts", "ts_nodash", "ts_nodash_with_tz"})
_FILTERS = _DATES | frozenset(
    {"default", "d", "string", "int", "float", "length", "count", "first", "last"}
    | {"lower", "upper", "trim", "capitalize", "title", "tojson", "urlencode", "join", "replace"}
)
_TESTS = frozenset({"defined", "undefined", "none", "string", "number", "mapping", "true", "false"})
_METHODS = frozenset(
    # Of mappings, macros, dates and texts. Which of them has it is not known: each costs little for any.
    {"get", "get_uri", "keys", "values", "items", "dumps", "loads"}
    | {"ds_add", "ds_format", "ds_format_locale", "timedelta"}
    | {"add", "subtract", "strftime", "isoformat", "date", "time", "timestamp", "start_of", "end_of"}
    | {"in_timezone", "in_tz", "to_date_string", "to_datetime_string", "to_iso8601_string", "replace"}
    | {"lower", "upper", "title", "capitalize", "strip", "lstrip", "rstrip", "split", "rsplit", "splitlines"}
    | {"startswith", "endswith"}
)
_ARGUMENTS = {"dumps": 1, "loads": 1, "tojson": 0}
"""How many these have, and no named ones: of others, as an indentation, a text of any length may come."""
_GROWING = frozenset({"tojson", "urlencode", "join", "dumps"})
"""What multiplies a text's length: once, and not what has been multiplied already."""
LONGEST_SEPARATOR = 16
"""Characters that ``join`` may put between any two."""
DEEPEST = 16
"""Nodes of a template, one in another: a text that is put together out of others is at most as many times
as long."""


def is_template(text: str) -> bool:
    """Whether rendering may change the text."""
    return any(mark in text for mark in ("{{", "{%", "{#"))


def is_steady(template: str) -> bool:
    """Whether it gives the same wherever it is rendered, each time, and at once."""
    return _uses(template) is not None


def reads_secrets(template: str) -> bool:
    """Whether what it gives may hold a secret of Airflow's: of a Variable or a connection."""
    return bool({"var", "conn"} & (_uses(template) or set()))


@lru_cache(maxsize=4096)
def _uses(template: str) -> frozenset[str] | None:
    """The names that it uses of the context, or None where it is not steady."""
    if not is_template(template):
        return frozenset()
    try:
        tree = jinja2.Environment(extensions=["jinja2.ext.do"], autoescape=False).parse(template)  # noqa: S701
    except (jinja2.TemplateError, RecursionError):
        return None  # whoever renders it says what is wrong
    if not _is_shallow(tree) or not all(map(_is_allowed, tree.find_all(nodes.Node))):
        return None
    used = list(_names(tree))
    steady = all(
        name in _VALUES or (name in _MEMBERS and member is not None and _has(_MEMBERS[name], member))
        for name, member in used
    )
    return frozenset(name for name, _ in used) if steady else None


def _is_shallow(tree: nodes.Node) -> bool:
    level: list[nodes.Node] = [tree]
    for _ in range(DEEPEST):
        level = [child for node in level for child in node.iter_child_nodes()]
    return not level


def _is_allowed(node: nodes.Node) -> bool:
    """Whether a node may stand there, whatever is in it."""
    if isinstance(node, nodes.Getattr):
        return node.attr not in _UNSTEADY
    if isinstance(node, nodes.Getitem):
        return not (isinstance(node.arg, nodes.Const) and node.arg.value in _UNSTEADY)
    if isinstance(node, nodes.Test):
        return node.name in _TESTS
    if isinstance(node, nodes.Filter):
        return node.name in _FILTERS and _is_bounded(node, node.name)
    if isinstance(node, nodes.Call):
        method = node.node.attr if isinstance(node.node, nodes.Getattr) else ""
        return method in _METHODS and _is_bounded(node, method)
    return type(node) in _NODES


def _is_bounded(call: nodes.Filter | nodes.Call, name: str) -> bool:
    """Whether what a filter or a method gives is not much longer than what it is given."""
    if call.dyn_args is not None or call.dyn_kwargs is not None:
        return False
    if name in _ARGUMENTS and (len(call.args) != _ARGUMENTS[name] or call.kwargs):
        return False
    if name == "join" and (call.kwargs or not _is_separator(call.args)):
        return False
    of_date = isinstance(call, nodes.Call) and not call.args  # as in replace(day=1); a text's takes two
    if name == "replace" and not of_date and (call.kwargs or not _shortens(call.args)):
        return False
    inner = call.find_all((nodes.Filter, nodes.Call))
    return name not in _GROWING or not any(_name(other) in _GROWING for other in inner)


def _name(call: nodes.Node) -> str:
    callee = call.node if isinstance(call, nodes.Call) else None
    return callee.attr if isinstance(callee, nodes.Getattr) else getattr(call, "name", "")


def _is_separator(arguments: list[nodes.Expr]) -> bool:
    """Whether ``join`` is to put nothing, or one short text, between any two."""
    values = [argument.value if isinstance(argument, nodes.Const) else None for argument in arguments]
    return (
        all(isinstance(value, str) and len(value) <= LONGEST_SEPARATOR for value in values)
        and len(values) < 2
    )


def _shortens(arguments: list[nodes.Expr]) -> bool:
    """Whether ``replace`` is to put a text in the place of one that is as long, or longer."""
    values = [argument.value for argument in arguments if isinstance(argument, nodes.Const)]
    if not (len(values) == len(arguments) == 2 and all(isinstance(value, str) for value in values)):
        return False
    old, new = values
    return len(old) > 0 and len(new) <= len(old)


def _has(members: frozenset[str] | None, member: str) -> bool:
    return members is None or member in members


def _names(node: nodes.Node) -> Iterator[tuple[str, str | None]]:
    """Each name that is read, with the member that is taken of it; None for none, or one that is computed."""
    if isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name):
        yield node.node.name, node.attr
        return
    if isinstance(node, nodes.Getitem) and isinstance(node.node, nodes.Name):
        member = node.arg.value if isinstance(node.arg, nodes.Const) else None
        yield node.node.name, member if isinstance(member, str) else None
        yield from _names(node.arg)
        return
    if isinstance(node, nodes.Name) and node.ctx == "load":
        yield node.name, None
    for child in node.iter_child_nodes():
        yield from _names(child)
