"""The one hierarchy of errors. Everything RemSvc raises on purpose is a :class:`RemSvcError`.

Nothing here imports gRPC: a status travels as its canonical name (``"UNAVAILABLE"``), so that the
errors can be caught where gRPC is not loaded.
"""

from __future__ import annotations

from collections.abc import Iterable


class RemSvcError(Exception):
    """Root of all errors raised by RemSvc. ``str()`` is one line a user can act on."""


class InvalidCommandError(RemSvcError):
    """A command that may not even be sent: blank, with a NUL, of an unknown type."""


class ConfigurationError(RemSvcError):
    """Settings that cannot be used.

    Attributes:
        problems: every problem found, one line each, naming file, section, key, value and what
            was expected.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class ServeError(RemSvcError):
    """The server cannot start, such as when its port is taken."""


class TransportEndedError(RemSvcError):
    """The transport, which takes the calls from the network, has ended though nobody asked for it."""


class StartError(RemSvcError):
    """A command's process could not be started; nothing ran."""


class ExecutionError(RemSvcError):
    """The machinery that runs commands failed; whether the command ran is not known."""


class ServerError(RemSvcError):
    """The server answered with an error status, or could not be reached.

    Attributes:
        code: the gRPC status's canonical name, such as ``"UNAVAILABLE"``.
        details: the status message.
        target: the server, ``host:port``.
        sent: False only where it is certain that no command reached the server, because the
            connection was never made. True means "may have run": never retry on doubt.
    """

    def __init__(self, code: str, details: str, target: str, *, sent: bool = True) -> None:
        self.code = code
        self.details = details
        self.target = target
        self.sent = sent
        super().__init__(f"{target}: {code}: {details}")


class UnavailableError(ServerError):
    """UNAVAILABLE: no connection could be made, or it broke."""


class UnauthenticatedError(ServerError):
    """UNAUTHENTICATED: no token, or not a valid one."""


class PermissionDeniedError(ServerError):
    """PERMISSION_DENIED: the server's policy refuses the command."""


class InvalidArgumentError(ServerError):
    """INVALID_ARGUMENT: the server cannot accept the command as it is."""


class ResourceExhaustedError(ServerError):
    """RESOURCE_EXHAUSTED: the server is at a limit, or a message was too large.

    Attributes:
        retry_after: seconds, at most 300, after which the server suggests to try again; None where it does
            not say.
    """

    retry_after: float | None = None


class NotFoundError(ServerError):
    """NOT_FOUND: there is no such job, or it belongs to somebody else."""


class AlreadyExistsError(ServerError):
    """ALREADY_EXISTS: the request id was used before, with other content.

    Attributes:
        job_id: the job that has the request id; None where the server does not say.
    """

    job_id: str | None = None


class DeadlineExceededError(ServerError):
    """DEADLINE_EXCEEDED: the call's time limit ran out; the server was told to stop."""


class CallCancelledError(ServerError):
    """CANCELLED, and not by the caller: a server that shuts down, or has too many calls waiting, gave
    the call up."""


class UnimplementedError(ServerError):
    """UNIMPLEMENTED: the server does not know this method."""


class ProtocolError(RemSvcError):
    """The server broke the protocol: an answer that cannot be read, or one to no command of ours."""


class MissingResultsError(RemSvcError):
    """The stream ended, but some commands were not answered.

    Attributes:
        tids: the ``tid`` of each command without an answer.
    """

    def __init__(self, tids: Iterable[int]) -> None:
        self.tids = tuple(tids)
        numbers = ", ".join(map(str, self.tids))
        super().__init__(f"the server ended the stream without answering command {numbers}")


NO_ANSWER = (UnavailableError, DeadlineExceededError, CallCancelledError)
"""What tells nothing of whether the server has done what it was asked for. A call that may be made twice
is made again; of any other, the outcome is not known."""


_BY_CODE: dict[str, type[ServerError]] = {
    "UNAVAILABLE": UnavailableError,
    "UNAUTHENTICATED": UnauthenticatedError,
    "PERMISSION_DENIED": PermissionDeniedError,
    "INVALID_ARGUMENT": InvalidArgumentError,
    "RESOURCE_EXHAUSTED": ResourceExhaustedError,
    "NOT_FOUND": NotFoundError,
    "ALREADY_EXISTS": AlreadyExistsError,
    "DEADLINE_EXCEEDED": DeadlineExceededError,
    "CANCELLED": CallCancelledError,
    "UNIMPLEMENTED": UnimplementedError,
}


def server_error(code: str, details: str, target: str, *, sent: bool = True) -> ServerError:
    """The error of the right class for the status ``code`` (its canonical name)."""
    return _BY_CODE.get(code, ServerError)(code, details, target, sent=sent)
