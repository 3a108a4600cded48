"""``remsvc ping``: whether a server answers, and how long its answers take."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from remsvc.cli import parameters
from remsvc.cli.connection import open_client
from remsvc.cli.options import Option, WholeNumber, switch
from remsvc.cli.terminal import error_line, print_json, print_line
from remsvc.cli.verb import verb
from remsvc.errors import ServerError

if TYPE_CHECKING:
    from remsvc.client import Client, ConnectionOptions


@dataclass
class Statistics:
    """What has come back so far, with times in milliseconds."""

    sent: int = 0
    round_trips: list[float] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def answered(self, round_trip: float) -> None:
        """A ping came back, after so many seconds."""
        self.sent += 1
        self.round_trips.append(round(round_trip * 1000, 3))

    def not_answered(self) -> None:
        """A ping did not come back."""
        self.sent += 1

    @property
    def lost(self) -> int:
        return self.sent - len(self.round_trips)

    def as_json(self, server: str, transport: str) -> dict[str, object]:
        times = self.round_trips
        return {
            "server": server,
            "transport": transport,
            "sent": self.sent,
            "answered": len(times),
            "lost": self.lost,
            "min_ms": min(times, default=None),
            "avg_ms": round(sum(times) / len(times), 3) if times else None,
            "max_ms": max(times, default=None),
            "round_trips_ms": times,
        }

    def as_text(self, server: str) -> str:
        elapsed = round((time.monotonic() - self.started) * 1000)
        lost = round(100 * self.lost / self.sent) if self.sent else 0
        text = f"\n--- {server} ping statistics ---\n"
        text += f"{self.sent} sent, {len(self.round_trips)} answered, {lost}% lost, time {elapsed} ms"
        if times := self.round_trips:
            average = sum(times) / len(times)
            text += f"\nround-trip min/avg/max = {min(times):.3f}/{average:.3f}/{max(times):.3f} ms"
        return text


@verb(
    Option(
        "count",
        ("-c", "--count"),
        kind=WholeNumber(0),
        default=4,
        help="How many pings; 0: until Ctrl-C.",
    ),
    Option(
        "interval",
        ("-i", "--interval"),
        kind=parameters.seconds,
        metavar="SECONDS",
        default=1.0,
        help="Time from one ping to the next.",
    ),
    Option(
        "timeout",
        ("--timeout",),
        kind=parameters.seconds,
        metavar="SECONDS",
        default=10.0,
        help="How long to wait for an answer.",
    ),
    switch("as_json", "--json", help="Print one JSON object at the end."),
)
def ping(options: ConnectionOptions, count: int, interval: float, timeout: float, as_json: bool) -> None:
    """Ping a server and measure the round trips. The first one includes making the connection.

    Exits 0 if every ping was answered, else 255.

    \b
    Examples:
      remsvc ping -s build7:50051 -c 1
      remsvc ping -s build7:50051 --ca-cert ca.pem --token-file token
      remsvc ping -c 100 -i 0.1 --json | jq .avg_ms
    """
    statistics = Statistics()
    # As with ping(8), Ctrl-C is the end of an endless ping, not a failure.
    with open_client(options) as client, suppress(KeyboardInterrupt):
        transport = client.transport
        if not as_json:
            print_line(f"PING {options.target} by {transport}")
        while True:
            next_start = time.monotonic() + interval
            _ping_once(client, statistics, timeout, quiet=as_json)
            if statistics.sent == count:
                break
            time.sleep(max(0.0, next_start - time.monotonic()))
    if as_json:
        print_json(statistics.as_json(options.target, transport))
    else:
        print_line(statistics.as_text(options.target))
    sys.exit(255 if statistics.lost else 0)


def _ping_once(client: Client, statistics: Statistics, timeout: float, *, quiet: bool) -> None:
    number = statistics.sent + 1
    try:
        pong = client.ping(seq=number, timeout=timeout)
    except ServerError as error:
        if not statistics.round_trips:
            raise  # never reached: nothing to measure
        statistics.not_answered()
        error_line(f"seq={number}: {error}")
        return
    statistics.answered(pong.round_trip)
    if not quiet:
        print_line(f"answer: seq={pong.seq} time={statistics.round_trips[-1]:.3f} ms")
