"""How many calls there may be, and how large their metadata."""

from __future__ import annotations

from remsvc.server.call import Call
from remsvc.server.limits_config import LimitsConfig
from remsvc.server.refusal import RefusedError, exhausted
from remsvc.status import Status

_RETRY_SECONDS = 1.0


class Admission:
    """Refuses calls that are too many or too large.

    To come after authentication: who is not let in is refused before, without a request being read.
    """

    def __init__(self, limits: LimitsConfig) -> None:
        self._limits = limits
        # Of strangers (all that they may ask is health), and of those who are authenticated.
        self._calls = [0, 0]
        self._most = [max(limits.max_calls // 10, 1), limits.max_calls]

    @property
    def in_progress(self) -> int:
        """Calls that were let in and have not ended."""
        return sum(self._calls)

    def enter(self, call: Call) -> None:
        """Count a call as in progress, until :meth:`leave`.

        Raises:
            RefusedError: it is one too many, or too large.
        """
        if call.metadata_bytes > self._limits.max_metadata_bytes:
            raise RefusedError(
                Status.RESOURCE_EXHAUSTED,
                f"metadata of {call.metadata_bytes} bytes, more than {self._limits.max_metadata_bytes}",
            )
        authenticated = call.caller is not None
        if self._calls[authenticated] >= self._most[authenticated]:
            raise exhausted(
                f"the server has {self._calls[authenticated]} calls in progress already", _RETRY_SECONDS
            )
        self._calls[authenticated] += 1

    def leave(self, call: Call) -> None:
        """A call that was let in has ended."""
        self._calls[call.caller is not None] -= 1
