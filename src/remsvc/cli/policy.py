"""``remsvc policy``: what a server's policy says of a command, without a server."""

from __future__ import annotations

from pathlib import Path

import click

from remsvc.cli import parameters
from remsvc.cli.click_verb import click_type
from remsvc.cli.extras import needs_extra
from remsvc.cli.shell_text import SHELLS
from remsvc.cli.terminal import print_json, warning_line
from remsvc.command import Command
from remsvc.errors import ConfigurationError, InvalidCommandError
from remsvc.printable import printable

_DEFAULT_CONFIG = Path("/etc/remsvc/server.ini")


@click.group()
def policy() -> None:
    """Ask what a server's policy says, without a server.

    \b
    Examples:
      remsvc policy test --identity airflow-prod -- systemctl restart web
      remsvc policy test --config server.ini --json -- 'rm -rf /' | jq -r .rule
    """


@policy.command("test", context_settings={"allow_interspersed_args": False})
@click.option("--identity", default="anonymous", show_default=True, metavar="NAME", help="Who would call.")
@click.option("--user", default="", metavar="NAME", help="As whom it would run; else the server's own user.")
@click.option(
    "--shell",
    type=click.Choice(SHELLS),
    default="sh",
    show_default=True,
    help='What would interpret COMMAND, as with "remsvc run".',
)
@click.option(
    "--env",
    type=click_type(parameters.assignment),
    metavar="KEY=VALUE",
    multiple=True,
    help="A variable that the caller would set. Repeatable.",
)
@click.option("--cwd", default="", metavar="DIR", help="Where the caller would have it start.")
@click.option("--input", "has_input", is_flag=True, help="The caller would give it standard input.")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=_DEFAULT_CONFIG,
    show_default=True,
    help="The server's configuration.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
def test(
    identity: str,
    user: str,
    shell: str,
    env: tuple[tuple[str, str], ...],
    cwd: str,
    has_input: bool,
    config: Path,
    as_json: bool,
    words: tuple[str, ...],
) -> None:
    """Tell whether a server would run COMMAND for a caller, and which rule decides.

    Needs no server; what a running one decides is the same once it has read this file. Nothing is
    run. Programs and the folders that the policy lists are looked up on this host.

    \b
    Exit codes:
      0  permitted
      1  refused
      2  the configuration, or the command, is not valid

    \b
    Examples:
      remsvc policy test --identity airflow-prod -- systemctl restart web
      remsvc policy test --identity etl --user report --shell none -- /usr/bin/rsync -a /a /b
      remsvc policy test --config server.ini --json -- 'rm -rf /' | jq -r .rule
    """
    with needs_extra("server"):
        from remsvc.server.config import read_config
        from remsvc.server.policy.decision import CommandRequest

        settings, problems = read_config(config, {})
    if problems:
        raise ConfigurationError(problems)
    text = " ".join(words)
    for value in (text, user):
        Command(value or "-").validate()
    if not words[0] and shell == "none":
        raise InvalidCommandError("the program's name must not be empty")
    if cwd and not cwd.startswith("/"):
        raise InvalidCommandError(f"--cwd {cwd!r}: expected an absolute path")
    request = CommandRequest(
        shell,
        "" if shell == "none" else text,
        words if shell == "none" else (),
        user,
        dict(env),
        cwd,
        has_input,
    )
    rules = settings.policy.compile()
    decision = rules.decide(identity, request)
    steps = list(rules.steps(identity, request))
    sections = [section.name for section in settings.policy.sections.applying(identity)]
    limits = decision.limits.shown() if decision.allowed else {}
    known = settings.known_identities
    if known is not None and identity not in known:
        warning_line(f"no caller has the identity {identity}")
    if as_json:
        print_json(
            {
                "allowed": decision.allowed,
                "rule": decision.rule,
                "message": decision.message,
                "identity": identity,
                "sections": sections,
                "matched": request.matched,
                "program": decision.program,
                "limits": limits,
                "checks": [
                    {"allowed": step.allowed, "rule": step.rule, "message": step.message} for step in steps
                ],
            }
        )
    else:
        lines = [
            f"permitted by {decision.rule}" if decision.allowed else f"refused by {decision.rule}",
            f"  patterns see: {request.matched}",
            f"  sections of {identity}: {', '.join(sections) or 'none'}",
            *(f"  {'ok' if step.allowed else 'NO'}  {step.rule}: {step.message}" for step in steps),
            *(f"  limit  {name} = {value}" for name, value in limits.items()),
        ]
        for line in lines:
            click.echo(printable(line))
    click.get_current_context().exit(0 if decision.allowed else 1)
