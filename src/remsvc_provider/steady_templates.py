"""Which templates give the same wherever they are rendered, and however often.

A worker renders a task once, with all that Airflow offers. A triggerer is offered less, and in part something
else: ``ti.max_tries`` is 0 there, and ``ti.xcom_pull()`` waits for ever for an answer. And it renders once
more what it takes over from another triggerer. So a task may be started there only where its templates use
nothing but what is the same in both, each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import jinja2
from jinja2 import nodes
from jinja2.filters import FILTERS

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
_OF_JINJA = frozenset({"range", "dict", "namespace", "cycler", "joiner", "loop"})
_UNSTEADY = frozenset(
    # What tells the time of a date's rendering.
    {"now", "utcnow", "today", "tomorrow", "yesterday", "age", "is_past", "is_future"}
    | {"diff", "diff_for_humans", "is_birthday", "is_anniversary"}
)
_FILTERS = (FILTERS.keys() - {"random"}) | {"ds", "ds_nodash", "ts", "ts_nodash", "ts_nodash_with_tz"}
_OTHER_FILES = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)


def is_template(text: str) -> bool:
    """Whether rendering may change the text."""
    return any(mark in text for mark in ("{{", "{%", "{#"))


def is_steady(template: str) -> bool:
    """Whether it gives the same wherever it is rendered, and each time."""
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
    except jinja2.TemplateError:
        return None  # whoever renders it says what is wrong
    known = _VALUES | _MEMBERS.keys()
    own = {name.name for name in tree.find_all(nodes.Name) if name.ctx != "load"}
    own |= {macro.name for macro in tree.find_all(nodes.Macro)}
    if own & known or any(tree.find_all(_OTHER_FILES)):
        return None
    if any(use.name not in _FILTERS for use in tree.find_all(nodes.Filter)):
        return None
    if any(attribute.attr in _UNSTEADY for attribute in tree.find_all(nodes.Getattr)):
        return None
    if any(text.value in _UNSTEADY for text in tree.find_all(nodes.Const) if isinstance(text.value, str)):
        return None  # an attribute in brackets, or the filter attr
    used = [(name, member) for name, member in _names(tree) if name not in own | _OF_JINJA]
    steady = all(
        name in _VALUES or (name in _MEMBERS and member is not None and _has(_MEMBERS[name], member))
        for name, member in used
    )
    return frozenset(name for name, _ in used) if steady else None


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
