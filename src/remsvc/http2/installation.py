"""Whether HTTP/2 can be had here: the package that the engine is made of is in extras only."""

from __future__ import annotations

from importlib.util import find_spec


def engine_is_installed() -> bool:
    """Whether there is the package ``ngh2``. It is not imported for that."""
    spec = find_spec("ngh2")
    # A folder of this name, in the working directory perhaps, is found as well, and has no origin.
    return spec is not None and spec.origin is not None
