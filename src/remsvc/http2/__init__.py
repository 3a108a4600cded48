"""gRPC over HTTP/2, for the server's and the client's side alike.

The work on frames, header compression and flow control is done by libnghttp2, through the package ``ngh2``.
Only :mod:`remsvc.http2.engine` uses that package, which is installed with the extras alone:
:func:`engine_is_installed` tells whether it is there. What turns HTTP/2 into gRPC is small, and our own:
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md

``input_turns`` and ``paced_input`` belong to asyncio. The other modules neither read nor write a socket.
"""

from __future__ import annotations

_VERSIONS = ("0.3.",)


def engine_is_installed() -> bool:
    """Whether the package ``ngh2`` can be loaded here, in a version that we have read and tested."""
    try:
        import ngh2
    except ImportError:  # not installed, or built for another system
        return False
    # A folder named ngh2, perhaps in the working directory, can be imported as well, but has no version.
    return str(getattr(ngh2, "__version__", "")).startswith(_VERSIONS)
