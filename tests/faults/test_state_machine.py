"""Create, repeat, watch, cancel, crash and restart in any order, against a simple model."""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from remsvc.client import Client
from remsvc.client.jobs import Job, JobSpec, JobState, OutputChunk, StateChange
from remsvc.errors import AlreadyExistsError
from tests.conftest import end_supervisors

from .server_host import ServerHost, lines, wait_until
from .test_killed_server import ROUNDS

OFFSETS = st.sampled_from([-1, 0, 1]) | st.integers(-1, 400_000)
ERROR_OFFSETS = st.integers(-1, 10)


@dataclass
class Modelled:
    """What a job may be, as far as its caller can know.

    Attributes:
        gate: the file that it waits for before it writes the rest and ends.
        head, rest: what it writes to standard output before the gate, and after it.
        released, cancelled: what was done to it.
        doomed: its supervisor was killed.
        ended: how it ended; once known, that never changes.
    """

    name: str
    spec: JobSpec
    gate: Path
    head: bytes
    rest: bytes
    code: int
    job_id: str
    released: bool = False
    cancelled: bool = False
    doomed: bool = False
    ended: Job | None = None

    def check(self, job: Job) -> None:
        assert job.id == self.job_id
        assert job.request_id == self.name
        if self.ended is not None:
            assert job == self.ended
            return
        own_end = "FAILED" if self.code else "SUCCEEDED"
        # One that is created before there is another supervisor waits for it.
        possible = {"RUNNING", "QUEUED"}
        possible |= {own_end} if self.released else set()
        possible |= {"CANCELLED"} if self.cancelled else set()
        possible |= {"LOST"} if self.doomed else set()
        assert job.state.value in possible
        if job.ended:
            assert job.exit_code == (self.code if job.state.value == own_end else job.exit_code)
            self.ended = job


class JobsMachine(RuleBasedStateMachine):
    """One server with one state directory for each example."""

    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name)
        self._log = self._path / "log"
        self._models: list[Modelled] = []
        self._numbers = itertools.count()
        self._host = ServerHost(self._path)
        self._client: Client | None = None

    @initialize()
    def start(self) -> None:
        self._host.start()
        self._client = self._host.client()

    @property
    def client(self) -> Client:
        assert self._client is not None
        return self._client

    def teardown(self) -> None:
        for model in self._models:
            model.gate.touch()
        try:
            for model in self._models:
                self._watch_to_the_end(model, 0, 0)
        finally:
            if self._client is not None:
                self._client.close()
            self._host.end()
            end_supervisors(self._path)
            self._folder.cleanup()

    # Rules

    @rule(target=jobs, size=st.sampled_from([0, 1, 1000, 300_000]), code=st.sampled_from([0, 7]))
    def create(self, size: int, code: int) -> Modelled:
        name = f"job{next(self._numbers)}"
        gate = self._path / f"{name}.gate"
        head = (name.encode() + b" ") * size
        script = (
            f"echo {name} >> {self._log}; yes '{name} ' | tr -d '\\n' | head -c {len(head)}; echo error >&2; "
            f"while [ ! -e {gate} ]; do sleep 0.02; done; echo rest; exit {code}"
        )
        spec = JobSpec(shell_command=script, kill_grace=1.0)
        job = self.client.create_job(spec, name)
        model = Modelled(name, spec, gate, head, b"rest\n", code, job.id)
        self._models.append(model)
        model.check(job)
        return model

    @rule(model=jobs)
    def repeat(self, model: Modelled) -> None:
        model.check(self.client.create_job(model.spec, model.name))

    @rule(model=jobs)
    def reuse_its_request_id(self, model: Modelled) -> None:
        with pytest.raises(AlreadyExistsError) as caught:
            self.client.create_job(JobSpec(shell_command="echo other"), model.name)
        assert caught.value.job_id == model.job_id

    @rule(model=jobs, offset=OFFSETS, error_offset=ERROR_OFFSETS, events=st.integers(1, 6))
    def watch_a_little(self, model: Modelled, offset: int, error_offset: int, events: int) -> None:
        """Some events from anywhere; it is given up then."""
        if not model.released and not model.cancelled and not model.doomed:
            # It does not end: no more events than there are.
            events = 1 + (0 <= offset < len(model.head))
        watching = self.client.watch_job(
            model.job_id, stdout_offset=offset, stderr_offset=error_offset, timeout=30
        )
        for event in itertools.islice(watching, events):
            self._check_event(model, event, offset, error_offset)
        watching.close()

    @rule(model=jobs, offset=OFFSETS, error_offset=ERROR_OFFSETS)
    def let_it_end(self, model: Modelled, offset: int, error_offset: int) -> None:
        model.gate.touch()
        model.released = True
        self._watch_to_the_end(model, offset, error_offset)

    @rule(model=jobs)
    def let_it_go_on(self, model: Modelled) -> None:
        model.gate.touch()
        model.released = True

    @rule(model=jobs, kill=st.booleans())
    def cancel(self, model: Modelled, kill: bool) -> None:
        model.cancelled = True
        model.check(self.client.cancel_job(model.job_id, reason="enough", kill=kill))

    @rule()
    def crash(self) -> None:
        self._host.kill()
        self._host.start()

    @rule()
    def stop_and_start(self) -> None:
        assert self._host.stop() == 0
        self._host.start()

    @rule()
    def supervisor_dies(self) -> None:
        for model in self._models:
            # One that still waits, for a supervisor after the last one that died, is not lost with this one.
            wait_until(lambda model=model: not self._waits(model), "it runs")
            model.doomed = True
        old = self._host.supervisors()
        self._host.kill_supervisor()
        # What is given to a supervisor whose death nobody has noticed yet is lost as well.
        wait_until(lambda: self._host.supervisors() - old, "there is another one")
        for model in self._models:
            wait_until(lambda model=model: self.client.get_job(model.job_id).ended, "it is lost")
            model.check(self.client.get_job(model.job_id))

    # What always holds

    @invariant()
    def every_job_is_there_and_as_it_may_be(self) -> None:
        if self._client is None:
            return
        listed = list(self.client.list_jobs(page_size=2))
        assert [job.id for job in listed] == [model.job_id for model in reversed(self._models)]
        for job, model in zip(listed, reversed(self._models), strict=True):
            model.check(job)
        runs = lines(self._log)
        assert len(runs) == len(set(runs)), "one has run twice"

    def _waits(self, model: Modelled) -> bool:
        return self.client.get_job(model.job_id).state is JobState.QUEUED

    def _watch_to_the_end(self, model: Modelled, offset: int, error_offset: int) -> None:
        received = {"stdout": b"", "stderr": b""}
        last: Job | None = None
        for event in self.client.watch_job(
            model.job_id, stdout_offset=offset, stderr_offset=error_offset, timeout=30
        ):
            self._check_event(model, event, offset, error_offset)
            if isinstance(event, OutputChunk):
                received[event.stream] += event.data
            else:
                last = event.job
        assert last is not None
        assert last.ended
        model.released = True
        model.check(last)
        if last.state.value in ("SUCCEEDED", "FAILED"):
            whole = model.head + model.rest
            assert received["stdout"] == (whole[offset:] if offset >= 0 else b"")
            assert received["stderr"] == (b"error\n"[error_offset:] if error_offset >= 0 else b"")
            assert lines(self._log).count(model.name) == 1

    def _check_event(
        self, model: Modelled, event: StateChange | OutputChunk, offset: int, error_offset: int
    ) -> None:
        if isinstance(event, StateChange):
            return
        if event.stream == "stderr" and (model.cancelled or model.doomed):
            return  # the shell may have had something to say about that
        whole = model.head + model.rest if event.stream == "stdout" else b"error\n"
        assert event.offset >= (offset if event.stream == "stdout" else error_offset)
        assert event.data == whole[event.offset : event.offset + len(event.data)]
        assert event.dropped == 0


JobsMachine.TestCase.settings = settings(
    max_examples=max(5, ROUNDS // 4),
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # to make an example smaller takes minutes
    print_blob=True,
)


@pytest.mark.timeout(120 + 10 * ROUNDS)
class TestJobs(JobsMachine.TestCase):  # type: ignore[misc]
    """Hypothesis prints the steps of an example that fails."""
