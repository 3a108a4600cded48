"""``remsvc run`` with a durable job: it survives lost connections and restarts of the server."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NoReturn

from remsvc.cli.exit_codes import exit_as_command, job_end_line, job_exit_code
from remsvc.cli.interruption import Interruption
from remsvc.cli.job_description import as_json as job_as_json
from remsvc.cli.job_output import OutputCollector, OutputWriter, follow, own_streams
from remsvc.cli.standard_streams import OutputError, missing
from remsvc.cli.terminal import error_line, print_json, print_line, progress, warning_line
from remsvc.client.jobs import MOST_OUTPUT, Job, JobState, OutputChunk
from remsvc.errors import RemSvcError, ServerError, UnimplementedError
from remsvc.printable import printable

if TYPE_CHECKING:
    from remsvc.client import Client
    from remsvc.client.jobs import JobSpec

_UNKNOWN_OUTCOMES = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN", "CANCELLED")


def detach_job(client: Client, spec: JobSpec, request_id: str, *, as_json: bool) -> None:
    """Create a job and print its id.

    Raises:
        UnimplementedError: the server has no jobs.
        ServerError: no connection, or another error status.
    """
    client.connect()  # before this nothing is sent, so nothing is in doubt if it fails
    with _doubt_told(request_id):
        job = client.create_job(spec, request_id)
    _tell_output_limit(spec, job)
    with _named(f"job {job.id} was created and goes on: see remsvc jobs show {job.id}"):
        if as_json:
            print_json(job_as_json(job))
        else:
            print_line(printable(job.id))
        if "stdout" in missing:
            warning_line(f"there is no standard output, and the job's id is {job.id}")


def run_job(client: Client, spec: JobSpec, request_id: str, *, server: str, as_json: bool) -> NoReturn:
    """Create a job, show its output as it appears, and exit as the command did.

    Raises:
        UnimplementedError: the server has no jobs.
        ServerError: no connection, or another error status.
    """
    started = time.monotonic()
    client.connect()  # may take its time, and Ctrl-C still ends it at once
    with Interruption(client) as interruption:
        job = _create(client, spec, request_id, interruption)
        interruption.ends(job.id)
        _tell_output_limit(spec, job)
        collector, writer = OutputCollector(), OutputWriter(own_streams())
        job = _watch(client, job, server, collector if as_json else writer)
    if as_json:
        seconds = round(time.monotonic() - started, 3)
        with _named(f"job {job.id} has ended, and has the state {job.state}: see remsvc jobs show {job.id}"):
            print_json({**job_as_json(job), **collector.as_json(job), "server": server, "seconds": seconds})
    else:
        writer.finish(job)
    if line := job_end_line(job):
        error_line(line)
    if interruption.signal is not None and job.state is JobState.CANCELLED:
        sys.exit(128 + interruption.signal)
    exit_as_command(job_exit_code(job))


def _create(client: Client, spec: JobSpec, request_id: str, interruption: Interruption) -> Job:
    try:
        with _doubt_told(request_id):
            return client.create_job(spec, request_id)
    except UnimplementedError:
        if interruption.signal is not None:
            raise KeyboardInterrupt from None
        raise


@contextmanager
def _doubt_told(request_id: str) -> Iterator[None]:
    """A block that creates a job: where no answer comes, it says how the job can be found."""
    try:
        yield
    except (ServerError, KeyboardInterrupt) as error:
        if not isinstance(error, ServerError) or (error.sent and error.code in _UNKNOWN_OUTCOMES):
            warning_line(f"whether the job was created is not known; its request id is {request_id}")
        raise


def _tell_output_limit(asked: JobSpec, job: Job) -> None:
    if job.spec.output_limit < asked.output_limit < MOST_OUTPUT:
        warning_line(f"the server keeps at most {job.spec.output_limit} bytes of each output")


@contextmanager
def _named(line: str) -> Iterator[None]:
    """A block that writes something about a job: where that fails, say at least which job it is."""
    try:
        yield
    except (OutputError, BrokenPipeError):
        warning_line(line)
        raise


def _watch(client: Client, job: Job, server: str, write: Callable[[OutputChunk], None]) -> Job:
    """Watch a job until it has ended, with a spinner until it prints something; returns the ended job."""
    job_id = job.id
    with ExitStack() as spinner:
        show = spinner.enter_context(progress(_what_it_does(job, server)))

        def write_alone(chunk: OutputChunk) -> None:
            spinner.close()
            write(chunk)

        try:
            return follow(client, job_id, server, write_alone, lambda job: show(_what_it_does(job, server)))
        except BrokenPipeError:
            # Nobody reads its output any more: what SIGPIPE would have done.
            client.cancel_job(job_id, reason="nobody reads its output any more")
            raise
        except (RemSvcError, OSError, KeyboardInterrupt):
            warning_line(f"job {job_id} may still be running: see remsvc jobs show {job_id}")
            raise


def _what_it_does(job: Job, server: str) -> str:
    return f"job {job.id} is queued on {server}" if job.state is JobState.QUEUED else f"running on {server}"
