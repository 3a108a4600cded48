"""Start a durable job, go away, and follow it later: from another process, another machine, another day.

    python examples/client/detach_and_follow.py

The job runs on even where this program, its connection or the server itself ends meanwhile. It is followed at
any time by its id. ``run.py`` says how the server is named.
"""

from __future__ import annotations

import sys
import uuid

from run import options_from_environment

from remsvc.client import Client, ConnectionOptions, Job, JobSpec, OutputChunk
from remsvc.errors import RemSvcError


def detach(options: ConnectionOptions, spec: JobSpec) -> str:
    """Start a job; its id."""
    # Chosen by us. However often it is sent, the server starts one job for it. A program that may be
    # restarted stores it first, and sends the same one again.
    request_id = str(uuid.uuid4())
    with Client(options.for_jobs()) as client:
        return client.create_job(spec, request_id).id


def follow(options: ConnectionOptions, job_id: str) -> Job:
    """Show a job's output, from its first byte on, until it ends; how it ended."""
    with Client(options.for_jobs()) as client:
        for event in client.watch_job(job_id):
            if isinstance(event, OutputChunk):
                stream = sys.stdout if event.stream == "stdout" else sys.stderr
                stream.buffer.write(event.data)
                stream.flush()
            elif event.job.ended:
                return event.job
    raise AssertionError("a watch ends with the job's end, or with an error")


def main() -> int:
    options = options_from_environment()
    command = "for i in 1 2 3; do echo step $i; sleep 0.2; done; exit 7"
    job_id = detach(options, JobSpec(command, time_limit=60))
    print(f"job {job_id} was started", flush=True)
    job = follow(options, job_id)
    print(f"job {job.id}: {job.state}, exit code {job.exit_code}, {job.stdout.total} bytes of output")
    return job.exit_code or 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RemSvcError as error:
        raise SystemExit(f"error: {error}") from error
