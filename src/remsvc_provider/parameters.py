"""What a task was given, checked once its templates are rendered: in a worker and in a triggerer alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remsvc_provider import sealing
from remsvc_provider.commands import check_commands
from remsvc_provider.job_keys import storable
from remsvc_provider.masking import secrets_in
from remsvc_provider.run_options import RunOptions, check_seconds
from remsvc_provider.version_compat import AirflowException

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
        options: how to run the commands.
    """

    commands: list[dict[str, Any]]
    stream_timeout: float
    public: sealing.Metadata
    secret: sealing.Metadata
    secrets: list[str]
    options: RunOptions

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
            known_secrets: whether to mask every value that Airflow knows as a secret in this process. False
                in a triggerer whose task reads none: it knows those of other tasks.

        Raises:
            AirflowException: one cannot be used; names it, its value and what was expected.
        """
        checked_commands = check_commands(commands, env, cwd)
        seconds = check_seconds("stream_timeout", stream_timeout, zero=False)
        checked_options = RunOptions.checked(options)
        public, secret = sealing.split(check_metadata(metadata))
        named = [{key: value} for key, value in public]
        return cls(
            commands=[storable(command) for command in checked_commands],
            stream_timeout=seconds,
            public=public,
            secret=secret,
            # Of the commands as they are: in a stored one, bytes do not show what they hold. Of the metadata
            # the keys too, and what stands under one that says so.
            secrets=sorted(secrets_in([*checked_commands, *public, *named], known=known_secrets)),
            options=checked_options,
        )


def check_metadata(metadata: object) -> list[tuple[str, str]]:
    """Check the call metadata. No value is ever quoted: it may be a token.

    Raises:
        AirflowException: naming the wrong entry by its index, counted from 0.
    """
    if metadata is None:
        return []
    if isinstance(metadata, (str, bytes, Mapping)) or not isinstance(metadata, Sequence):
        raise AirflowException(f"metadata must be a list of pairs, not {type(metadata).__name__}")
    for index, pair in enumerate(metadata):
        if (
            isinstance(pair, (str, bytes))
            or not isinstance(pair, Sequence)
            or len(pair) != 2
            or not all(isinstance(item, str) for item in pair)
        ):
            raise AirflowException(f"metadata[{index}] must be a pair of strings: a key and its value")
    return [(key, value) for key, value in metadata]
