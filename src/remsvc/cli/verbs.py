"""The list of all verbs, and where each one stands. A verb is loaded when it is used."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

# They are in the order of the help.
VERBS = {
    "serve": "remsvc.cli.serve:serve",
    "check-config": "remsvc.cli.check_config:check_config",
    "ping": "remsvc.cli.ping:ping",
    "status": "remsvc.cli.status:status",
    "run": "remsvc.cli.run:run",
    "jobs": "remsvc.cli.jobs.group:jobs",
    "init": "remsvc.cli.init:init",
    "token": "remsvc.cli.token:token",
    "policy": "remsvc.cli.policy:policy",
    "audit": "remsvc.cli.audit:audit",
    "completion": "remsvc.cli.completion:completion",
}
if sys.platform == "win32":
    VERBS["service"] = "remsvc.cli.service:service"

JOB_VERBS = {
    "list": "remsvc.cli.jobs.list:list_jobs",
    "show": "remsvc.cli.jobs.show:show",
    "wait": "remsvc.cli.jobs.wait:wait",
    "cancel": "remsvc.cli.jobs.cancel:cancel",
    "logs": "remsvc.cli.jobs.logs:logs",
}

QUICK: dict[tuple[str, ...], str] = {
    **{(name,): VERBS[name] for name in ("ping", "status", "run")},
    **{("jobs", name): place for name, place in JOB_VERBS.items()},
}
"""The verbs that talk to a server, by their words: there stands a :class:`~remsvc.cli.verb.Verb`."""


def load(place: str) -> Any:
    """The verb at a place: a ``Verb``, or a command of click's."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
