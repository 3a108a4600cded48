"""The form that Airflow's page shows for a connection of type ``remsvc``.

Airflow 3.2 and later take them from the provider info, 3.1 from methods of the hook class. Both are
made from the one list here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FormField:
    """One extra of the connection.

    Attributes:
        name: its key in the connection's extra.
        label, description: as shown.
        boolean: a switch, else a line of text.
        secret: shown masked.
    """

    name: str
    label: str
    description: str
    boolean: bool = False
    secret: bool = False


FIELDS = (
    FormField("use_ssl", "Use TLS", "Encrypt, and verify the server's certificate.", boolean=True),
    FormField(
        "ca_cert_path",
        "CA certificate file",
        "PEM file of the authorities to trust, on workers and triggerers. Empty: the system's.",
    ),
    FormField(
        "bearer_token",
        "Bearer token",
        "Sent with every call; a token of the server's [auth] section.",
        secret=True,
    ),
    FormField(
        "client_cert_path",
        "Client certificate file",
        "PEM file for mutual TLS, on workers and triggerers.",
    ),
    FormField(
        "client_key_path",
        "Client key file",
        "PEM file with the client certificate's private key.",
    ),
)

HIDDEN = ("schema", "login", "password", "extra")
PLACEHOLDERS = {"host": "server.example.com", "port": "50051"}


def conn_fields() -> dict[str, Any]:
    """The extras as the provider info describes them."""
    fields: dict[str, Any] = {}
    for field in FIELDS:
        schema: dict[str, Any] = {"type": ["boolean" if field.boolean else "string", "null"]}
        if field.boolean:
            schema["default"] = False
        if field.secret:
            schema["format"] = "password"
        fields[field.name] = {"label": field.label, "description": field.description, "schema": schema}
    return fields


def ui_field_behaviour() -> dict[str, Any]:
    """Which standard fields are hidden, as the provider info describes it."""
    return {"hidden-fields": list(HIDDEN), "relabeling": {}, "placeholders": dict(PLACEHOLDERS)}


def widgets() -> dict[str, Any]:
    """The extras as form fields for Airflow 3.1. Needs wtforms, which Airflow provides or stands in for."""
    from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
    from flask_babel import lazy_gettext
    from wtforms import BooleanField, PasswordField, StringField

    form: dict[str, Any] = {}
    for field in FIELDS:
        if field.boolean:
            form[field.name] = BooleanField(
                lazy_gettext(field.label), description=field.description, default=False
            )
            continue
        field_class, widget = (
            (PasswordField, BS3PasswordFieldWidget) if field.secret else (StringField, BS3TextFieldWidget)
        )
        form[field.name] = field_class(
            lazy_gettext(field.label), description=field.description, widget=widget()
        )
    return form
