"""uapgen methods"""

from __future__ import annotations

import json

import click


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


@command.command("show")
@click.argument("name")
def show_method(name: str) -> None:
    """What a method does, and its parameters with their defaults (the published settings)."""
    import inspect

    from ..attacks import find_method

    method = find_method(name)
    can = [text for text, has in (("--target CLASS", method.targeted), ("--stop-on DIR", method.stops)) if has]
    takes = f"; takes {' and '.join(can)}" if can else ""
    click.echo(f"{method.name} ({method.paper}); images: {method.images}; norms: {', '.join(method.norms)}{takes}\n")
    click.echo(inspect.getdoc(method.function) or "")
    if method.parameters():
        click.echo("\nparameters (--set KEY=VALUE):")
    for key, parameter in method.parameters().items():
        click.echo(f"  {key} = {parameter.default!r}")
