"""A process that runs triggers and logs as a triggerer's does: into a socket that its parent reads.

    python logging_process.py DESCRIPTOR TRIGGERS

TRIGGERS is a list, as JSON, of the keyword arguments of triggers; ``deferred_for`` are the seconds after
which Airflow would end the deferral. Prints one JSON object a line: ``{"socket": bool}``, whether it can be
seen how much waits in the socket; ``{"tick": n}`` each time the event loop has called a coroutine that wants
to be called every 20 ms; and ``{"trigger": n, "event": payload}`` when one has fired.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import structlog
from airflow.sdk.execution_time import supervisor

from remsvc_provider.log.pace import LogSocket
from remsvc_provider.triggers.remsvc import RemSvcTrigger


def say(**what: Any) -> None:
    print(json.dumps(what), file=sys.__stdout__, flush=True)


async def fire(number: int, arguments: dict[str, Any]) -> None:
    structlog.contextvars.bind_contextvars(trigger_id=number)  # as a triggerer does
    deferred_for = arguments.pop("deferred_for", None)
    trigger = RemSvcTrigger(**arguments, deferred_at=time.time())
    if deferred_for is not None:
        trigger.timeout_after = datetime.now(timezone.utc) + timedelta(seconds=deferred_for)
    trigger.task_instance = SimpleNamespace(
        id=number, dag_id="dag", run_id="run", task_id="task", map_index=-1, try_number=1
    )
    async for event in trigger.run():
        await trigger.cleanup()
        say(trigger=number, event=event.payload)


async def tick() -> None:
    number = 0
    while True:
        await asyncio.sleep(0.02)
        number += 1
        say(tick=number)


async def main(triggers: list[dict[str, Any]]) -> None:
    say(socket=LogSocket.of_this_process() is not None)
    ticking = asyncio.create_task(tick())
    await asyncio.gather(*(fire(number, each) for number, each in enumerate(triggers, 1)))
    ticking.cancel()


if __name__ == "__main__":
    supervisor._configure_logs_over_json_channel(int(sys.argv[1]))
    asyncio.run(main(json.loads(sys.argv[2])))
