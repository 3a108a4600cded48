"""The hook: an Airflow connection of type ``remsvc``, and what can be opened with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.log import mask_secret

from remsvc.errors import RemSvcError
from remsvc_provider.connection import form, lookup
from remsvc_provider.connection.options import connection_options, connection_secrets
from remsvc_provider.version_compat import AirflowException

if TYPE_CHECKING:
    import grpc
    import grpc.aio
    from airflow.sdk import Connection

    from remsvc.client import Client
    from remsvc.client.options import ConnectionOptions

TEST_TIMEOUT = 10.0


class RemSvcHook(BaseHook):
    """Reaches a RemSvc server.

    ::

        hook = RemSvcHook("remsvc_prod")
        with hook.get_client() as client:
            print(client.status().msg)

    Args:
        remsvc_conn_id: id of a connection of type ``remsvc``.
    """

    conn_name_attr = "remsvc_conn_id"
    default_conn_name = "remsvc_default"
    conn_type = "remsvc"
    hook_name = "RemSvc gRPC"

    def __init__(self, remsvc_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.remsvc_conn_id = remsvc_conn_id
        self._connection: Connection | None = None
        self._options: ConnectionOptions | None = None

    def get_conn(self) -> Connection:
        """The Airflow connection, looked up once."""
        if self._connection is None:
            self._connection = self.get_connection(self.remsvc_conn_id)
        return self._connection

    async def get_async_conn(self, since: float | None = None) -> Connection:
        """The Airflow connection, looked up once and without blocking the event loop.

        Await it first inside an event loop: every other method then works without another lookup.

        Args:
            since: in seconds since the epoch; what the connection said then or later will do. None: now.

        Raises:
            AirflowException: as :attr:`options`.
        """
        if self._connection is None:
            self._connection = await lookup.look_up(self.remsvc_conn_id, since)
        if self._options is None:
            self._options = connection_options(self._connection, self.log.warning)
            if self._options.token:
                await lookup.mask_once(self.remsvc_conn_id, self._options.token)
        return self._connection

    @property
    def options(self) -> ConnectionOptions:
        """What the connection says, checked.

        Raises:
            AirflowException: it cannot be used; names the key, the value and what was expected.
        """
        if self._options is None:
            self._options = connection_options(self.get_conn(), self.log.warning)
            if self._options.token:
                mask_secret(self._options.token)
        return self._options

    @property
    def secrets(self) -> set[str]:
        """What of the connection no log may show."""
        return connection_secrets(self.get_conn()) | {self.options.token or ""}

    def get_client(self) -> Client:
        """A synchronous client: a context manager, which the caller closes."""
        from remsvc.client import Client

        return Client(self.options)

    def get_channel(self) -> grpc.Channel:
        """A new synchronous channel: a context manager, which the caller closes.

        Calls on it take the token from :meth:`get_call_metadata`.
        """
        from remsvc.client.grpc_transport.channel import open_channel

        return open_channel(self.options)

    def get_async_channel(self) -> grpc.aio.Channel:
        """The event loop's channel of gRPC's for this connection, whatever carries the operator's own calls.

        A plain method, to be called without ``await`` while an event loop runs, after
        ``await hook.get_async_conn()``. The channel is closed together with the loop: never close it.
        Calls on it take the token from :meth:`get_call_metadata`.
        """
        from remsvc_provider.running.channels import pooled_channel

        return pooled_channel(self.options)

    def get_call_metadata(self) -> list[tuple[str, str]]:
        """The metadata that each call needs: the connection's bearer token, or nothing."""
        token = self.options.token
        return [("authorization", f"Bearer {token}")] if token else []

    def test_connection(self) -> tuple[bool, str]:
        """Ping the server: whether it answered, and a line for the person who pressed the button."""
        try:
            with self.get_client() as client:
                pong = client.ping(timeout=TEST_TIMEOUT)
                status = client.status(timeout=TEST_TIMEOUT)
        except (RemSvcError, AirflowException) as error:
            return False, str(error)
        over = "TLS" if self.options.tls else "plaintext"
        milliseconds = pong.round_trip * 1000
        return True, f"{self.options.target} answered over {over} in {milliseconds:.1f} ms: {status.msg}"

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """The extras as form fields; Airflow 3.1 asks for them here."""
        return form.widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Which standard fields are hidden; Airflow 3.1 asks for it here."""
        behaviour = form.ui_field_behaviour()
        return {key.replace("-", "_"): value for key, value in behaviour.items()}
