"""``remsvc completion``: completion for shells."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script that completes remsvc's verbs and options.

    \b
    Examples:
      source <(remsvc completion bash)                                     in ~/.bashrc
      source <(remsvc completion zsh)                                      in ~/.zshrc
      remsvc completion fish > ~/.config/fish/completions/remsvc.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # the choice above offers only what click knows
    click.echo(kind(ctx.find_root().command, {}, "remsvc", "_REMSVC_COMPLETE").source())
