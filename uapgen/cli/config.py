"""--config: a verb's options from a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..errors import UsageError, did_you_mean


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
