"""What a server and its supervisor say to each other.

A server gives orders (:data:`Order`: start a command, end it), a supervisor reports events
(:data:`SupervisorEvent`: a command has started, has ended). Each kind of message is a class with one
``encode`` and one ``decode``; how it travels is in :mod:`remsvc.execution.supervisor.frames`.

Server and supervisor may be of different versions: a supervisor outlives the server that started it, and the
next server may be a newer or an older one. So each of them ignores messages and keys that it does not know,
and a key that a later version added may be absent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from remsvc.execution.supervisor.frames import FrameHeader, encode_frame
from remsvc.execution.supervisor.records import CommandId, ExitRecord

VERSION = 1
"""The version of the messages. A server refuses a supervisor whose version is above its own.

It rises when an older server could not work with the messages any more.
"""

MARK = "REMSVC_COMMAND_ID"
"""The environment variable that tells a command's processes from another's."""

DRAIN_GRACE = 0.1
"""Seconds that an ended command's output is still read while another process holds it open."""

OUTPUT_WAIT = 5.0
"""Seconds that it is read at most while others still pass it on, as in ``exec > >(tee log)``."""


# What a server says


@dataclass(frozen=True, slots=True)
class Credentials:
    """The POSIX user a process runs as.

    Attributes:
        uid: user id.
        gid: primary group id.
        groups: all supplementary group ids, the primary one included.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """What the system holds each process of a command to, beside time and output. POSIX only.

    None leaves a limit as the server has it. They are hard limits: a command cannot raise them, and whatever
    it starts inherits them.

    Attributes:
        nofile: open descriptors.
        nproc: processes and threads of the command's user, all of them together; not for root.
        memory_bytes: address space of one process.
        cpu_seconds: processor time of one process; then it gets SIGXCPU, and a second later SIGKILL.
        umask: permissions that new files do not get.
        no_new_privs: nothing that it runs gains privileges: no set-user-id program works.
    """

    nofile: int | None = None
    nproc: int | None = None
    memory_bytes: int | None = None
    cpu_seconds: int | None = None
    umask: int | None = None
    no_new_privs: bool = False

    def to_json(self) -> dict[str, Any]:
        """The limits that are not at their defaults."""
        return {name: value for name in _LIMITS if (value := getattr(self, name)) not in (None, False)}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> ProcessLimits:
        """What :meth:`to_json` made, here or in another version: :data:`NO_LIMITS` where that is nothing."""
        known = {name: value for name, value in said.items() if name in _LIMITS}
        return cls(**known) if known else NO_LIMITS


_LIMITS = tuple(field.name for field in fields(ProcessLimits))
NO_LIMITS = ProcessLimits()


@dataclass(frozen=True, slots=True)
class DurableJob:
    """What a durable job has that a version-1 command has not.

    Attributes:
        folder: where its output goes, its exit record, and where its standard input is.
        kill_grace: seconds between TERM and KILL.
        stdin: whether there is standard input for it; else it reads the null device.
    """

    folder: Path
    kill_grace: float
    stdin: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The order to start a command.

    Attributes:
        id: by which both sides name it from now on.
        argv: program (absolute path, or a name looked up in ``env["PATH"]``) and its arguments.
        env: its whole environment; :data:`MARK` is in it.
        cwd: its working directory.
        cwd_required: fail where that cannot be entered, instead of starting in ``/``.
        credentials: the user to become; None to stay the supervisor's own.
        time_limit: seconds until it is ended; None for no limit.
        output_limit: bytes kept of each output.
        limits: what the system holds it to.
        output_wait: seconds that it is waited for output that others pass on, once it has ended.
        caller: whose it is: starts that take long are counted, and wait, by caller.
        after: the command whose end it waits for before it starts; None for none.
        job: what is known of a durable job; None for a command that ends with the server's connection.
    """

    id: CommandId
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    output_limit: int
    cwd_required: bool = False
    credentials: Credentials | None = None
    time_limit: float | None = None
    limits: ProcessLimits = NO_LIMITS
    output_wait: float = OUTPUT_WAIT
    caller: str = ""
    after: CommandId | None = None
    job: DurableJob | None = None

    @property
    def folder(self) -> Path | None:
        """Where the files of a durable job are; None for another command."""
        return self.job.folder if self.job is not None else None

    def encode(self) -> bytes:
        """The frame that says so."""
        user, job = self.credentials, self.job
        header: FrameHeader = {
            "op": "start",
            "id": self.id,
            "argv": self.argv,
            "env": self.env,
            "cwd": self.cwd,
            "credentials": user and (user.uid, user.gid, user.groups),
            "time_limit": self.time_limit,
            "output_limit": self.output_limit,
            "limits": self.limits.to_json(),
            "output_wait": self.output_wait,
            "caller": self.caller,
        }
        if self.cwd_required:
            header["cwd_required"] = True
        if self.after is not None:
            header["after"] = self.after
        if job is not None:
            header["job"] = {"folder": str(job.folder), "kill_grace": job.kill_grace, "stdin": job.stdin}
        return encode_frame(header)

    @classmethod
    def decode(cls, header: FrameHeader) -> Start:
        """What :meth:`encode` made; see :func:`read_order`."""
        user, job = header["credentials"], header.get("job")
        return cls(
            id=header["id"],
            argv=header["argv"],
            env=header["env"],
            cwd=header["cwd"],
            output_limit=header["output_limit"],
            cwd_required=header.get("cwd_required", False),
            credentials=user and Credentials(user[0], user[1], tuple(user[2])),
            time_limit=header["time_limit"],
            limits=ProcessLimits.from_json(header.get("limits") or {}),
            output_wait=header.get("output_wait", OUTPUT_WAIT),
            caller=header.get("caller", ""),
            after=header.get("after"),
            job=job and DurableJob(Path(job["folder"]), job["kill_grace"], job["stdin"]),
        )


@dataclass(frozen=True, slots=True)
class End:
    """The order to end a command, if it is still there.

    Attributes:
        id: which.
        kill: at once, without the grace that a durable job may have.
    """

    id: CommandId
    kill: bool = True

    def encode(self) -> bytes:
        """The frame that says so."""
        return encode_frame({"op": "end", "id": self.id, "kill": self.kill})

    @classmethod
    def decode(cls, header: FrameHeader) -> End:
        """What :meth:`encode` made; see :func:`read_order`."""
        return cls(header["id"], header.get("kill", True))


@dataclass(frozen=True, slots=True)
class Withdraw:
    """The order not to start a command that still waits for another one. One that has started goes on."""

    id: CommandId

    def encode(self) -> bytes:
        """The frame that says so."""
        return encode_frame({"op": "withdraw", "id": self.id})

    @classmethod
    def decode(cls, header: FrameHeader) -> Withdraw:
        """What :meth:`encode` made; see :func:`read_order`."""
        return cls(header["id"])


@dataclass(frozen=True, slots=True)
class WatchOutput:
    """The order to report the output of a durable job from now on, or no more.

    Attributes:
        id: which.
        on: whether to report it.
    """

    id: CommandId
    on: bool

    def encode(self) -> bytes:
        """The frame that says so."""
        return encode_frame({"op": "watch", "id": self.id, "on": self.on})

    @classmethod
    def decode(cls, header: FrameHeader) -> WatchOutput:
        """What :meth:`encode` made; see :func:`read_order`."""
        return cls(header["id"], header["on"])


@dataclass(frozen=True, slots=True)
class Forget:
    """The order to forget how a durable job ended: the server has written it down."""

    id: CommandId

    def encode(self) -> bytes:
        """The frame that says so."""
        return encode_frame({"op": "forget", "id": self.id})

    @classmethod
    def decode(cls, header: FrameHeader) -> Forget:
        """What :meth:`encode` made; see :func:`read_order`."""
        return cls(header["id"])


Order = Start | End | Withdraw | WatchOutput | Forget
_ORDERS: dict[str, Callable[[FrameHeader], Order]] = {
    "start": Start.decode,
    "end": End.decode,
    "withdraw": Withdraw.decode,
    "watch": WatchOutput.decode,
    "forget": Forget.decode,
}


def read_order(header: FrameHeader) -> Order | None:
    """The order that a frame's header is; None for one that this version does not know.

    Raises:
        LookupError, TypeError, ValueError: it lacks something, or is not what it should be.
    """
    operation = header.get("op")
    decode = _ORDERS.get(operation) if isinstance(operation, str) else None
    return None if decode is None else decode(header)


# What a supervisor says


@dataclass(frozen=True, slots=True)
class KnownJob:
    """A durable job that a supervisor has when a server connects.

    Attributes:
        id: which.
        pid: its first process; None where it has not started.
        started: when that was started, in seconds since the epoch.
        record: how it ended; None where it has not.
    """

    id: str
    pid: int | None = None
    started: float | None = None
    record: ExitRecord | None = None

    def to_json(self) -> dict[str, Any]:
        """It as the hello has it."""
        if self.record is not None:
            return {"id": self.id, "record": self.record.to_json()}
        return {"id": self.id, "pid": self.pid, "started": self.started}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> KnownJob:
        """What :meth:`to_json` made."""
        record = ExitRecord.from_json(said["record"]) if "record" in said else None
        return cls(said["id"], said.get("pid"), said.get("started"), record)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The first event on a connection: who the supervisor is, and what it can do and has.

    Attributes:
        version: of its messages. Where it is above :data:`VERSION`, the rest is not read.
        instance: tells this supervisor from those before and after it.
        limits: whether it holds commands to :class:`ProcessLimits`.
        can_start_after: whether a command can wait, ready to start, for another one to end.
        groups: whether commands have control groups.
        jobs: the durable jobs that it has started, and those whose ends no server has written down.
    """

    version: int
    instance: str = ""
    limits: bool = False
    can_start_after: bool = False
    groups: bool = False
    jobs: tuple[KnownJob, ...] = ()

    def encode(self) -> bytes:
        """The frame that says so."""
        header = {"event": "hello", "version": self.version, "instance": self.instance, "limits": self.limits}
        jobs = [job.to_json() for job in self.jobs]
        return encode_frame({**header, "lanes": self.can_start_after, "groups": self.groups, "jobs": jobs})

    @classmethod
    def decode(cls, header: FrameHeader, blobs: Sequence[bytes] = ()) -> Hello:
        """What :meth:`encode` made; see :func:`read_event`."""
        if header["version"] > VERSION:
            return cls(version=header["version"])
        return cls(
            version=header["version"],
            instance=header["instance"],
            limits=bool(header.get("limits")),
            can_start_after=bool(header.get("lanes")),
            groups=bool(header.get("groups")),
            jobs=tuple(map(KnownJob.from_json, header["jobs"])),
        )


@dataclass(frozen=True, slots=True)
class Refused:
    """The supervisor does not take this server, and says why; then it closes the connection."""

    reason: str

    def encode(self) -> bytes:
        """The frame that says so."""
        return encode_frame({"event": "refused", "reason": self.reason})

    @classmethod
    def decode(cls, header: FrameHeader, blobs: Sequence[bytes] = ()) -> Refused:
        """What :meth:`encode` made; see :func:`read_event`."""
        return cls(str(header.get("reason")))


@dataclass(frozen=True, slots=True)
class Started:
    """A durable job has become its program.

    Attributes:
        id: which.
        pid: its first process.
        started: when that was started, in seconds since the epoch.
    """

    id: CommandId
    pid: int
    started: float

    def encode(self) -> bytes:
        """The frame that says so."""
        return encode_frame({"event": "started", "id": self.id, "pid": self.pid, "started": self.started})

    @classmethod
    def decode(cls, header: FrameHeader, blobs: Sequence[bytes] = ()) -> Started:
        """What :meth:`encode` made; see :func:`read_event`."""
        return cls(header["id"], header["pid"], header["started"])


@dataclass(frozen=True, slots=True)
class Wrote:
    """A durable job that is watched has written something.

    Attributes:
        id: which.
        totals: bytes of standard output and error so far.
    """

    id: CommandId
    totals: tuple[int, int] = (0, 0)

    def encode(self) -> bytes:
        """The frame that says so."""
        return encode_frame({"event": "output", "id": self.id, "totals": self.totals})

    @classmethod
    def decode(cls, header: FrameHeader, blobs: Sequence[bytes] = ()) -> Wrote:
        """What :meth:`encode` made; see :func:`read_event`."""
        said = header.get("totals")
        totals = (said[0], said[1]) if isinstance(said, list) and len(said) >= 2 else (0, 0)
        return cls(header["id"], totals)


@dataclass(frozen=True, slots=True)
class Ended:
    """A command has ended, or will never start.

    Attributes:
        id: which.
        record: how it ended.
        heads: the first bytes of its standard output and error, of a version-1 command that has started; a
            durable job has files.
    """

    id: CommandId
    record: ExitRecord
    heads: tuple[bytes, bytes] | None = None

    def encode(self) -> bytes:
        """The frame that says so."""
        return encode_frame(
            {"event": "ended", "id": self.id, "record": self.record.to_json()}, self.heads or ()
        )

    @classmethod
    def decode(cls, header: FrameHeader, blobs: Sequence[bytes] = ()) -> Ended:
        """What :meth:`encode` made, or something odd: whatever the record says, the command has ended."""
        heads = (blobs[0], blobs[1]) if len(blobs) >= 2 else None
        return cls(header["id"], ExitRecord.from_json(header.get("record")), heads)


SupervisorEvent = Hello | Refused | Started | Wrote | Ended
_EVENTS: dict[str, Callable[[FrameHeader, Sequence[bytes]], SupervisorEvent]] = {
    "hello": Hello.decode,
    "refused": Refused.decode,
    "started": Started.decode,
    "output": Wrote.decode,
    "ended": Ended.decode,
}


def read_event(header: FrameHeader, blobs: Sequence[bytes]) -> SupervisorEvent | None:
    """The event that a frame is; None for one that this version does not know.

    Raises:
        LookupError, TypeError, ValueError: it lacks something, or is not what it should be.
    """
    kind = header.get("event")
    decode = _EVENTS.get(kind) if isinstance(kind, str) else None
    return None if decode is None else decode(header, blobs)
