"""Jobs whose every run is counted and whose every byte is known."""

from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path

from remsvc.client import Client
from remsvc.client.jobs import Job, JobSpec, OutputChunk, StateChange
from remsvc.errors import DeadlineExceededError, ResourceExhaustedError, UnavailableError

from .server_host import DEADLINE, ServerHost, lines


class CountedJob:
    """A command that appends a line to ``log`` each time it runs, and then writes what is known beforehand.

    Args:
        pieces: how often it writes some 7 kB, with ``pause`` seconds after each.
        code: its exit code.
    """

    def __init__(self, name: str, log: Path, *, pieces: int = 5, pause: float = 0.01, code: int = 0) -> None:
        self.name = name
        self.code = code
        self._log = log
        self._expected = b"".join(
            b"".join(b"%d\n" % number for number in range(piece * 1000, piece * 1000 + 1000))
            for piece in range(1, pieces + 1)
        )
        loop = "seq $((n*1000)) $((n*1000+999)); echo piece $n >&2"
        self.spec = JobSpec(
            shell_command=f"echo {name} >> {log}; n=0; while [ $n -lt {pieces} ]; do n=$((n+1)); {loop}; "
            f"sleep {pause}; done; exit {code}",
            labels={"name": name},
        )
        self._errors = b"".join(b"piece %d\n" % piece for piece in range(1, pieces + 1))

    def create(self, client: Client) -> Job:
        """Create it, as often as it takes until the server has answered."""
        end = time.monotonic() + DEADLINE
        while True:
            try:
                return client.create_job(self.spec, self.name, timeout=10.0)
            except (UnavailableError, DeadlineExceededError, ResourceExhaustedError):
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def watch(self, client: Client, job: Job) -> Job:
        """Watch it to its end, through whatever happens; check every byte; the job as it ended."""
        received = {"stdout": bytearray(), "stderr": bytearray()}
        for event in client.watch_job(job.id, timeout=DEADLINE):
            if isinstance(event, OutputChunk):
                assert event.offset == len(received[event.stream]), self.name
                assert event.dropped == 0, self.name
                received[event.stream] += event.data
            else:
                assert isinstance(event, StateChange)
                job = event.job
        assert job.ended, self.name
        self.check_output(bytes(received["stdout"]), bytes(received["stderr"]))
        return job

    def check_output(self, stdout: bytes, stderr: bytes) -> None:
        digests = [
            hashlib.sha256(data).hexdigest() for data in (stdout, stderr, self._expected, self._errors)
        ]
        assert digests[:2] == digests[2:], f"{self.name}: {len(stdout)} bytes, not {len(self._expected)}"

    def check_end(self, job: Job) -> None:
        """It ended by itself, as was expected, having run once."""
        assert (job.state.value, job.exit_code) == ("FAILED" if self.code else "SUCCEEDED", self.code), job
        assert lines(self._log).count(self.name) == 1, self.name
        assert job.started_at is not None
        assert job.ended_at is not None

    def run(self, client: Client) -> None:
        """Create it, watch it, and check all of it."""
        self.check_end(self.watch(client, self.create(client)))


class Runners:
    """Threads that run jobs, each with a connection of its own. ``join`` raises what went wrong."""

    def __init__(self, host: ServerHost) -> None:
        self._host = host
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def start(self, job: CountedJob, times: int = 1) -> None:
        """Run it, ``times`` clients at once asking for the same."""

        def run() -> None:
            try:
                with self._host.client() as client:
                    job.run(client)
            except BaseException as error:  # noqa: BLE001  raised again by join()
                self._errors.append(error)

        for _ in range(times):
            thread = threading.Thread(target=run, name=job.name)
            thread.start()
            self._threads.append(thread)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(2 * DEADLINE)
            assert not thread.is_alive(), f"{thread.name} hangs"
        self._threads.clear()
        if self._errors:
            raise self._errors[0]
