"""Refuses calls that would take what others need: too many, too often, or too large."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from remsvc.server.bounds.rate_limit import RateLimiter
from remsvc.server.bounds.shares import Shares
from remsvc.server.caller import ANONYMOUS
from remsvc.server.calls.call import Call
from remsvc.server.calls.config import LimitsConfig
from remsvc.server.calls.request_memory import SMALL_REQUEST, CallRequests, RequestMemory
from remsvc.server.peers import network_of_peer
from remsvc.server.refusal import RefusedError, exhausted
from remsvc.status import StatusCode

_RETRY_SECONDS = 1.0
_NOTHING_HELD = nullcontext()


class Admitted(NamedTuple):
    """The place of a call among those in progress, to be given back when it has ended.

    Attributes:
        places: the places that it is one of.
        whose: the identity, or a stranger's network, that has taken it.
    """

    places: Shares
    whose: str


class Admission:
    """Refuses calls that are too many or too large.

    It is asked after authentication. Who is not let in was refused before that, and nothing of his request
    was read.
    """

    def __init__(self, limits: LimitsConfig) -> None:
        self._limits = limits
        self._of_callers = Shares(limits.max_calls)
        # All that strangers may ask is health: once, or to be told for as long as they like.
        most = max(limits.max_calls // 10, 1)
        self._of_strangers, self._lasting_of_strangers = Shares(most), Shares(most)
        self._requests = RequestMemory(limits.max_request_bytes)
        self._waiting_requests = RequestMemory(limits.max_request_bytes, "the requests that wait for room")
        self._rates = RateLimiter()

    @property
    def in_progress(self) -> int:
        """How many calls were let in and have not ended."""
        return sum(each.total for each in (self._of_callers, self._of_strangers, self._lasting_of_strangers))

    def check(self, call: Call) -> None:
        """Raises :class:`RefusedError` where a call is too large, or one too many in too short a time."""
        if call.metadata_bytes > self._limits.max_metadata_bytes:
            raise RefusedError(
                StatusCode.RESOURCE_EXHAUSTED,
                f"metadata of {call.metadata_bytes} bytes, more than {self._limits.max_metadata_bytes}",
            )
        if call.caller is not None:
            whose, rate = _whose(call), self._limits.call_rate
            if wait := self._rates.take(whose, rate):
                raise exhausted(f"more than {rate} calls of {whose}", wait)

    def enter(self, call: Call, *, lasting: bool) -> Admitted:
        """Count a call as in progress, until :meth:`leave` is given what this returns.

        A caller's call is one of his identity's, a stranger's one of his network's.

        Args:
            call: it.
            lasting: whether it may have any number of answers.

        Raises:
            RefusedError: it is one too many.
        """
        caller = call.caller
        if caller is None:
            places = self._lasting_of_strangers if lasting else self._of_strangers
            admitted = Admitted(places, network_of_peer(call.peer))
        else:
            admitted = Admitted(self._of_callers, caller.identity)
        places, whose = admitted
        if not places.has_room(whose):
            own = places.of(whose)
            raise exhausted(
                f"the server has {places.total} calls in progress already, {own} of them of {whose}",
                _RETRY_SECONDS,
            )
        places.add(whose)
        return admitted

    def holding(self, call: Call) -> CallRequests:
        """A block that counts the requests of a stream in memory, until each is answered."""
        return CallRequests(self._requests, self._waiting_requests, _whose(call), self._limits.stream_idle)

    def holding_one(self, call: Call, size: int) -> AbstractContextManager[object]:
        """A block that counts the one request of a call in memory; ``size``: its bytes.

        Raises:
            RefusedError: there is no room for it.
        """
        if size <= SMALL_REQUEST:
            return _NOTHING_HELD
        held = self.holding(call)
        held.add(size)
        return held

    def leave(self, admitted: Admitted) -> None:
        """A call that was let in has ended."""
        admitted.places.remove(admitted.whose)


def _whose(call: Call) -> str:
    """Whom to count a call with: its identity, or where nobody shows one, where it comes from."""
    caller = call.caller
    return network_of_peer(call.peer) if caller is None or caller.identity == ANONYMOUS else caller.identity
