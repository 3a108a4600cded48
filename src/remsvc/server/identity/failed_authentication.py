"""Limits how many failed authentications from one address are answered and logged one by one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from remsvc.server.bounds.rate_limit import Rate, RateLimiter
from remsvc.server.logs import fields
from remsvc.server.peers import network_of_peer

_logger = logging.getLogger("remsvc.server")
_SAID_AGAIN = Rate(1, 60.0)


class FailedAuthentications:
    """Counts failed authentications by address (IPv6: by /64).

    The limit keeps failures cheap, and the log short. It is not what keeps tokens from being guessed: they
    are too long for that. A caller whose credentials are right is never refused here, whatever others do
    from the same address, because many callers may share one.

    Args:
        rate: how many failures of one address are answered and logged one by one.
        clock: seconds, from any start.
    """

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._failures = RateLimiter(clock)
        self._said = RateLimiter(clock)

    def note(self, peer: str) -> float:
        """Count a failure of ``peer``, an address as gRPC writes it.

        Returns:
            0.0 where it is to be answered and logged; else the seconds until this address's next one is.
        """
        network = network_of_peer(peer)
        wait = self._failures.take(network, self._rate)
        if wait and not self._said.take(network, _SAID_AGAIN):
            _logger.warning(
                "failed authentications are too many to note each %s",
                fields(network=network, rate=self._rate),
            )
        return wait
