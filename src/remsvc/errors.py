"""The one hierarchy of errors: everything that RemSvc raises on purpose is a :class:`RemSvcError`.

=============================  ===============================================  ==============================
error                          raised when                                      does repeating help?
=============================  ===============================================  ==============================
``RemSvcError``                something else went wrong, such as a call on a   no
                               client that is closed
``InvalidCommandError``        a command, a job or a search cannot be sent as   no: correct it
                               it is
``ConfigurationError``         an option, a file or a setting cannot be used    no: correct it
``ProtocolError``              the server's answer breaks the protocol          no
``MissingResultsError``        a stream ended before all its commands were      only for commands that may run
                               answered                                         twice
``ServerError``                the server answered with an error status, or     see its classes; for any other
                               could not be reached                             status, no
├ ``UnavailableError``         there is no connection, or it broke, or the      yes, after a pause
│                              server shuts down
├ ``DeadlineExceededError``    the time limit ran out                           yes, with more time
├ ``CallCancelledError``       the server gave the call up, as it shuts down    yes, after a pause
│                              or has too many calls
├ ``ResourceExhaustedError``   the server, or the caller's share of it, is      where ``retry_after`` says
│                              full; or a message is too large                  when
├ ``UnauthenticatedError``     there is no token, or not a valid one            no: with another token
├ ``PermissionDeniedError``    the server's policy refuses the command          no
├ ``InvalidArgumentError``     the server cannot accept the command as it is    no: correct it
├ ``NotFoundError``            there is no such job, or it is another caller's  no
├ ``AlreadyExistsError``       the request id was used with other content       no: use another id
└ ``UnimplementedError``       the server does not know the method              no
``ServeError``                 a server cannot start                            no: correct what it names
``TransportEndedError``        a server takes no calls any more                 start the server again
``StartError``                 in a server: a command was not started           no: nothing ran
``ExecutionError``             in a server: what runs commands failed           not known whether it ran
=============================  ===============================================  ==============================

**Before a call is repeated, ask whether its command may run twice.** ``sent`` of a :class:`ServerError` is
False only where it is certain that the server got no command; then repeating is safe. Where it is True, only
what may arrive twice is safe to repeat: creating a job with the same request id, cancelling one, and whatever
only reads. The clients repeat the first two by themselves (:mod:`remsvc.client.repeats`).

The rooms of the server, the command line and the Airflow provider derive errors of their own from these.
Nothing here imports gRPC: a status travels as its canonical name (``"UNAVAILABLE"``), so that the errors can
be caught where gRPC is not loaded.
"""

from __future__ import annotations

from collections.abc import Iterable


class RemSvcError(Exception):
    """Root of all errors that RemSvc raises on purpose. ``str()`` is one line that a user can act on."""


class InvalidCommandError(RemSvcError):
    """A command, a job or a search may not even be sent: blank, with a NUL, too large, of an unknown type.

    Raised by a client before anything is sent, and by a server before anything runs. Repeating does not help.
    """


class ConfigurationError(RemSvcError):
    """An option, a file or a setting cannot be used. Raised before anything is sent; repeating does not help.

    Attributes:
        problems: every problem found, one line each, naming file, section, key, value and what
            was expected. Values that may be secrets are left out.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class ServeError(RemSvcError):
    """A server cannot start, such as when its port is taken. Repeating helps once the cause is gone."""


class TransportEndedError(RemSvcError):
    """What takes a server's calls from the network has ended, though nobody asked for it.

    The server ends with this error, so that whoever looks after it starts it again.
    """


class StartError(RemSvcError):
    """In a server: a command's process could not be started. Nothing ran, and the command's result says so.

    Repeating it does not help as long as the command and the machine are the same.
    """


class ExecutionError(RemSvcError):
    """In a server: the machinery that runs commands failed. Whether the command ran is not known.

    Repeating may run it twice.
    """


class ServerError(RemSvcError):
    """The server answered with an error status, or could not be reached.

    One of the classes below, where there is one for the status. For any other status, such as INTERNAL,
    repeating does not help.

    Attributes:
        code: the gRPC status's canonical name, such as ``"UNAVAILABLE"``.
        details: the status message.
        target: the server, ``host:port``.
        sent: False only where it is certain that no command reached the server, because the
            connection was never made. True means "may have run": never repeat a command on doubt.
    """

    def __init__(self, code: str, details: str, target: str, *, sent: bool = True) -> None:
        self.code = code
        self.details = details
        self.target = target
        self.sent = sent
        super().__init__(f"{target}: {code}: {details}")

    def count_earlier_attempts(self, *, sent: bool) -> None:
        """Let :attr:`sent` speak of the earlier attempts of the same call as well.

        Args:
            sent: whether one of them may have reached the server.
        """
        self.sent = self.sent or sent


class UnavailableError(ServerError):
    """UNAVAILABLE: no connection could be made, or it broke, or the server shuts down.

    Repeating helps once the server can be reached again, where the command may arrive twice.
    """


class UnauthenticatedError(ServerError):
    """UNAUTHENTICATED: there is no token, or not a valid one, or it was withdrawn while the call went on.

    Repeating needs another token.
    """


class PermissionDeniedError(ServerError):
    """PERMISSION_DENIED: the server's policy refuses the command, which did not run.

    The commands before it in a stream have run. Repeating does not help.
    """


class InvalidArgumentError(ServerError):
    """INVALID_ARGUMENT: the server cannot accept the command as it is. It did not run.

    The commands before it in a stream have run. Repeating does not help: correct the command.
    """


class ResourceExhaustedError(ServerError):
    """RESOURCE_EXHAUSTED: the server, or the caller's share of it, is full, or a message was too large.

    Repeating helps where the server says when. A command whose answer was too large has run.

    Attributes:
        retry_after: seconds, at most 300, after which the server suggests to try again; None where it does
            not say, as for a message that is too large.
    """

    def __init__(
        self, code: str, details: str, target: str, *, sent: bool = True, retry_after: float | None = None
    ) -> None:
        super().__init__(code, details, target, sent=sent)
        self.retry_after = retry_after


class NotFoundError(ServerError):
    """NOT_FOUND: there is no such job, or it belongs to somebody else. Repeating does not help."""


class AlreadyExistsError(ServerError):
    """ALREADY_EXISTS: the request id was used before, with other content. Nothing was created.

    Repeating does not help: another command needs another id.

    Attributes:
        job_id: the job that has the request id; None where the server does not say.
    """

    def __init__(
        self, code: str, details: str, target: str, *, sent: bool = True, job_id: str | None = None
    ) -> None:
        super().__init__(code, details, target, sent=sent)
        self.job_id = job_id


class DeadlineExceededError(ServerError):
    """DEADLINE_EXCEEDED: the call's time limit ran out, and the server was told to stop.

    Repeating helps where there is more time, and the command may arrive twice.
    """


class CallCancelledError(ServerError):
    """CANCELLED, and not by the caller: the server gave the call up.

    It shuts down, or has too many calls waiting.

    Repeating helps after a pause, where the command may arrive twice.
    """


class UnimplementedError(ServerError):
    """UNIMPLEMENTED: the server does not know the method, as one of version 1 has no jobs. Nothing ran."""


class ProtocolError(RemSvcError):
    """The server broke the protocol: its answer cannot be read, or belongs to no command of this client.

    The command may have run. Repeating does not help.
    """


class MissingResultsError(RemSvcError):
    """A stream ended without an error, but not every command in it was answered.

    Those that were not may have run: repeat only what may run twice.

    Attributes:
        tids: the ``tid`` of each command without an answer.
    """

    def __init__(self, tids: Iterable[int]) -> None:
        self.tids = tuple(tids)
        numbers = ", ".join(map(str, self.tids))
        super().__init__(f"the server ended the stream without answering command {numbers}")


NO_ANSWER = (UnavailableError, DeadlineExceededError, CallCancelledError)
"""The errors after which nobody knows whether the server has done what it was asked for. A call that may
arrive twice is made again after them; the outcome of any other call is not known."""

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
