"""Who makes a call, as far as all parts of the server know it: decisions, the audit log, limits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

ANONYMOUS = "anonymous"
"""The identity of all callers where the server asks nobody for credentials."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as far as it was verified.

    Attributes:
        identity: the token's or the client certificate's; ``anonymous`` where none is asked for.
        token_id: which of the identity's tokens, as ``remsvc token list`` shows it; empty where no
            token was asked for, or where it is one of ``[auth]``.
        fingerprint: SHA-256 of the client's certificate (DER), 64 lower-case hex digits; empty
            without mutual TLS. It is there whether or not the certificate gave the identity.
        expires: Unix time at which what was shown expires; None for never.
        verified_by: what has verified that; compared by identity with what would verify it now.
    """

    identity: str = ANONYMOUS
    token_id: str = ""
    fingerprint: str = ""
    expires: float | None = None
    verified_by: object | None = field(default=None, repr=False, compare=False)

    def expired(self, now: float) -> bool:
        """Whether what was shown is refused at Unix time ``now``."""
        return self.expires is not None and now >= self.expires


class CallContext(ABC):
    """What is known of a call beside its messages: which method, from where, and from whom.

    The audit log and the policy get no more of a call than this.

    Attributes:
        method: its full name, such as ``/RS.RemSvc/Ping``.
        peer: where it comes from, as gRPC writes it: ``ipv4:192.0.2.1:50000``.
    """

    method: str
    peer: str

    @property
    @abstractmethod
    def caller(self) -> Caller | None:
        """Who calls; None until that was verified."""

    @property
    def verified(self) -> Caller:
        """The verified caller.

        Raises:
            RuntimeError: there is none. The code that asks relies on one, and must not go on without.
        """
        caller = self.caller
        if caller is None:
            raise RuntimeError(f"{self.method}: the caller was not verified")
        return caller

    @property
    def identity(self) -> str:
        """The identity of a verified caller; raises as :attr:`verified` does."""
        return self.verified.identity
