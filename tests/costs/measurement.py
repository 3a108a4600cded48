"""What an operation costs a server: work that can be counted, and so is the same on every machine."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

import grpc

from .counted_server import CountedServer, counted_server
from .operations import OPERATIONS, Operation
from .system_calls import CannotTraceError, count_between, tracing

PARTS = ("server", "supervisor")
CALLS, SYSTEM_CALLS, SYNCS, BLOCKS = "Python calls", "system calls", "waits for the disk", "blocks kept"

# Many small ones: what a server does some times a second, whatever is asked of it, is in few of them.
_BATCHES = 24
_TRACED_BATCHES = 16
# What follows an answer, such as the end of a call, belongs to the operation, too.
_SETTLE_SECONDS = 0.02


@dataclass
class Costs:
    """Of one operation, for each time that it is done.

    Attributes:
        values: by kind and part, such as ``"Python calls: server"``.
        untraced: why there are no system calls among them; empty where there are.
    """

    values: dict[str, float] = field(default_factory=dict)
    untraced: str = ""


def measure(name: str) -> Costs:
    """Do an operation again and again with a server of its own; takes some seconds."""
    with (
        tempfile.TemporaryDirectory(prefix="remsvc-costs-") as folder,
        counted_server(Path(folder)) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        operation = OPERATIONS[name]
        for _ in range(operation.warm_up):
            operation.do(channel)
        batch = partial(_do, operation, channel)
        costs = Costs(_python_costs(server, batch))
        try:
            costs.values |= _system_calls(server, batch, Path(folder))
        except CannotTraceError as error:
            costs.untraced = str(error)
    costs.values = {cost: value / operation.batch for cost, value in costs.values.items()}
    return costs


def _do(operation: Operation, channel: grpc.Channel) -> None:
    for _ in range(operation.batch):
        operation.do(channel)


def _least(batches: Iterable[int]) -> float:
    """What a batch costs: the quarter of them with the least of anything else tells."""
    return statistics.quantiles(batches, n=4)[0]


def _python_costs(server: CountedServer, batch: Callable[[], None]) -> dict[str, float]:
    """Of a batch, by kind and part."""
    seen = {part: [server.counts(part)] for part in PARTS}
    for _ in range(_BATCHES):
        batch()
        time.sleep(_SETTLE_SECONDS)
        for part in PARTS:
            seen[part].append(server.counts(part))
    values = {}
    for part, counts in seen.items():
        values[f"{CALLS}: {part}"] = _least(after.calls - before.calls for before, after in pairwise(counts))
        blocks = [each.blocks for each in counts]
        third = len(blocks) // 3
        kept = min(blocks[-third:]) - min(blocks[:third])
        values[f"{BLOCKS}: {part}"] = kept / (len(blocks) - third)
    return values


def _system_calls(server: CountedServer, batch: Callable[[], None], folder: Path) -> dict[str, float]:
    """Of a batch, by kind and part."""
    times = []
    with ExitStack() as stack:
        traces = {part: stack.enter_context(tracing(server.processes[part], folder)) for part in PARTS}
        for _ in range(_TRACED_BATCHES):
            start = time.time()
            batch()
            time.sleep(_SETTLE_SECONDS)
            times.append((start, time.time()))
    values = {}
    for part, trace in traces.items():
        for kind, calls in ((SYSTEM_CALLS, trace.calls), (SYNCS, trace.syncs)):
            values[f"{kind}: {part}"] = _least(count_between(calls, start, end) for start, end in times)
    return values
