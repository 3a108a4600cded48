"""What a class lacks of the signatures that other people's programs were promised.

The promise is a protocol: a class whose methods have the promised signatures, and no bodies. ``mypy``
compares the types (``make check``), and :func:`missing`, while tests run, the names, the defaults and how
parameters are given.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator


def missing(promised: type, actual: type) -> Iterator[str]:
    """A line for each thing that is missing. There may be more: further methods, and optional parameters.

    Args:
        promised: the protocol. Its ``__call__`` stands for the constructor.
        actual: the class.
    """
    for name, method in vars(promised).items():
        if inspect.isfunction(method) and (name == "__call__" or not name.startswith("_")):
            there = "__init__" if name == "__call__" else name
            shown = f"{actual.__name__}.{there}"
            found = inspect.getattr_static(actual, there, None)
            if found is None:
                yield f"{shown} is not there any more"
            else:
                yield from _missing_parameters(shown, inspect.signature(method), inspect.signature(found))


def _missing_parameters(shown: str, promised: inspect.Signature, actual: inspect.Signature) -> Iterator[str]:
    for name, parameter in promised.parameters.items():
        found = actual.parameters.get(name)
        if found is None:
            yield f"{shown}: parameter {name} is not there any more"
        elif (found.kind, found.default) != (parameter.kind, parameter.default):
            expected = f"{parameter} ({parameter.kind.description})"
            yield f"{shown}: parameter {name}: expected {expected}, not {found} ({found.kind.description})"
    by_position, promised_by_position = _by_position(actual), _by_position(promised)
    if by_position[: len(promised_by_position)] != promised_by_position:
        yield f"{shown}: expected the order {promised_by_position}, not {by_position}"
    for name, found in actual.parameters.items():
        if name not in promised.parameters and found.default is found.empty and "*" not in str(found):
            yield f"{shown}: parameter {name} is new, and must have a default"


def _by_position(signature: inspect.Signature) -> list[str]:
    return [name for name, found in signature.parameters.items() if found.kind is found.POSITIONAL_OR_KEYWORD]
