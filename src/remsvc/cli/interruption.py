"""What Ctrl-C does while a job is watched: it cancels the job on its server."""

from __future__ import annotations

import queue
import signal
import threading
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from remsvc.cli.terminal import error_line, warning_line
from remsvc.errors import NO_ANSWER, RemSvcError

if TYPE_CHECKING:
    from typing_extensions import Self

    from remsvc.client import Client

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_CALL_TIMEOUT = 5.0
_RETRY_SECONDS = 1.0


class Interruption:
    """A block in which Ctrl-C, TERM and HUP end the job: the first time by TERM, the second time by KILL.

    The watch goes on meanwhile and shows the last output of the job. The third time, or the second time
    where there is no job yet, raises ``KeyboardInterrupt``, which leaves the job to itself.

    Attributes:
        signal: the first signal that came; None while there was none.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._before: dict[int, Any] = {}
        # A signal handler puts the orders, and only this kind of queue permits that. True: kill; False:
        # cancel; None: there are no more orders.
        self._orders: queue.SimpleQueue[bool | None] = queue.SimpleQueue()
        self._worker: threading.Thread | None = None
        self._count = 0
        self.signal: int | None = None

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # under nohup, HUP stays ignored
                self._before[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._orders.put(None)
        if self._worker is not None:
            self._worker.join(2 * _CALL_TIMEOUT if kind is None else 0.0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def ends(self, job_id: str) -> None:
        """Say which job is to be ended. If a signal has come before, it is ended now."""
        worker = threading.Thread(target=self._cancel, args=(job_id,), name="cancel job", daemon=True)
        worker.start()
        self._worker = worker  # once it runs: a signal may come at any step, and the end joins it

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self.signal is None:
            self.signal = number
        if self._count > (1 if self._worker is None else 2):
            raise KeyboardInterrupt
        self._orders.put(self._count > 1)

    def _cancel(self, job_id: str) -> None:
        """Carry out the orders, however long the server cannot be reached."""
        kill = pending = told = False
        while True:
            try:
                order = self._orders.get(timeout=_RETRY_SECONDS if pending else None)
            except queue.Empty:
                order = kill
            if order is None:
                return
            kill = kill or order
            if not pending:
                _say_what_follows(job_id, kill)
            try:
                self._client.cancel_job(
                    job_id,
                    reason="interrupted by the user",
                    kill=kill,
                    timeout=_CALL_TIMEOUT,
                    repeat=False,  # this loop repeats it, with the order that is the last one by then
                )
                pending = False
            except NO_ANSWER as error:
                pending = True
                if not told:
                    warning_line(f"job {job_id} cannot be cancelled yet: {error}")
                told = True
            except RemSvcError as error:
                pending = False
                error_line(f"job {job_id} cannot be cancelled: {error}")


def _say_what_follows(job_id: str, kill: bool) -> None:
    if kill:
        warning_line(f"killing job {job_id}; Ctrl-C again leaves it")
    else:
        warning_line(f"cancelling job {job_id}; Ctrl-C again kills it")
