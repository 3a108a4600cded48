"""``remsvc token``: the file of hashed tokens that a server reads (``[server] token_file``)."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from remsvc.cli.terminal import print_json
from remsvc.printable import printable
from remsvc.server.identity import token_file

if TYPE_CHECKING:
    from remsvc.server.identity.tokens import Credential

_AHEAD = re.compile(r"([0-9]{1,6})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def expiry(value: str) -> float:
    """A future time in Unix time: how far ahead (``90d``), a date (its beginning in UTC), or a time."""
    moment: float | None
    if ahead := _AHEAD.fullmatch(value):
        moment = time.time() + timedelta(**{_UNITS[ahead[2]]: int(ahead[1])}).total_seconds()
    else:
        moment = token_file.parse_time(f"{value}T00:00:00Z" if _DATE.fullmatch(value) else value)
    if moment is None:
        raise click.BadParameter(
            f"{value!r} is none of 90d (m, h, d, w), 2027-01-31 and 2027-01-31T12:00:00Z"
        )
    try:
        datetime.fromtimestamp(moment, timezone.utc)
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(f"{value!r} is too far ahead") from None
    if moment <= time.time():
        raise click.BadParameter(f"{value!r} is in the past")
    return moment


class _InOrder(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder)
def token() -> None:
    """Make, list and revoke the tokens by which a server knows its callers.

    FILE is what "[server] token_file" names: it holds hashes, never a token. A running server takes
    a change in within seconds. To rotate: add a new token, give it to the callers, revoke the old.

    \b
    Examples:
      remsvc token add /etc/remsvc/tokens airflow-prod --expires 90d
      remsvc token list /etc/remsvc/tokens
      remsvc token revoke /etc/remsvc/tokens 5f3a9c0d
    """


_file = click.argument("file", type=click.Path(path_type=Path))
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@token.command()
@_file
@click.argument("identity")
@click.option(
    "--expires",
    type=expiry,
    metavar="WHEN",
    help="Refuse it from then on: 90d (m, h, d, w), a date, or a time such as 2027-01-31T12:00:00Z.",
)
@_as_json
def add(file: Path, identity: str, expires: float | None, as_json: bool) -> None:
    """Make a new token for IDENTITY and print it: this once, nothing keeps it.

    Its hash goes into FILE, which is made if need be, readable by its owner only. Standard output
    is the token alone.

    \b
    Examples:
      remsvc token add tokens airflow-prod --expires 90d
      (umask 077; remsvc token add tokens backup >backup.token)
    """
    new, credential = token_file.add_token(file, identity, expires)
    if as_json:
        print_json({"token": new, **_description(credential)})
        return
    click.echo(new)
    until = "" if expires is None else f", until {token_file.format_time(expires)}"
    click.echo(f"token {credential.id} of {identity}{until}: shown this once", err=True)


@token.command("list")
@_file
@_as_json
def list_tokens(file: Path, as_json: bool) -> None:
    """List the tokens in FILE: id, identity, when they expire, whether they have."""
    credentials = token_file.list_tokens(file)
    if as_json:
        print_json([_description(credential) for credential in credentials])
        return
    for credential in credentials:
        described = _description(credential)
        click.echo(
            printable(f"{credential.id}  {credential.identity}  ")
            + f"{described['expires'] or 'never expires'}  {described['state']}"
        )


@token.command()
@_file
@click.argument("token_id", metavar="ID")
def revoke(file: Path, token_id: str) -> None:
    """Take the token with this ID, as "token list" shows it, out of FILE.

    A running server ends what is open by it: watches and streams. Jobs go on.
    """
    credential = token_file.revoke_token(file, token_id)
    click.echo(printable(f"revoked {credential.id} of {credential.identity}"), err=True)


def _description(credential: Credential) -> dict[str, object]:
    return {
        "id": credential.id,
        "identity": credential.identity,
        "expires": None if credential.expires is None else token_file.format_time(credential.expires),
        "state": "expired" if credential.expired(time.time()) else "valid",
    }
