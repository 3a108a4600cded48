"""Who is calling. Runs before any handler, and no handler ever sees a token."""

from __future__ import annotations

import hashlib
import hmac
import inspect
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

ANONYMOUS = "anonymous"
_HEADER = "authorization"
_SCHEME = "Bearer "
# Load balancers and orchestrators probe without credentials, and learn nothing but "serving".
_OPEN_TO_ALL = "/grpc.health.v1.Health/"
_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class AuthenticationError(Exception):
    """The caller is not who it has to be; the text is the status message."""


class TokenVerifier:
    """Knows the bearer tokens.

    Args:
        tokens: token by identity. Empty: every caller is permitted, and a token is ignored.
    """

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self._digests = [(identity, _digest(token)) for identity, token in tokens.items()]

    def verify(self, metadata: Sequence[tuple[str, str | bytes]]) -> str:
        """The caller's identity. Raises :class:`AuthenticationError`."""
        if not self._digests:
            return ANONYMOUS
        headers = [value for key, value in metadata if key == _HEADER]
        if not headers:
            raise AuthenticationError("missing Authorization header")
        header = headers[0] if isinstance(headers[0], str) else headers[0].decode(errors="replace")
        if not header.startswith(_SCHEME):
            raise AuthenticationError("Authorization header must use 'Bearer' scheme")
        presented = _digest(header.removeprefix(_SCHEME))
        found = None
        for identity, digest in self._digests:  # all of them: the time tells nothing
            if hmac.compare_digest(presented, digest) and found is None:
                found = identity
        if found is None or len(headers) > 1:
            raise AuthenticationError("invalid bearer token")
        return found


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as far as it was verified.

    Attributes:
        identity: the token's or the client certificate's; a client certificate's common name under
            mutual TLS without tokens; else ``anonymous``.
        token_id: which of the identity's tokens, as ``remsvc token list`` shows it; empty where no
            token was asked for, or where the token has no id.
        fingerprint: SHA-256 of the client's certificate (DER), 64 lower-case hex digits; empty
            without mutual TLS. It is there whether or not the certificate gave the identity.
    """

    identity: str = ANONYMOUS
    token_id: str = ""
    fingerprint: str = ""


class CallContext:
    """A call as its handler sees it: gRPC's context without the token, plus the verified caller."""

    def __init__(self, context: Any, caller: Caller) -> None:
        self._context = context
        self.caller = caller

    @property
    def identity(self) -> str:
        """``caller.identity``."""
        return self.caller.identity

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return tuple((key, value) for key, value in self._context.invocation_metadata() if key != _HEADER)


class AuthenticationInterceptor(grpc.aio.ServerInterceptor):
    """Refuses calls that are not authenticated; gives the others' handlers a :class:`CallContext`."""

    def __init__(self, verifier: TokenVerifier, on_refusal: Callable[[str, str, str], None]) -> None:
        """``on_refusal`` is called with the method, the peer and the reason."""
        self._verifier = verifier
        self._on_refusal = on_refusal

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(details)
        if handler is None or details.method.startswith(_OPEN_TO_ALL):
            return handler
        try:
            identity = self._verifier.verify(details.invocation_metadata)
        except AuthenticationError as error:
            return self._refusing(handler, details.method, str(error))
        return _wrapped(handler, lambda inner: _with_identity(inner, identity))

    def _refusing(self, handler: Any, method: str, reason: str) -> Any:
        async def refuse(request: Any, context: Any) -> None:
            self._on_refusal(method, context.peer(), reason)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, reason)

        return _wrapped(handler, lambda inner: refuse)


def _wrapped(handler: Any, wrap: Callable[[Any], Any]) -> Any:
    kind = next(kind for kind in _KINDS if getattr(handler, kind) is not None)
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    return make(wrap(getattr(handler, kind)), handler.request_deserializer, handler.response_serializer)


def _with_identity(inner: Any, identity: str) -> Any:
    if inspect.isasyncgenfunction(inner):

        async def stream(request: Any, context: Any) -> Any:
            async for response in inner(request, CallContext(context, _caller(context, identity))):
                yield response

        return stream

    async def call(request: Any, context: Any) -> Any:
        return await inner(request, CallContext(context, _caller(context, identity)))

    return call


def _caller(context: Any, identity: str) -> Caller:
    properties = context.auth_context()
    fingerprint = ""
    if pem := properties.get("x509_pem_cert"):
        fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem[0].decode("ascii"))).hexdigest()
    names = properties.get("x509_common_name", ())
    if identity == ANONYMOUS and names:
        identity = names[0].decode(errors="replace")
    return Caller(identity, fingerprint=fingerprint)
