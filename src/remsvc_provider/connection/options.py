"""Reads an Airflow connection of type ``remsvc`` into the options of a client.

Three shapes of extra mean the same: an object with the keys (what the UI and JSON connections
hold), plain query parameters of a URI (every value is text), and JSON inside the URI's ``extra``
parameter, percent-encoded or not, which Airflow hands on as ``{"extra": "<that JSON>"}``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remsvc.client.metadata import bearer_token
from remsvc.client.options import TRANSPORTS, ConnectionOptions
from remsvc.client.target import DEFAULT_PORT, parse_target
from remsvc.errors import ConfigurationError
from remsvc.token_text import token_as_meant
from remsvc_provider.version_compat import AirflowException, names_a_secret

if TYPE_CHECKING:
    from airflow.sdk import Connection

KNOWN_EXTRAS = (
    "use_ssl",
    "ca_cert_path",
    "bearer_token",
    "client_cert_path",
    "client_key_path",
    "transport",
    "http_connect",
)
IGNORED_FIELDS = ("login", "password", "schema")
TLS_EXTRAS = ("ca_cert_path", "client_cert_path", "client_key_path")
NESTED_EXTRAS = ("extra", "__extra__")

TRUE = ("true", "1", "yes", "on")
FALSE = ("false", "0", "no", "off", "")


def connection_options(connection: Connection, warn: Callable[[str], None]) -> ConnectionOptions:
    """Read a connection.

    Args:
        connection: as Airflow hands it out.
        warn: called with a line about each setting that has no effect.

    Raises:
        AirflowException: something in it cannot be used; names the key, the value (never a
            token's) and what was expected.
    """
    where = f"connection {connection.conn_id!r}"
    try:
        extras = _extras(connection.extra)
        options = ConnectionOptions(
            target=_target(connection.host, connection.port),
            tls=_boolean(extras, "use_ssl"),
            ca_cert=_path(extras, "ca_cert_path"),
            client_cert=_path(extras, "client_cert_path"),
            client_key=_path(extras, "client_key_path"),
            token=_token(extras),
            transport=_transport(extras),
            proxy=None if extras.get("http_connect") in (None, "") else _boolean(extras, "http_connect"),
        )
        if (options.client_cert is None) != (options.client_key is None):
            missing = "client_key_path" if options.client_key is None else "client_cert_path"
            raise ValueError(f"extra {missing} is missing: mutual TLS takes both a certificate and a key")
    except (ValueError, ConfigurationError) as error:
        raise AirflowException(f"{where}: {error}") from None
    if idle := [name for name in IGNORED_FIELDS if getattr(connection, name)]:
        hint = "" if idle == ["schema"] else "; the token goes into extra bearer_token"
        warn(f"{where}: {' and '.join(idle)} not used and ignored{hint}")
    if unknown := [key for key in extras if key not in KNOWN_EXTRAS]:
        warn(f"{where}: extra {', '.join(map(repr, unknown))} not known and ignored")
    if not options.tls and (idle := [key for key in TLS_EXTRAS if _path(extras, key)]):
        warn(f"{where}: extra {', '.join(idle)} ignored, because use_ssl is not true")
    return options


def connection_secrets(connection: Connection) -> set[str]:
    """What of a connection Airflow masks on a worker: the password, and extras whose names say so. In a
    triggerer it masks less, from version to version."""
    secrets = {connection.password or ""}
    try:
        extras = _extras(connection.extra)
    except ValueError:
        return secrets  # what cannot be read is not used, and the error has not quoted it
    return secrets | {
        value for key, value in extras.items() if isinstance(value, str) and names_a_secret(key)
    }


def _extras(text: str | None) -> dict[str, Any]:
    """The extras as one flat mapping. Errors never quote them: they may hold a token."""
    outer = _json_object(text, "in a JSON or UI connection this is the extra field")
    for key in NESTED_EXTRAS:
        if key in outer:
            return _nested(outer, key)
    return outer


def _nested(outer: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Unpack the JSON that a URI carries in one parameter."""
    names = list(outer)
    before = {name: outer[name] for name in names[: names.index(key)]}
    after = {name: outer[name] for name in names[names.index(key) + 1 :]}
    value = outer[key]
    if isinstance(value, str):
        # Unencoded JSON with an "&" in it was taken apart by the URI parser: join it again.
        if after and not _is_json(value):
            value += "".join(f"&{name}={rest}" if rest else f"&{name}" for name, rest in after.items())
            after = {}
        value = _json_object(value, "in a URI, write & # % + of its values percent-encoded")
    elif not isinstance(value, dict):
        raise ValueError(f"extra {key!r} must be a JSON object, not {type(value).__name__}")
    token = value.get("bearer_token")
    if isinstance(token, str) and (meant := token_as_meant(token)):
        # An unencoded "+" arrives as a space, and a bearer token never has a space (RFC 6750).
        value["bearer_token"] = meant.replace(" ", "+")
    return {**before, **after, **value}


def _json_object(text: str | None, hint: str) -> dict[str, Any]:
    if text is None or not text.strip():
        return {}
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"extra is not valid JSON ({error.msg} at character {error.pos}); "
            f'expected an object such as {{"use_ssl": true}}; {hint}'
        ) from None
    except RecursionError:
        raise ValueError(f"extra is nested too deeply; {hint}") from None
    if not isinstance(value, dict):
        raise ValueError(f"extra must be a JSON object, not {type(value).__name__}; {hint}")
    return value


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _target(host: str | None, port: int | None) -> str:
    host = (host or "").strip()
    if not host:
        raise ValueError("host is missing; expected a name or an address")
    if host.count(":") == 1:
        raise ValueError(f"host is {host!r}; expected a name or an address alone, the port has its own field")
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    try:
        return str(parse_target(f"{host}:{DEFAULT_PORT if port is None else port}"))
    except ConfigurationError as error:
        raise ValueError(f"host is {host!r} and port {port!r}; {error}") from None


def _boolean(extras: Mapping[str, Any], key: str) -> bool:
    value = extras.get(key)
    if value is None:
        return False
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, str)):
        text = str(value).strip().lower()
        if text in TRUE:
            return True
        if text in FALSE:
            return False
    raise ValueError(f"extra {key} is {value!r}; expected true or false")


def _path(extras: Mapping[str, Any], key: str) -> Path | None:
    value = extras.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ValueError(f"extra {key} is {value!r}; expected the path of a PEM file")
    return Path(value)


def _transport(extras: Mapping[str, Any]) -> str:
    value = extras.get("transport") or TRANSPORTS[0]
    if value not in TRANSPORTS:
        raise ValueError(f"extra transport is {value!r}; expected {', '.join(TRANSPORTS)}")
    return str(value)


def _token(extras: Mapping[str, Any]) -> str | None:
    value = extras.get("bearer_token")
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return bearer_token(value, "extra bearer_token")
