"""Bearer tokens. None is kept: only its SHA-256, from which it cannot be told."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Credential:
    """One token of an identity.

    Attributes:
        identity: whose it is.
        digest: the token's SHA-256.
        id: names it in the log and to ``remsvc token revoke``; empty for an entry of ``[auth]``.
        expires: Unix time from which it is refused; None for never.
    """

    identity: str
    digest: bytes = field(repr=False)
    id: str = ""
    expires: float | None = None

    def expired(self, now: float) -> bool:
        """Whether it is refused at Unix time ``now``."""
        return self.expires is not None and now >= self.expires


def digest_of(token: str | bytes) -> bytes:
    """SHA-256 of a token: what is kept of it.

    No slow hash: a token is 256 bits of chance, not a password, and is hashed for every call.
    """
    return hashlib.sha256(token if isinstance(token, bytes) else token.encode(errors="replace")).digest()


class TokenTable:
    """Finds a credential by a token's digest, in a time that tells nothing of the stored ones.

    The index is by a keyed hash whose key is made anew in each process: what a caller sends has no
    relation that it could know to the place looked at, and how many tokens there are does not show.
    Of several credentials with the same token, the first one counts.
    """

    def __init__(self, credentials: Iterable[Credential]) -> None:
        self._key = secrets.token_bytes(32)
        self._index: dict[bytes, Credential] = {}
        for credential in credentials:
            self._index.setdefault(self._place(credential.digest), credential)
        self._nobody = Credential("", secrets.token_bytes(32))
        self._by_identity: dict[str, list[Credential]] = {}
        for credential in self._index.values():
            self._by_identity.setdefault(credential.identity, []).append(credential)

    def __len__(self) -> int:
        return len(self._index)

    def find(self, digest: bytes) -> Credential | None:
        """The credential with this digest, expired or not."""
        found = self._index.get(self._place(digest), self._nobody)
        return found if hmac.compare_digest(found.digest, digest) else None

    def knows(self, identity: str, now: float) -> bool:
        """Whether an identity has a credential that is valid at Unix time ``now``."""
        return any(not credential.expired(now) for credential in self._by_identity.get(identity, ()))

    def _place(self, digest: bytes) -> bytes:
        return hashlib.blake2b(digest, key=self._key, digest_size=16).digest()
