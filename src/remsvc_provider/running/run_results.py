"""Makes the outcome of a run of the jobs that have ended: a result, or a problem, for each command."""

from __future__ import annotations

from remsvc.client.jobs import Job, JobState
from remsvc.printable import printable
from remsvc_provider.log.job_output import JobOutput
from remsvc_provider.log.task_log import TaskLog
from remsvc_provider.log.texts import failure_text, shown_id, without_nul
from remsvc_provider.masking import Masking
from remsvc_provider.outcome import Outcome, Results, RunState
from remsvc_provider.plan import Plan


class RunResults:
    """What has become of a run's commands.

    Args:
        plan: what runs.
        masking: of the secrets in it.
        task_log: tells how each command ended.
    """

    def __init__(self, plan: Plan, masking: Masking, task_log: TaskLog) -> None:
        self._plan = plan
        self._masking = masking
        self._task_log = task_log
        self._results: Results = {}
        self._problems: list[str] = []
        self._notes: list[str] = []  # of commands that ended by themselves

    @property
    def count(self) -> int:
        """How many commands have a result."""
        return len(self._results)

    @property
    def has_problems(self) -> bool:
        """Whether a command could not be followed to a result: then no further one is to be started."""
        return bool(self._problems)

    @property
    def failed(self) -> bool:
        """Whether a command has failed or has no result."""
        failed = any(self._plan.failed(result["rc"]) for result in self._results.values())
        return failed or self.has_problems

    def add_problem(self, problem: str) -> None:
        """Take notice of a command that has no result, and why."""
        self._problems.append(problem)

    def take(self, tid: int, job: Job, output: JobOutput) -> None:
        """Make a result of a job that has ended; or a problem, where it has no exit code that could be
        one."""
        where = f"command {tid} (commands[{tid - 1}])"
        if job.state in (JobState.CANCELLED, JobState.LOST):
            verb = (
                "was cancelled"
                if job.state is JobState.CANCELLED
                else "is lost: what became of it is not known"
            )
            self._problems.append(
                f"{where} {verb} (job {shown_id(job.id)}: {printable(job.reason) or 'no reason given'})"
            )
            return
        rc, out, err = job.exit_code, *output.texts(job)
        if rc is None and job.state is JobState.FAILED:
            # As version 1 has it.
            rc, err = 1, err or printable(job.reason)
        if rc is None or (rc == 0) != (job.state is JobState.SUCCEEDED):
            self._problems.append(
                f"{where} ended as {job.state} with exit code {rc} (job {shown_id(job.id)})"
            )
            return
        out, err, note = without_nul(out, err)
        command = self._plan.commands[tid - 1]
        self._results[tid] = {
            "tid": tid,
            "rc": rc,
            "out": out,
            "err": err,
            "hsh": command.hash,
            "cmd": command.text(self._masking),
        }
        seconds = (job.ended_at - job.started_at).total_seconds() if job.ended_at and job.started_at else 0.0
        text = f"Command {tid} ended with rc {rc} after {seconds:.2f} s"
        if job.exit_code is None:
            text = f"Command {tid} could not be started"
        why = printable(job.reason)
        signal = f"ended by signal {job.signal}" if job.signal else ""
        # It ended by itself, and yet there is a reason to be told: part of its output could not be stored.
        loss = why.removeprefix(signal).lstrip("; ") if job.exit_code is not None else ""
        if loss:
            self._notes.append(f"{where}: {loss}")
        if why or signal:
            text += f": {why or signal}"
        if note:
            text += f"\nnote: {note}"
        if not self._plan.failed(rc):
            self._task_log.add(text, "warning" if loss else "info")
            return
        # What is folded need not be unfolded to see why.
        last = [f"  {line}" for line in output.last_lines]
        self._task_log.add("\n".join([f"{text}{', its last lines:' if last else ''}", *last]), "error")

    def outcome(self, state: RunState, problem: str = "", *, not_started: int) -> Outcome:
        """The outcome of the run.

        Args:
            state: how it ended.
            problem: why, if that is known and is no command's.
            not_started: how many commands were not started.
        """
        if state is RunState.SUCCESS:
            return Outcome(state, self._results)
        problems = [problem] if problem else []
        problems += self._problems
        if self._problems and not_started:
            problems.append(f"the remaining {not_started} command(s) were not started")
        problems += self._notes
        results = [self._results[tid] for tid in sorted(self._results)]
        problems += [failure_text(result) for result in results if self._plan.failed(result["rc"])]
        return Outcome(state, self._results, self._masking("; ".join(problems)))
