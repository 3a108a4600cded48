"""How many calls there may be, and how large their metadata."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from remsvc.server.call import Call
from remsvc.server.limits_config import LimitsConfig
from remsvc.server.refusal import RefusedError, exhausted
from remsvc.status import Status

_RETRY_SECONDS = 1.0


class Admission:
    """Refuses calls that are too many or too large.

    To come after authentication: who is not let in is refused before, without a request being read.

    Attributes:
        in_progress: authenticated calls now, by the peer's name.
        admitted: authenticated calls since these were last cleared, by the peer's name; None where nobody
            looks at them, and clears them.
    """

    def __init__(self, limits: LimitsConfig) -> None:
        self._limits = limits
        # Of strangers (all that they may ask is health), and of those who are authenticated.
        self._calls = [0, 0]
        self._most = [max(limits.max_calls // 10, 1), limits.max_calls]
        self.in_progress: Counter[str] = Counter()
        self.admitted: Counter[str] | None = None

    @contextlib.contextmanager
    def counted(self, call: Call) -> Iterator[None]:
        """Within, a call counts as in progress.

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
        # A stranger's call gives its connection no rights.
        peer = call.peer if authenticated else ""
        if peer and self.in_progress[peer] >= self._limits.max_streams:
            raise exhausted(
                f"this connection has {self._limits.max_streams} calls in progress already", _RETRY_SECONDS
            )
        self._calls[authenticated] += 1
        self.in_progress[peer] += 1
        if self.admitted is not None:
            self.admitted[peer] += 1
        try:
            yield
        finally:
            self._calls[authenticated] -= 1
            self.in_progress[peer] -= 1
            if not self.in_progress[peer]:
                del self.in_progress[peer]
