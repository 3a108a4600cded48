"""How many calls there may be, and how large their metadata."""

from __future__ import annotations

from collections import Counter

from remsvc.server.call import Call
from remsvc.server.limits_config import LimitsConfig
from remsvc.server.refusal import RefusedError, exhausted
from remsvc.server.sharing import may_have_more
from remsvc.status import Status

_RETRY_SECONDS = 1.0


class Admission:
    """Refuses calls that are too many or too large.

    To come after authentication: who is not let in is refused before, without a request being read.
    """

    def __init__(self, limits: LimitsConfig) -> None:
        self._limits = limits
        self._most_of_strangers = max(limits.max_calls // 10, 1)  # all that they may ask is health
        self._of_strangers = 0
        self._identities: Counter[str] = Counter()
        self._of_callers = 0

    @property
    def in_progress(self) -> int:
        """Calls that were let in and have not ended."""
        return self._of_strangers + self._of_callers

    def enter(self, call: Call) -> str:
        """Count a call as in progress, until :meth:`leave` is given what this returns.

        Raises:
            RefusedError: it is one too many, or too large.
        """
        if call.metadata_bytes > self._limits.max_metadata_bytes:
            raise RefusedError(
                Status.RESOURCE_EXHAUSTED,
                f"metadata of {call.metadata_bytes} bytes, more than {self._limits.max_metadata_bytes}",
            )
        caller = call.caller
        if caller is None:
            if self._of_strangers >= self._most_of_strangers:
                raise exhausted(
                    f"the server has {self._of_strangers} calls in progress already", _RETRY_SECONDS
                )
            self._of_strangers += 1
            return ""
        identity = caller.identity
        own = self._identities[identity]
        if not may_have_more(identity, own, self._limits.max_calls - self._of_callers):
            raise exhausted(
                f"the server has {self._of_callers} calls in progress already, {own} of them of {identity}",
                _RETRY_SECONDS,
            )
        self._identities[identity] = own + 1
        self._of_callers += 1
        return identity

    def leave(self, identity: str) -> None:
        """A call that was let in has ended; of a stranger where ``identity`` is empty."""
        if not identity:
            self._of_strangers -= 1
            return
        self._of_callers -= 1
        self._identities[identity] -= 1
        if not self._identities[identity]:
            del self._identities[identity]
