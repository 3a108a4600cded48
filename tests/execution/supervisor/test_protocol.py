"""What server and supervisor say to each other is the same to both, and to the versions before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from remsvc.execution.supervisor.frames import FrameReader, encode_frame
from remsvc.execution.supervisor.protocol import (
    NO_LIMITS,
    OUTPUT_WAIT,
    VERSION,
    Credentials,
    DurableJob,
    End,
    Ended,
    Forget,
    Hello,
    KnownJob,
    Order,
    ProcessLimits,
    Refused,
    Start,
    Started,
    SupervisorEvent,
    WatchOutput,
    Withdraw,
    Wrote,
    read_event,
    read_order,
)
from remsvc.execution.supervisor.records import CANCELLED, ExitRecord, Gap, LostOutput

RECORDS = [
    ExitRecord(exit_code=0, totals=(3, 0), started=1.5, ended=2.5),
    ExitRecord(signal=9, cause=CANCELLED, started=1.5, ended=2.5, left="left something behind"),
    ExitRecord(exit_code=1, totals=(9, 9), gaps=(Gap(1, 4), Gap()), lost=LostOutput(3, 0, "No space left")),
    ExitRecord(error="there is no such program", ended=2.5),
    ExitRecord(withdrawn=True),
]
EVENTS: list[SupervisorEvent] = [
    Hello(version=VERSION, instance="a", limits=True, can_start_after=True, groups=True),
    Hello(
        version=VERSION,
        instance="a",
        jobs=(KnownJob("waits"), KnownJob("runs", 7, 1.5), KnownJob("ended", record=RECORDS[1])),
    ),
    Refused("it comes from a command"),
    Started("job", 7, 1.5),
    Wrote("job", (3, 4)),
    *(Ended("job", record) for record in RECORDS),
    Ended(5, RECORDS[0], (b"out", b"\xff")),
]
ORDERS: list[Order] = [
    Start(id=5, argv=["true"], env={"A": "b"}, cwd="/", output_limit=10),
    Start(
        id="job",
        argv=["/bin/sh", "-c", "true"],
        env={},
        cwd="/tmp",
        output_limit=10,
        cwd_required=True,
        credentials=Credentials(1, 2, (2, 3)),
        time_limit=4.5,
        limits=ProcessLimits(nofile=100, no_new_privs=True),
        output_wait=1.5,
        caller="alice",
        after=4,
        job=DurableJob(Path("/state/jobs/job"), kill_grace=2.0, stdin=True),
    ),
    End("job", kill=False),
    Withdraw(5),
    WatchOutput("job", on=True),
    Forget("job"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_arrives_as_it_was_sent(event: SupervisorEvent) -> None:
    ((header, blobs),) = FrameReader().feed(event.encode())
    assert read_event(header, blobs) == event


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: type(order).__name__)
def test_an_order_arrives_as_it_was_given(order: Order) -> None:
    ((header, _),) = FrameReader().feed(order.encode())
    assert read_order(header) == order


def test_an_order_of_the_version_before() -> None:
    header = {
        "op": "start",
        "id": 5,
        "argv": ["true"],
        "env": {},
        "cwd": "/",
        "credentials": [1, 2, [3]],
        "time_limit": None,
        "output_limit": 10,
    }
    order = read_order(header)
    assert isinstance(order, Start)
    assert (order.credentials, order.limits, order.output_wait) == (
        Credentials(1, 2, (3,)),
        NO_LIMITS,
        OUTPUT_WAIT,
    )
    assert (order.after, order.job, order.cwd_required, order.caller) == (None, None, False, "")
    assert read_order({"op": "end", "id": 5}) == End(5, kill=True)


def test_what_the_version_before_reads_is_always_there() -> None:
    """It takes these keys for granted."""
    ((start, _),) = FrameReader().feed(ORDERS[1].encode())
    assert {*("op", "id", "argv", "env", "cwd", "credentials", "time_limit", "output_limit")} <= start.keys()
    assert start["job"] == {"folder": "/state/jobs/job", "kill_grace": 2.0, "stdin": True}
    ((ended, _),) = FrameReader().feed(Ended(5, RECORDS[0]).encode())
    assert ended["record"]["totals"] == [3, 0]
    assert not ended["record"].keys() & {"error", "withdrawn"}
    ((hello, _),) = FrameReader().feed(EVENTS[1].encode())
    assert hello["version"] == VERSION
    assert hello["jobs"][:2] == [
        {"id": "waits", "pid": None, "started": None},
        {"id": "runs", "pid": 7, "started": 1.5},
    ]
    assert hello["jobs"][2].keys() == {"id", "record"}


@pytest.mark.parametrize("header", [{}, {"op": None}, {"op": "forecast", "id": 1}, {"event": []}])
def test_what_is_not_known_is_nothing(header: dict[str, Any]) -> None:
    assert read_order(header) is None
    assert read_event(header, []) is None


def test_of_a_later_version_nothing_but_its_number_is_read() -> None:
    ((header, _),) = FrameReader().feed(
        encode_frame({"event": "hello", "version": VERSION + 1, "jobs": {"other": "shape"}})
    )
    assert read_event(header, []) == Hello(version=VERSION + 1)


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        "x",
        {"totals": "x"},
        {"totals": [1]},
        {"exit_code": "0"},
        {"exit_code": 0, "gaps": [[0, 0]]},
        {"signal": [9]},
        {"ended": "yesterday"},
        {"lost": 5},
        {"error": 5},
    ],
    ids=repr,
)
def test_an_exit_record_that_is_not_understood_says_so(said: object) -> None:
    record = ExitRecord.from_json(said)
    assert record == ExitRecord(garbled=repr(said))


@pytest.mark.parametrize("record", [{}, {"record": None}, {"record": {"exit_code": "0"}}], ids=repr)
def test_a_command_has_ended_whatever_is_said_of_how(record: dict[str, Any]) -> None:
    """Otherwise somebody would wait for its end for ever."""
    event = read_event({"event": "ended", "id": 5, **record}, [b"only one output"])
    assert event == Ended(5, ExitRecord(garbled=repr(record.get("record"))))
