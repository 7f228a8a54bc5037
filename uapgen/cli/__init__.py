"""The command line. One file a verb; a verb's module is imported only when it is called."""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from typing import Any

import click

from .. import __version__
from ..errors import UapgenError

VERBS = {
    "craft": "Craft a universal perturbation against a victim.",
    "evaluate": "Measure fooling rates of perturbations on images.",
    "compare": "Craft with many methods, measure them side by side.",
    "gate": "Check results against a policy: exit 0, 1 or 4.",
    "report": "Turn results into one HTML or Markdown page.",
    "show": "Print a perturbation's card; verify, draw or export it.",
    "apply": "Add a perturbation to image files.",
    "detect": "Test whether images carry one common pattern.",
    "harden": "Train a victim against universal perturbations.",
    "import": "Turn somebody else's perturbation file into a uapgen file.",
    "methods": "List the crafting methods and their parameters.",
    "victims": "List, show and check victim classifiers.",
    "gan": "Train and score GANs on long-tailed data.",
    "doctor": "Say what this machine has: versions, devices, caches, network.",
    "completion": "Print what a shell needs to complete verbs and options.",
}
COMPLETE = "_UAPGEN_COMPLETE"  # the variable in which a shell asks


class LazyGroup(click.Group):
    """Knows its verbs' names and one-line helps without importing them: `--help` must not wait for torch.

    verbs: name -> help; each is `command` in the module of `package` of that name, or `NAME_command` in the one that
    `homes` names for it.
    """

    def __init__(
        self, *args: Any, verbs: dict[str, str], package: str, homes: dict[str, str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.verbs, self.package, self.homes = verbs, package, homes or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.verbs:
            return None
        module = import_module(f".{self.homes.get(cmd_name, cmd_name)}", self.package)
        command: click.Command = getattr(module, f"{cmd_name}_command" if cmd_name in self.homes else "command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self.verbs.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from ..errors import did_you_mean

        if args and args[0] not in self.verbs and not args[0].startswith("-"):
            hint = did_you_mean(args[0], self.verbs)
            ctx.fail(f"no command {args[0]!r}{hint} (see '{ctx.command_path} --help')")
        return super().resolve_command(ctx, args)


HOMES = {"import": "show", "completion": "options"}


@click.command(
    cls=LazyGroup, verbs=VERBS, homes=HOMES, package=__name__, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="uapgen")
@click.option("-v", "--verbose", is_flag=True, help="Show the traceback of an error.")
def cli(verbose: bool) -> None:
    """Craft universal adversarial perturbations without data, and measure them honestly.

    \b
    uapgen craft --victim embedded/efficientnet_lite0 --eps 10 -o uap.safetensors
    uapgen evaluate uap.safetensors --victim embedded/efficientnet_lite0 --data foolbox
    uapgen show uap.safetensors --png uap.png
    """


def main() -> None:
    """Exit codes: 0 done, 1 a gate's policy failed, 2 usage, 3 the run failed, 4 inconclusive, 130 interrupted."""
    verbose = "-v" in sys.argv[1:2] or "--verbose" in sys.argv[1:2]
    try:
        sys.exit(cli(prog_name="uapgen", complete_var=COMPLETE, standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code if isinstance(error, click.UsageError) else 3)  # click says 1 for the rest
    except UapgenError as error:
        _fail(error, verbose)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("uapgen: interrupted; the same command goes on from the last saved state", err=True)
        sys.exit(130)
    except Exception as error:
        _fail(error, verbose, unexpected=True)
        sys.exit(3)


def _fail(error: Exception, verbose: bool, unexpected: bool = False) -> None:
    if verbose:
        traceback.print_exc()
    text = " ".join(str(error).split()) or type(error).__name__
    prefix = f"unexpected {type(error).__name__}: " if unexpected else ""
    hint = " (uapgen -v ... shows the traceback)" if unexpected and not verbose else ""
    click.echo(f"uapgen: {prefix}{text}{hint}", err=True)
