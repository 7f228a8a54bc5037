"""uapgen completion: what a shell needs to complete verbs and options."""

from __future__ import annotations

import click


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script for a shell.

    \b
    uapgen completion bash >> ~/.bashrc
    uapgen completion zsh >> ~/.zshrc
    uapgen completion fish > ~/.config/fish/completions/uapgen.fish
    """
    from click.shell_completion import BashComplete, FishComplete, ZshComplete

    from . import COMPLETE, cli

    made = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}[shell]
    click.echo(made(cli, {}, "uapgen", COMPLETE).source())
