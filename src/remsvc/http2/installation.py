"""Whether HTTP/2 can be had here: the package that the engine is made of is in extras only."""

from __future__ import annotations

from functools import cache

_VERSIONS = ("0.3.",)


@cache
def engine_is_installed() -> bool:
    """Whether there is the package ``ngh2``, in a version that was read, and it can be loaded here."""
    try:
        import ngh2
    except ImportError:  # none, or one for another system
        return False
    # A folder of this name, in the working directory perhaps, is imported as well, and has no version.
    return str(getattr(ngh2, "__version__", "")).startswith(_VERSIONS)
