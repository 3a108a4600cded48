"""What a task was given, checked once its templates are rendered: in a worker and in a triggerer alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from remsvc_provider import sealing
from remsvc_provider.commands import (
    DEFAULT_MAX_OUTPUT_BYTES,
    check_commands,
    check_exit_codes,
    check_log_drain,
    check_max_log_bytes,
    check_metadata,
    check_number,
    check_on_kill,
    check_stream_timeout,
)
from remsvc_provider.job_keys import storable
from remsvc_provider.masking import secrets_in

FIELDS = ("commands", "grpc_conn_id", "metadata", "env", "cwd")
"""The operator's template fields."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """The operator's parameters, as a trigger takes them.

    Attributes:
        commands: checked, each with the ``env`` and ``cwd`` of all, and storable as JSON.
        stream_timeout: seconds for all of them together.
        public, secret: the call metadata without its credentials, and the credentials.
        secrets: what of the rendered fields no log may show.
        options: how to run the commands: what is not of the wire.
    """

    commands: list[dict[str, Any]]
    stream_timeout: float
    public: sealing.Metadata
    secret: sealing.Metadata
    secrets: list[str]
    options: dict[str, Any]

    @classmethod
    def checked(
        cls,
        *,
        commands: object,
        env: object,
        cwd: object,
        metadata: object,
        stream_timeout: object,
        options: Mapping[str, Any],
        known_secrets: bool = True,
    ) -> Parameters:
        """Check all of them.

        Args:
            commands, env, cwd, metadata, stream_timeout: the operator's, rendered.
            options: the operator's others, by their names; one that is left out has its default.
            known_secrets: the values that Airflow knows as secrets in this process are secrets of this task.

        Raises:
            AirflowException: one cannot be used; names it, its value and what was expected.
        """
        checked_commands = check_commands(commands, env, cwd)
        seconds = check_stream_timeout(stream_timeout)
        checked_options = _check_options(**options)
        public, secret = sealing.split(check_metadata(metadata))
        return cls(
            commands=[storable(command) for command in checked_commands],
            stream_timeout=seconds,
            public=public,
            secret=secret,
            # Of the commands as they are: in a stored one, bytes do not show what they hold.
            secrets=sorted(secrets_in([*checked_commands, *public], known=known_secrets)),
            options=checked_options,
        )


def _check_options(
    *,
    max_output_bytes: object = DEFAULT_MAX_OUTPUT_BYTES,
    skip_on_exit_code: object = None,
    parallel: object = 1,
    durable: object = False,
    on_kill: object = "cancel",
    max_log_bytes: object = None,
    log_drain: object = None,
) -> dict[str, Any]:
    return {
        "max_output_bytes": check_number("max_output_bytes", max_output_bytes, 1),
        "skip_on_exit_code": check_exit_codes(skip_on_exit_code),
        "parallel": check_number("parallel", parallel, 1),
        "durable": bool(durable),
        "on_kill": check_on_kill(on_kill),
        "max_log_bytes": check_max_log_bytes(max_log_bytes),
        "log_drain": check_log_drain(log_drain),
    }
