"""Sets the variables of the environment that gRPC's library reads when it is imported.

So this is called before the import, by programs alone: a library leaves its user's environment as it is.
"""

from __future__ import annotations

import os
import sys


def set_grpc_environment(*, server: bool) -> None:
    """Set the variables, except those that are set already.

    Args:
        server: whether this process serves calls.
    """
    # Our errors and our log say what happened; gRPC would write lines of its own to standard error.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    if server and sys.platform == "linux":
        # The threads that wait for events read the sockets themselves: each part of a call takes one
        # change of thread less (docs/decisions/0009-what-a-call-costs.md).
        os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
