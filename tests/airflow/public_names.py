"""The provider's public API: what DAGs call, and what stored triggers of older versions are made with.

What is written here may only grow: whatever goes away breaks DAGs that we have never seen. ``mypy`` checks
the types, ``test_public_names.py`` everything else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Protocol

import grpc
import grpc.aio
from airflow.sdk import Connection, Context
from airflow.triggers.base import TriggerEvent

from remsvc.client import Client, ConnectionOptions
from remsvc_provider import get_provider_info
from remsvc_provider.hooks.remsvc import RemSvcHook
from remsvc_provider.operators.remsvc import JobState, RemSvcOperator, RemSvcResult, crc32hex
from remsvc_provider.triggers.remsvc import RemSvcTrigger


class HookApi(Protocol):
    remsvc_conn_id: str

    @property
    def options(self) -> ConnectionOptions: ...

    def get_conn(self) -> Connection: ...

    async def get_async_conn(self) -> Connection: ...

    def get_client(self) -> Client: ...

    def get_channel(self) -> grpc.Channel: ...

    def get_async_channel(self) -> grpc.aio.Channel: ...

    def get_call_metadata(self) -> list[tuple[str, str]]: ...

    def test_connection(self) -> tuple[bool, str]: ...


class MakesHook(Protocol):
    def __call__(self, remsvc_conn_id: str = "remsvc_default") -> HookApi: ...


class OperatorApi(Protocol):
    def execute(self, context: Context) -> Any: ...

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any: ...

    def on_kill(self) -> None: ...


class MakesOperator(Protocol):
    def __call__(
        self,
        *,
        commands: list[dict[str, Any]],
        grpc_conn_id: str = "remsvc_default",
        stream_timeout: float = 3600.0,
        metadata: Sequence[tuple[str, str]] | None = None,
        result_handler: Callable[[dict[int, dict[str, Any]]], Any] | None = None,
        deferrable: bool | None = None,
        start_from_trigger: bool | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        max_output_bytes: int = 262_144,
        skip_on_exit_code: int | Sequence[int] | None = None,
        parallel: int = 1,
        durable: bool = False,
        on_kill: str = "cancel",
        max_log_bytes: int | None = None,
        log_drain: float | None = None,
        task_id: str,
    ) -> OperatorApi: ...


class TriggerApi(Protocol):
    def serialize(self) -> tuple[str, dict[str, Any]]: ...

    def run(self) -> AsyncIterator[TriggerEvent]: ...


class MakesTrigger(Protocol):
    """The first four since version 1.0.0; the others are in triggers that version 1.1.1 has stored."""

    def __call__(
        self,
        *,
        commands: list[dict[str, Any]],
        grpc_conn_id: str = "remsvc_default",
        stream_timeout: float = 3600.0,
        metadata: Sequence[tuple[str, str]] | None = None,
        sealed_metadata: str | None = None,
        sealed_commands: str | None = None,
        origin: Mapping[str, Any] | None = None,
        deferred_at: float | None = None,
        execution_timeout: float | None = None,
        secrets: Sequence[str] = (),
        max_output_bytes: int = 262_144,
        skip_on_exit_code: Sequence[int] = (),
        parallel: int = 1,
        durable: bool = False,
        on_kill: str = "cancel",
        max_log_bytes: int | None = None,
        log_drain: float | None = None,
    ) -> TriggerApi: ...


HOOK: MakesHook = RemSvcHook
OPERATOR: MakesOperator = RemSvcOperator
TRIGGER: MakesTrigger = RemSvcTrigger
INFO: Callable[[], dict[str, Any]] = get_provider_info
HASH: Callable[[str], str] = crc32hex

STATES: tuple[JobState, JobState, JobState] = (JobState.SUCCESS, JobState.FAILED, JobState.CANCELLED)


def result_fields(result: RemSvcResult) -> tuple[str, Any, str | None]:
    return result.state, result.results, result.error_msg
