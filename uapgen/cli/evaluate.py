"""uapgen evaluate: fooling rates of perturbation files on images."""

from __future__ import annotations

import functools
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from .options import config_option, device_options, say, victim_options

if TYPE_CHECKING:
    import torch

    from ..evaluation import Evaluation
    from ..evaluation.document import EvaluationDocument
    from ..images.sets import ImageSet
    from ..perturbation import Perturbation
    from ..victims import Victim


def _explain(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        from ..evaluation.results import DEFINITIONS

        click.echo(DEFINITIONS, nl=False)
        ctx.exit()


# fp32 unless asked otherwise: bf16 moves some predictions, and a reported number should not depend on the processor.
@click.command(context_settings={"default_map": {"precision": "fp32"}})
@click.argument("uaps", nargs=-1, required=True, metavar="UAP...", type=click.Path(path_type=Path))
@config_option("evaluate")
@functools.partial(victim_options, multiple=True)
@click.option("--data", required=True, metavar="DIR|TAR|foolbox", help="Folder of images or tars; or foolbox's 20.")
@click.option("--labels", metavar="CSV", type=click.Path(path_type=Path), help="Labels of the images: file,label.")
@click.option(
    "--limit", metavar="N", type=click.IntRange(min=1), help="Use N images, evenly spread over the sorted list."
)
@click.option("--batch-size", metavar="N", type=click.IntRange(min=1), default=32, show_default=True)
@click.option(
    "--workers", metavar="N", type=click.IntRange(min=0), help="Processes that decode images.  [default: by cores]"
)
@click.option("--seed", metavar="S", type=int, default=0, show_default=True, help="Of the random noise floor.")
@click.option(
    "--json", "json_file", metavar="FILE|-", help="Write the result as JSON; - is stdout, instead of the table."
)
@click.option("--predictions", metavar="FILE", type=click.Path(path_type=Path), help="Every prediction, as .npz.")
@click.option("--defence", "defences", metavar="LIST", help="Also behind none,jpeg75,bits3,... or module:function.")
@click.option("--per-image", metavar="LIST", help="Also foolbox's fgsm, linf-pgd[:STEPS], l2-pgd, deepfool.")
@click.option(
    "--run", "run_folder", metavar="DIR", type=click.Path(path_type=Path), help="Keep predictions there; go on from it."
)
@click.option("--restart", is_flag=True, help="Discard what --run holds instead of going on.")
@click.option("--no-quantize", is_flag=True, help="Leave adversarial images as floats instead of rounding to 8 bits.")
@click.option("--resize", is_flag=True, help="Fit perturbations to victims of another input size.")
@click.option(
    "--max-fooling-rate",
    metavar="SHARE",
    type=click.FloatRange(0, 1),
    help="Exit with 1 when a rate is above SHARE (0.4 is 40%), with 4 when its interval straddles it; see 'gate'.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Print the plan as JSON, with its cost, and stop.")
@click.option(
    "--explain", is_flag=True, is_eager=True, expose_value=False, callback=_explain, help="Define every number."
)
@device_options
@click.pass_context
def command(ctx: click.Context, **options: Any) -> None:
    """Measure fooling rates of perturbations on images.

    \b
    uapgen evaluate uap.safetensors --victim timm/resnet50.tv_in1k --data imagenet/val --limit 5000
    uapgen evaluate a.safetensors b.safetensors --victim tv/vgg16 --victim tv/googlenet --data val --json result.json
    uapgen evaluate uap.safetensors --victim tv/vgg16 --data val --defence none,jpeg75,median3 --per-image linf-pgd:10
    torchrun --nproc-per-node 4 -m uapgen evaluate uap.safetensors --victim timm/resnet50.tv_in1k --data val
    """
    if options["weights"] and (n := len(options["victims"])) > 1:
        raise UsageError(f"--weights belongs to one victim, and {n} were given; evaluate them one by one")
    if options["restart"] and not options["run_folder"]:
        raise UsageError("--restart discards what --run DIR holds; give --run DIR too")
    from .. import distributed
    from ..defences import parse_defences
    from ..evaluation.per_image import plan_attacks
    from ..images.listing import find_images
    from ..perturbation import Perturbation
    from ..runtime import ensure_writable, resolve_device, start_process

    start_process(options["threads"])
    options["defences"] = parse_defences(options["defences"]) if options["defences"] is not None else []
    uaps = [Perturbation.load(path) for path in options["uaps"]]
    if options["per_image"] is not None:
        plan_attacks(options["per_image"], uaps)
    find_images(options["data"])
    for path in (options["json_file"], options["predictions"]):
        if path not in (None, "-") and distributed.is_main():
            ensure_writable(path)
    where = resolve_device(options["device"])
    distributed.init(where)
    result = None
    try:
        if options["dry_run"]:
            _plan(uaps, where, options)
        else:
            result = _run(uaps, where, options)
    finally:
        distributed.finish()
    if options["max_fooling_rate"] is not None and distributed.is_main() and result is not None:
        from .gate import answer

        ctx.exit(answer(result, options["max_fooling_rate"]))


def _run(uaps: list[Perturbation], device: torch.device, options: dict[str, Any]) -> EvaluationDocument:
    from ..distributed import is_main
    from ..evaluation.per_image import write_predictions
    from ..evaluation.table import document, render
    from ..schema import to_json

    done: list[Evaluation] = []
    json_file, predictions = options["json_file"], options["predictions"]
    for spec in options["victims"]:
        done.append(_measure(*_load(spec, device, options), uaps, options))
        result = document(
            uaps,
            options["uaps"],
            done,
            data=options["data"],
            command=shlex.join(["uapgen", *sys.argv[1:]]),
            complete=len(done) == len(options["victims"]),
        )
        if is_main() and json_file not in (None, "-"):
            _write_json(Path(json_file), to_json(result))  # after each victim: a later one that fails costs only itself
    if not is_main():
        return result
    if predictions is not None:
        write_predictions(predictions, uaps, done)
    if json_file == "-":
        for text in result.warnings:
            say(f"warning: {text}")
    click.echo(json.dumps(to_json(result), indent=1) if json_file == "-" else render(result), nl=json_file == "-")
    return result


def _load(spec: str, device: torch.device, options: dict[str, Any]) -> tuple[Victim, ImageSet]:
    from ..images.sets import open_images
    from ..victims import announce, load_victim

    taken = {key: options[key] for key in ("weights", "arch", "precision", "offline")}
    victim = load_victim(spec, device=device, **taken)
    say(announce(victim))
    chosen = {key: options[key] for key in ("labels", "limit")}
    images = open_images(options["data"], victim, **chosen)
    return victim, images


def _measure(victim: Victim, images: ImageSet, uaps: list[Perturbation], options: dict[str, Any]) -> Evaluation:
    from ..evaluation import Session, evaluate

    taken = ("batch_size", "seed", "resize", "defences", "per_image", "workers")
    return evaluate(
        uaps,
        victim,
        images,
        quantize=not options["no_quantize"],
        session=Session(options["run_folder"], options["restart"], progress=True),
        **{key: options[key] for key in taken},
    )


def _plan(uaps: list[Perturbation], device: torch.device, options: dict[str, Any]) -> None:
    """Prints what would be measured, and what that costs."""
    from ..distributed import is_main
    from .progress import evaluation_cost

    loaded = [_load(spec, device, options) for spec in options["victims"]]
    plan = {
        "uaps": [{"file": str(file), "sha256": uap.sha256} for file, uap in zip(options["uaps"], uaps, strict=True)],
        "victims": [
            {**victim.describe(), "images": images.describe(), **evaluation_cost(uaps, victim, images, options)}
            for victim, images in loaded
        ],
        "defences": [defence.name for defence in options["defences"]],
        "per_image": options["per_image"],
    }
    if is_main():
        click.echo(json.dumps(plan, indent=1))


def _write_json(path: Path, result: dict[str, Any]) -> None:
    from ..runtime import atomic_write

    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")
