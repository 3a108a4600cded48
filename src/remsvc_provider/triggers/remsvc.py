"""The trigger: runs the commands of a deferred task in the triggerer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from importlib import import_module
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from remsvc_provider import sealing
from remsvc_provider.hooks.remsvc import RemSvcHook
from remsvc_provider.outcome import EVT_ERROR, EVT_RESULTS, EVT_STATE, JobState, Outcome
from remsvc_provider.version_compat import AirflowException

__all__ = ["EVT_ERROR", "EVT_RESULTS", "EVT_STATE", "RemSvcTrigger"]


class _Event(TriggerEvent):
    """Airflow logs each event for the task: this one leaves out the output, which is there already."""

    def __repr__(self) -> str:
        return f"TriggerEvent<state {self.payload[EVT_STATE]}, {len(self.payload[EVT_RESULTS])} result(s)>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TriggerEvent) and bool(self.payload == other.payload)

    __hash__ = None  # type: ignore[assignment]


class RemSvcTrigger(BaseTrigger):
    """Runs commands over one stream, and fires one event when it has ended.

    The event's payload is ``{"state", "results", "error_msg"}``, with the results keyed by ``tid``.

    Args:
        commands: the command dicts of the operator, rendered and checked.
        grpc_conn_id: id of a connection of type ``remsvc``.
        stream_timeout: seconds for all commands together.
        metadata: call metadata beside the connection's token.
        sealed_metadata: the secret part of it, encrypted.
    """

    def __init__(
        self,
        *,
        commands: list[dict[str, Any]],
        grpc_conn_id: str = RemSvcHook.default_conn_name,
        stream_timeout: float = 3600.0,
        metadata: Sequence[tuple[str, str]] | None = None,
        sealed_metadata: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.commands = commands
        self.grpc_conn_id = grpc_conn_id
        self.stream_timeout = stream_timeout
        self.metadata, self._secret_metadata = sealing.split(metadata or ())
        self._sealed_metadata = sealed_metadata

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class path and the arguments that Airflow stores. They hold no token.

        Raises:
            AirflowException: ``metadata`` holds a token, and Airflow has no key to encrypt it.
        """
        arguments: dict[str, Any] = {
            "commands": self.commands,
            "grpc_conn_id": self.grpc_conn_id,
            "stream_timeout": self.stream_timeout,
            "metadata": self.metadata,
        }
        if self._secret_metadata:
            self._sealed_metadata = sealing.seal(self._secret_metadata)
        if self._sealed_metadata:
            arguments["sealed_metadata"] = self._sealed_metadata
        return "remsvc_provider.triggers.remsvc.RemSvcTrigger", arguments

    def __repr__(self) -> str:
        return f"<RemSvcTrigger of {len(self.commands)} command(s) on {self.grpc_conn_id}>"

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Run the commands and yield one event.

        Cancelled, because its task was killed or cleared, it cancels the call: the server then ends
        the command that runs.
        """
        outcome = await self._outcome()
        yield _Event(payload=outcome.payload())

    async def _outcome(self) -> Outcome:
        # Loading gRPC may take seconds where the disk is cold: not in the event loop that all triggers share.
        stream = await asyncio.to_thread(import_module, "remsvc_provider.stream")
        hook = RemSvcHook(self.grpc_conn_id)
        try:
            await hook.get_async_conn()
            metadata = [*self.metadata, *self._secret_metadata]
            if self._sealed_metadata:
                metadata += sealing.unseal(self._sealed_metadata)
        except AirflowException as error:
            return Outcome(JobState.FAILED, {}, str(error))
        outcome: Outcome = await stream.run_commands(
            self.commands,
            hook.options,
            stream_timeout=self.stream_timeout,
            metadata=metadata,
            log=self.log,
        )
        return outcome
