"""Options that verbs share, --config, and shell completion."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from ..errors import UsageError, did_you_mean


def parse_eps(text: str) -> float:
    """`10` and `10/255` are the same budget, in levels of 255; returned in [0,1].

    Raises UsageError for zero, negative values, values above 255, and for bare fractions such as 0.04.
    """
    number = text[:-4] if text.endswith("/255") else text
    try:
        levels = float(number)
    except ValueError:
        raise UsageError(f"--eps {text!r} is not a number; expected levels of 255, such as 10 or 10/255") from None
    if not 0 < levels <= 255:  # also refuses nan
        raise UsageError(f"--eps {text} is outside (0, 255]; expected levels of 255, such as 10")
    if levels < 1 and number == text:
        near = max(1, round(levels * 255))
        raise UsageError(f"--eps {text} looks like a [0,1] value; it is counted in levels of 255: did you mean {near}?")
    return levels / 255


def device_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--device, --precision, --offline and --threads."""
    for option in (
        click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads for torch."),
        click.option(
            "--offline", is_flag=True, help="Never touch the network; fail at once where weights are missing."
        ),
        click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True),
        click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda:N"),
    ):
        command = option(command)
    return command


def tensorboard_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--tensorboard."""
    kind, text = click.Path(path_type=Path), "Write the run's numbers there too, for TensorBoard (an extra)."
    return click.option("--tensorboard", type=kind, metavar="DIR", help=text)(command)


def weight_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--weights and --arch, for a victim whose weights are a local file."""
    for option in (
        click.option("--arch", metavar="NAME", help="Architecture (timm name) for a victim file:PATH."),
        click.option(
            "--weights", type=click.Path(path_type=Path), metavar="FILE", help="Local weights for the victim."
        ),
    ):
        command = option(command)
    return command


def victim_options(command: Callable[..., Any], multiple: bool = False) -> Callable[..., Any]:
    """--victim (repeatable as `victims` when `multiple`), --weights and --arch."""
    return click.option(
        "--victim",
        "victims" if multiple else "victim",
        multiple=multiple,
        required=True,
        metavar="SPEC",
        help="timm/NAME.TAG, tv/NAME, embedded/NAME, file:PATH, module:function, NAME:random (see 'victims --help').",
    )(weight_options(command))


def say(text: str) -> None:
    """Talk goes to stderr; stdout is data."""
    from ..distributed import is_main

    if is_main():
        click.echo(text, err=True)


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """KEY=VALUE texts of --set as a dict; dashes in keys become underscores. Raises UsageError for anything else."""
    pairs = [text.partition("=") for text in settings]
    for key, separator, value in pairs:
        if not (key and separator and value):
            raise UsageError(f"--set {key + separator + value!r} is not KEY=VALUE")
    return {key.replace("-", "_"): value for key, _, value in pairs}


def parse_bound(text: str, norm: str) -> float:
    """--eps of a command that takes both norms: `parse_eps` for linf, the pattern's length for l2."""
    return parse_eps(text) if norm == "linf" else parse_l2(text)


def parse_l2(text: str) -> float:
    """An L2 budget, in levels of 255 like the other (2000 is customary in the 2017 paper's units)."""
    try:
        levels = float(text)
    except ValueError:
        raise UsageError(
            f"--eps {text!r} is not a number; with --norm l2 it is the pattern's L2 length in levels of 255"
        ) from None
    if not levels > 0 or levels == float("inf"):
        raise UsageError(f"--eps {text} is not a positive L2 length in levels of 255, such as 2000")
    return levels / 255


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
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


def config_option(*verb: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """--config FILE for the verb of these words: its table holds long options without their dashes, `batch-size = 64`.

    The command line wins. Lists are options given several times, tables are KEY=VALUE pairs ([craft.set]); paths are
    relative to where the command runs. Other verbs' tables are left alone. Raises UsageError, naming it, for what is
    unknown or of the wrong kind.
    """

    def read(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
        if path is not None:
            values = _values(ctx.command, _table(path, verb), f"{path} [{'.'.join(verb)}]")
            ctx.default_map = {**(ctx.default_map or {}), **values}

    return click.option(
        "--config",
        metavar="FILE",
        type=click.Path(path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=read,
        help=f"Options from the table [{'.'.join(verb)}] of a TOML file; the command line wins.",
    )


def _table(path: Path, verb: tuple[str, ...]) -> dict[str, Any]:
    from . import VERBS
    from .gan import VERBS as GAN_VERBS

    try:
        table: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # a TOMLDecodeError and a UnicodeDecodeError are ValueErrors
        raise UsageError(f"--config {path} cannot be read ({error}); expected TOML with a table [{verb[0]}]") from error
    for word, known in zip(verb, (VERBS, GAN_VERBS), strict=False):
        strange = next((name for name in table if name not in known), None)
        if strange is not None:
            raise UsageError(f"{path}: {strange} is no verb{did_you_mean(strange, known)}; expected {', '.join(known)}")
        table = table.get(word)
        if not isinstance(table, dict):
            raise UsageError(f"{path} has no table [{'.'.join(verb)}]; options of this command stand under that name")
    return dict(table)


def _values(command: click.Command, table: dict[str, Any], where: str) -> dict[str, Any]:
    known = {name.lstrip("-"): p for p in command.params if not p.is_eager for name in p.opts if name[0] != "-"}
    known |= {name[2:]: p for p in command.params if not p.is_eager for name in p.opts if name.startswith("--")}
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("_", "-")
        if name not in known:
            raise UsageError(f"{where}: {key} is unknown{did_you_mean(name, known)}; expected {', '.join(known)}")
        param = known[name]
        values[str(param.name)] = _value(param, value, f"{where}: {key}")
    return values


def _value(param: click.Parameter, value: Any, where: str) -> Any:
    flag = isinstance(param, click.Option) and param.is_flag
    several = param.multiple or param.nargs == -1
    if several and param.name == "settings" and isinstance(value, dict):
        value = [f"{key}={_text(held, where)}" for key, held in value.items()]
    entries = value if several and isinstance(value, list) else [value]
    kinds: tuple[type, ...] = (bool,) if flag else (str, int, float)
    for entry in entries:
        if not isinstance(entry, kinds) or isinstance(entry, bool) != flag:
            expected = "true or false" if flag else "text or a number" + (", or a list of them" if several else "")
            raise UsageError(f"{where} = {entry!r}; expected {expected}")
    return entries if several else value


def _text(value: Any, where: str) -> str:
    """A value of --set as it would be typed: lists and true as TOML has them."""
    if isinstance(value, list):
        return f"[{', '.join(_text(entry, where) for entry in value)}]"
    if not isinstance(value, str | int | float):
        raise UsageError(f"{where} = {value!r}; expected KEY = VALUE with text, a number or true")
    return str(value).lower() if isinstance(value, bool) else str(value)
