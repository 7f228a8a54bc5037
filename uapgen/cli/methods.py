"""uapgen methods, and what a shell completes with their names and parameters."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from ..attacks import Parameter


@click.group("methods")
def command() -> None:
    """List the crafting methods and their parameters."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def list_methods(as_json: bool) -> None:
    """All methods: the images that each needs, its year and paper."""
    from ..attacks import methods

    rows = [
        {"name": m.name, "images": m.images, "targeted": m.targeted, "year": m.year, "paper": m.paper}
        for m in methods().values()
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    click.echo(f"{'method':<12} {'images':<8} {'year':<6} paper")
    for row in rows:
        click.echo(f"{row['name']:<12} {row['images']:<8} {row['year'] or '-':<6} {row['paper']}")


def complete_method(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of methods, for the shell."""
    from ..attacks import methods

    return [name for name in methods() if name.startswith(incomplete)]


def complete_setting(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """`KEY=` of the command's --method, with what each is; `KEY=VALUE` where the values can be listed."""
    from click.shell_completion import CompletionItem

    from ..attacks import methods

    method = methods().get(ctx.params.get("method") or "cbgan")
    known = method.parameters() if method else {}
    key, equals, _ = incomplete.partition("=")
    if not equals:
        return [CompletionItem(f"{name}=", help=p.text) for name, p in known.items() if name.startswith(key)]
    values = (
        ("true", "false") if key in known and known[key].kind is bool else known[key].choices if key in known else ()
    )
    return [CompletionItem(text) for value in values if (text := f"{key}={value}").startswith(incomplete)]


@command.command("show")
@click.argument("name", shell_complete=complete_method)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def show_method(name: str, as_json: bool) -> None:
    """What a method does, and its parameters with their ranges and defaults (the published settings)."""
    import inspect

    from ..attacks import find_method
    from ..tables import align

    method = find_method(name)
    parameters = list(method.parameters().values())
    text = inspect.getdoc(method.function) or ""
    about: dict[str, Any] = {"name": name, "paper": method.paper, "year": method.year, "images": method.images}
    about |= {"norms": list(method.norms), "targeted": method.targeted, "stops": method.stops, "description": text}
    if as_json:
        click.echo(json.dumps({**about, "parameters": [p.to_json() for p in parameters]}, indent=1))
        return
    can = [option for option, has in (("--target CLASS", method.targeted), ("--stop-on DIR", method.stops)) if has]
    takes = f"; takes {' and '.join(can)}" if can else ""
    click.echo(f"{name} ({method.paper}); images: {method.images}; norms: {', '.join(method.norms)}{takes}\n\n{text}")
    if parameters:
        head = ("parameter", "type", "range", "default", "what it is")
        click.echo("\nparameters (--set KEY=VALUE):")
        click.echo("\n".join(f"  {line}" for line in align([head, *map(_row, parameters)])))


def _row(parameter: Parameter) -> tuple[str, ...]:
    default = parameter.default
    shown = f"{default:.6g}" if isinstance(default, float) else json.dumps(default).strip('"') or "-"
    kind = parameter.kind.__name__ + (" or none" if parameter.optional else "")
    return parameter.name, kind, str(parameter) or "-", "none" if default is None else shown, parameter.text
