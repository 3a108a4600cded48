"""Peers that went away without a word: they come as errors, and on Windows as errors of many kinds.

There, asyncio logs a traceback for each of them that is reset before it was accepted, or while it is being
closed: whoever reaches the port could fill the log.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

_logger = logging.getLogger("remsvc.server")

# What Python does not count as connection errors: ERROR_UNEXP_NET_ERR, ERROR_NETNAME_DELETED,
# ERROR_CONNECTION_ABORTED, WSAENOTCONN.
_OF_WINDOWS = (59, 64, 1236, 10057)


def peer_has_vanished(error: BaseException | None) -> bool:
    """Whether an error says no more than that a peer has gone."""
    return isinstance(error, ConnectionError) or getattr(error, "winerror", None) in _OF_WINDOWS


def log_vanished_peers_quietly(loop: asyncio.AbstractEventLoop) -> None:
    """Have the loop log its other errors only as errors."""

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if peer_has_vanished(error := context.get("exception")):
            _logger.debug("a peer has gone: %s", error)
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)
