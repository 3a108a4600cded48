"""What a process logs whose parent takes its time: all of it, in turns, and without holding anybody up.

The process logs by Airflow's own code into a socket, as a triggerer's does; the test is its parent.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

DEADLINE = 90.0
LINES = 52_000
FLOOD = 'awk \'BEGIN { x = "x"; while (length(x) < 90) x = x "x"; for (n = 1; n <= %d; n++) print n, x }\''
PROGRAM = Path(__file__).with_name("logging_process.py")


class LoggingProcess:
    """Runs triggers; its log is read when the test says so."""

    def __init__(self, conn_id: str, *triggers: dict[str, Any]) -> None:
        self._log, theirs = socket.socketpair()
        arguments = [{"grpc_conn_id": conn_id, "stream_timeout": 60.0, **each} for each in triggers]
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM), str(theirs.fileno()), json.dumps(arguments)],
                stdout=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                env=os.environ | {"PYTEST_VERSION": ""},
            )
        self.records: list[tuple[int, list[str]]] = []
        """In the order in which they came: of which trigger, and their lines."""
        self._lines: dict[int, list[str]] = {}
        self.ticks = 0
        self.sees_socket: bool | None = None
        self.events: dict[int, dict[str, Any]] = {}
        self._rest = b""
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._listener.join()
        self._log.close()

    def lines(self, trigger: int = 1) -> list[str]:
        """What the log of a trigger has, line by line."""
        return self._lines.get(trigger, [])

    def last_number(self, trigger: int = 1) -> int:
        """Of a flood's lines, as far as its last record goes."""
        match = re.fullmatch(r"1 out \| (\d+) x{90}", (self.lines(trigger) or [""])[-1])
        return int(match[1]) if match else 0

    def numbers(self, trigger: int = 1) -> list[int]:
        """The numbers of the lines of a flood."""
        found = (re.fullmatch(r"1 out \| (\d+) x{90}", line) for line in self.lines(trigger))
        return [int(match[1]) for match in found if match]

    def read(self, size: int = 4096) -> int:
        """Take some of the log, as a triggerer's parent does at a time."""
        ready, _, _ = select.select([self._log], [], [], 0.05)
        data = self._log.recv(size) if ready else b""
        *records, self._rest = (self._rest + data).split(b"\n")
        for record in map(json.loads, records):
            number, lines = record.get("trigger_id", 0), record["event"].split("\n")
            self.records.append((number, lines))
            self._lines.setdefault(number, []).extend(lines)
        return len(data)

    def read_until(self, condition: Callable[[], Any]) -> None:
        self._until(condition, self.read)

    def wait_until(self, condition: Callable[[], Any]) -> None:
        """Read nothing meanwhile."""
        self._until(condition, lambda: time.sleep(0.02))

    def _until(self, condition: Callable[[], Any], otherwise: Callable[[], object]) -> None:
        end = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < end, f"gave up; the end of the log: {self.records[-3:]}"
            otherwise()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                said = json.loads(line)
                if "socket" in said:
                    self.sees_socket = said["socket"]
                elif "tick" in said:
                    self.ticks = said["tick"]
                else:
                    self.events[said["trigger"]] = said["event"]


Start = Callable[..., LoggingProcess]


@pytest.fixture
def start(conn_id: str) -> Iterator[Start]:
    started: list[LoggingProcess] = []

    def start(
        *commands: str | list[str], each: list[dict[str, Any]] | None = None, **options: Any
    ) -> LoggingProcess:
        """A trigger for each; a list are the commands of one. ``each``: options of the single ones."""
        lists = [command if isinstance(command, list) else [command] for command in commands]
        origins = [{"request_id": f"{os.urandom(8).hex()}", "labels": {}, "try_number": 1} for _ in lists]
        triggers = [
            {"commands": [{"cmd": cmd} for cmd in cmds], "origin": origin, **options, **more}
            for cmds, origin, more in zip(lists, origins, each or [{}] * len(lists), strict=True)
        ]
        started.append(LoggingProcess(conn_id, *triggers))
        return started[-1]

    yield start
    for each in started:
        each.close()


def test_every_line_is_there_in_its_order(start: Start) -> None:
    running = start(FLOOD % LINES)
    running.read_until(lambda: running.events)
    assert running.sees_socket, "Airflow keeps the file that its loggers write to elsewhere"
    assert running.events[1]["state"] == "SUCCESS"
    assert running.numbers() == list(range(1, LINES + 1))


def test_the_event_loop_goes_on_where_nobody_reads(start: Start) -> None:
    """And memory does not grow: what is not logged yet is left with the server."""
    running = start(FLOOD % (10 * LINES), log_drain=600.0)
    running.read_until(lambda: running.last_number() > 100)
    before, ticks = psutil.Process(running.process.pid).memory_info().rss, running.ticks
    running.wait_until(lambda: running.ticks > ticks + 150)
    assert psutil.Process(running.process.pid).memory_info().rss - before < 25_000_000
    running.read_until(lambda: running.last_number() > 2000)


def test_those_who_print_much_get_equal_shares(start: Start) -> None:
    running = start(*[FLOOD % LINES] * 4)
    running.read_until(lambda: any(running.last_number(each) > LINES // 4 for each in (1, 2, 3, 4)))
    # From when all of them have begun.
    begun = max(next(i for i, (of, _) in enumerate(running.records) if of == each) for each in (1, 2, 3, 4))
    counts = Counter(number for number, _ in running.records[begun:])
    assert min(counts.values()) >= 0.7 * max(counts.values())


def test_who_prints_little_does_not_wait_for_them(start: Start, tmp_path: Path) -> None:
    wait = f"until [ -e {tmp_path}/go ]; do sleep 0.02; done; echo lone; touch {tmp_path}/gone"
    running = start(*[FLOOD % LINES] * 12, f"echo begun; {wait}; sleep 60")
    running.read_until(lambda: "1 out | begun" in running.lines(13))
    begun = len(running.records)
    running.read_until(lambda: len(running.records) > begun + 20)
    (tmp_path / "go").touch()
    # Nothing is read until it was printed for sure: what is in the socket by then is before it, and the
    # others would write 48 kB if each had its turn.
    running.wait_until((tmp_path / "gone").exists)
    running.wait_until(lambda ticks=running.ticks: running.ticks > ticks + 100)
    taken = 0
    while "1 out | lone" not in running.lines(13):
        taken += running.read()
        assert taken < 30_000


def test_the_time_that_a_log_takes_counts_for_nothing(start: Start) -> None:
    """Commands that have ended in time: no limit is for their logs, and nobody waits for these for ever."""
    flood = FLOOD % LINES
    limits = [
        {"stream_timeout": 6.0, "log_drain": 9.0},
        {"execution_timeout": 14.0, "log_drain": 600.0},
        {"stream_timeout": 6.0, "log_drain": 600.0},
        {"log_drain": 600.0},
    ]
    # What the last one prints is short enough to be read from the server at once.
    running = start(flood, flood, [flood, "echo second"], FLOOD % 120, each=limits)
    running.wait_until(lambda: {1, 2} <= running.events.keys())
    for number in (1, 2):
        event = running.events[number]
        assert (event["state"], event["error_msg"]) == ("SUCCESS", None)
        assert event["results"]["1"]["out"].startswith("1 xxx")
    assert not {3, 4} & running.events.keys()
    running.read_until(lambda: {3, 4} <= running.events.keys())
    assert running.events[3]["error_msg"] is None
    assert running.numbers(3) == list(range(1, LINES + 1))
    assert "2 out | second" in running.lines(3)
    assert running.numbers(4) == list(range(1, 121))


def test_an_event_comes_before_airflow_ends_the_deferral(start: Start) -> None:
    """At once where the time is as good as up; else the end of the log is waited for a while."""
    running = start(*[FLOOD % LINES] * 2, each=[{}, {"deferred_for": 1.0}], log_drain=0.0)
    running.wait_until(lambda: len(running.events) == 2)
    assert list(running.events) == [2, 1]
    assert {event["state"] for event in running.events.values()} == {"SUCCESS"}


def test_the_last_lines_are_there_although_nobody_reads_for_long(start: Start) -> None:
    """More than the time in which a task waits for its log, as when a triggerer's parent builds something."""
    last, killed = "echo hello; exit 3", "echo begun; sleep 600"
    running = start(FLOOD % LINES, last, killed, each=[{}, {}, {"execution_timeout": 6.0}], log_drain=0.0)
    running.wait_until(lambda: {2, 3} <= running.events.keys())
    end = "command 1 (commands[0]) ended with rc 3"
    running.read_until(lambda: end in running.lines(2) and "::endgroup::" in running.lines(3))
    for trigger, line in ((2, "1 out | hello"), (3, "1 out | begun")):
        assert f"::group::Command 1: {(last, killed)[trigger - 2]}" in running.lines(trigger)
        assert line in running.lines(trigger)
        assert not [line for line in running.lines(trigger) if "left out" in line]


def test_what_the_socket_has_no_room_for_is_left_out_and_said(start: Start) -> None:
    count = 16
    limits: list[dict[str, Any]] = [{"execution_timeout": 6.0}] * count
    # With another that goes on, as there is always one in a triggerer: what is to be said is said later.
    running = start(*[FLOOD % LINES] * count, "sleep 600", each=[*limits, {}])
    # All of them, although nobody reads: none was held up by a socket that is full.
    running.wait_until(lambda: len(running.events) == count)
    logs = range(1, count + 1)
    running.read_until(lambda: all("::endgroup::" in running.lines(each) for each in logs))
    lines = [line for each in logs for line in running.lines(each)]
    assert any("characters are left out here: Airflow takes no more" in line for line in lines)


def test_a_log_that_takes_too_long_has_the_end(start: Start) -> None:
    running = start(f"{FLOOD % (4 * LINES)}; exit 3", log_drain=0.5)
    ticks = 0
    while not running.events:  # a slow parent: a little each tick
        running.wait_until(lambda ticks=ticks: running.ticks > ticks or running.events)
        ticks = running.ticks
        running.read(8192)
    running.read_until(lambda: running.process.poll() is not None)
    while running.read():
        pass
    numbers = running.numbers()
    begin = next(i for i, n in enumerate(numbers, 1) if n != i) - 1
    assert begin > 100
    assert numbers[begin:] == list(range(numbers[begin], 4 * LINES + 1))
    (gap,) = [line for line in running.lines() if " bytes are left out here; all of it: " in line]
    size = sum(len(f"{n} ") + 91 for n in range(begin + 1, numbers[begin]))
    assert abs(int(gap.split()[4]) - size) <= 100  # a line that was cut in two
    assert running.events[1]["results"]["1"]["rc"] == 3
