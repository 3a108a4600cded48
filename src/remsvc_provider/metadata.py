"""The metadata that a task sends along with its calls, and which of it is a credential.

A token belongs into the connection. Where a DAG passes an ``authorization`` entry all the same, it is hidden
from Airflow's view of rendered templates, and :mod:`remsvc_provider.sealing` encrypts it for the triggerer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from remsvc_provider.version_compat import AirflowException

CallMetadata = list[tuple[str, str]]
"""Pairs of a key and its value; a key may come more than once."""

HIDDEN = "***"
_AUTHORIZATION = "authorization"


def is_secret(key: object) -> bool:
    """Whether the value under this key is a credential."""
    return isinstance(key, str) and key.strip().lower() == _AUTHORIZATION


def split(metadata: Iterable[tuple[str, str]]) -> tuple[CallMetadata, CallMetadata]:
    """The public entries, and the secret ones."""
    pairs = [(key, value) for key, value in metadata]
    return [pair for pair in pairs if not is_secret(pair[0])], [pair for pair in pairs if is_secret(pair[0])]


def hidden(metadata: CallMetadata) -> CallMetadata:
    """The metadata as Airflow may show it."""
    return [(key, HIDDEN if is_secret(key) else value) for key, value in metadata]


def check_metadata(metadata: object) -> CallMetadata:
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
