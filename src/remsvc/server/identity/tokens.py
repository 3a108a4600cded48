"""Bearer tokens, as the server keeps them: only their SHA-256, from which nobody can find the token."""

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
        identity: who calls with it.
        digest: the token's SHA-256.
        id: what the log and ``remsvc token revoke`` call it; empty for an entry of ``[auth]``.
        expires: Unix time from which it is refused; None for never.
    """

    identity: str
    digest: bytes = field(repr=False)
    id: str = ""
    expires: float | None = None

    def expired(self, now: float) -> bool:
        """Whether it is refused, because it has expired, at Unix time ``now``."""
        return self.expires is not None and now >= self.expires


def digest_of(token: str | bytes) -> bytes:
    """SHA-256 of a token.

    A fast hash is right here: a token is 256 random bits, which nobody can guess as one guesses a password.
    And every call has its token hashed, so that a slow one would cost each of them.
    """
    return hashlib.sha256(token if isinstance(token, bytes) else token.encode(errors="replace")).digest()


class TokenTable:
    """Finds credentials by the digests of their tokens.

    How long a search takes says nothing about the stored tokens. The table looks a digest up by a keyed
    hash of it, with a random key in each process: a caller cannot choose what it sends so as to come close
    to a stored token. Whether it finds one or not, it compares two digests, in constant time.

    Where several credentials have the same token, the first one counts.
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
        """The credential of the token with this digest, expired or not; None where there is none."""
        found = self._index.get(self._place(digest), self._nobody)
        return found if hmac.compare_digest(found.digest, digest) else None

    def knows(self, identity: str, now: float) -> bool:
        """Whether an identity has a credential that is valid at Unix time ``now``."""
        return any(not credential.expired(now) for credential in self._by_identity.get(identity, ()))

    def _place(self, digest: bytes) -> bytes:
        return hashlib.blake2b(digest, key=self._key, digest_size=16).digest()
