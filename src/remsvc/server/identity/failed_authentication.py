"""Failed authentications by where they come from: so many are answered and noted, the rest refused."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from remsvc.server.logs import fields
from remsvc.server.peers import network_of_peer
from remsvc.server.rate_limit import Rate, RateLimiter

_logger = logging.getLogger("remsvc.server")
_SAID_AGAIN = Rate(1, 60.0)


class FailedAuthentications:
    """Counts them by address (IPv6: by /64).

    A caller whose credentials are right is never refused here, whatever others do from the same
    address: behind one address there may be many callers. That the failures of others cost little,
    and fill no log, is what this is for; that tokens cannot be guessed is for the tokens' length.
    """

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._failures = RateLimiter(clock)
        self._said = RateLimiter(clock)

    def note(self, peer: str) -> float:
        """Note one. Returns 0.0, or the seconds until this peer's next one is answered as such."""
        network = network_of_peer(peer)
        wait = self._failures.take(network, self._rate)
        if wait and not self._said.take(network, _SAID_AGAIN):
            _logger.warning(
                "failed authentications are too many to note each %s",
                fields(network=network, rate=self._rate),
            )
        return wait
