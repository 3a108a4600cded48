"""Ending a process ends all that it started, and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from tests.execution.conftest import Shell
from tests.execution.processes import eventually, processes_with

ESCAPES = {
    "child": "sleep {0} & sleep {0}",
    "new session": "setsid sleep {0} & sleep {0}",
    "double fork": "(setsid sh -c 'sleep {0} & sleep {0} &' &) ; sleep {0} & sleep {0}",
    "nohup": "nohup sleep {0} >/dev/null 2>&1 & sleep {0} & (sleep {0} &) ; sleep {0}",
    "empty environment": "(setsid env -i sleep {0} &) ; (env -i sleep {0} >/dev/null 2>&1 &) ; sleep {0}",
    "daemon": "(env -i setsid sh -c 'sleep {0} & sleep {0} &' >/dev/null 2>&1 </dev/null &) ; sleep {0}",
    "no output held": "(setsid sleep {0} > /dev/null 2>&1 < /dev/null &) ; sleep {0}",
    "stopped": "sh -c 'kill -STOP $$' {0} & (setsid sh -c 'kill -STOP $$; sleep {0}' {0} &) ; sleep {0}",
    "ignores TERM": "trap '' TERM HUP INT; sleep {0} & while :; do sleep {0}; done",
}


@pytest.mark.parametrize("script", ESCAPES.values(), ids=ESCAPES.keys())
async def test_end_kills_the_whole_tree(shell: Shell, duration: str, script: str) -> None:
    process = shell(script.format(duration))
    expected = script.count("{0}")
    if "kill -STOP $$" in script:
        expected -= 1  # the stopped shell has not started its sleep
    await eventually(lambda: len(processes_with(duration)) >= expected, "all of it runs")
    process.end()
    outcome = await asyncio.wait_for(process.wait(), 30)
    assert outcome.signal == 9
    assert not outcome.timed_out
    assert not processes_with(duration)


@pytest.mark.parametrize("script", ESCAPES.values(), ids=ESCAPES.keys())
async def test_the_time_limit_kills_the_whole_tree(shell: Shell, duration: str, script: str) -> None:
    process = shell(f"echo before; {script.format(duration)}", time_limit=1.0)
    outcome = await asyncio.wait_for(process.wait(), 30)
    assert outcome.timed_out
    assert outcome.stdout.head == b"before\n"
    assert not processes_with(duration)


async def test_a_tree_that_keeps_forking_is_caught(shell: Shell, duration: str) -> None:
    script = f"n=0; while [ $n -lt 300 ]; do n=$((n+1)); setsid sleep {duration} & done; wait"
    process = shell(script)
    await eventually(lambda: len(processes_with(duration)) > 50, "it is forking")
    process.end()
    await asyncio.wait_for(process.wait(), 30)
    assert not processes_with(duration)


async def test_others_are_left_alone(shell: Shell, duration: str) -> None:
    other = shell(f"(setsid sleep {duration} &) ; sleep {duration} ; echo whole")
    await eventually(lambda: len(processes_with(duration)) == 2, "the other one runs")
    survivors = processes_with(duration)
    process = shell(f"(setsid sleep {duration} &) ; sleep {duration}")
    await eventually(lambda: len(processes_with(duration)) == 4, "both run")
    process.end()
    await asyncio.wait_for(process.wait(), 30)
    assert processes_with(duration) == survivors
    other.end()
    await asyncio.wait_for(other.wait(), 30)
    assert not processes_with(duration)


async def test_ending_twice_or_late_is_harmless(shell: Shell) -> None:
    process = shell("sleep 1000")
    process.end()
    process.end()
    assert (await process.wait()).signal == 9
    process.end()
    assert (await process.wait()).signal == 9


async def test_a_background_process_outlives_a_command_that_ended_by_itself(
    shell: Shell, duration: str
) -> None:
    outcome = await shell(f"nohup sleep {duration} >/dev/null 2>&1 & echo $!").wait()
    assert outcome.exit_code == 0
    await eventually(lambda: processes_with(duration), "the shell that was left has become it")
    (pid,) = processes_with(duration)
    import os
    import signal

    os.kill(pid, signal.SIGKILL)
