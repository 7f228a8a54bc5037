"""Image-gradients per second of `craft` under torchrun with 1, 2, 4, ... processes, and the efficiency of sharing.

The numbers of processes take turns within one run of this script, each with a process group of its own; what a process
does before the first timed craft (imports, weights, proxies, a warm-up craft) is not counted. A CPU process gets the
same number of threads whatever their number is. Efficiency is the rate over that of the first number of processes, per
process; with fixed `--budget` it is of strong scaling, so that a method's batch is what limits it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click


@click.command("scale")
@click.option("--victim", "spec", default="embedded/efficientnet_lite0", show_default=True)
@click.option("--weights", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--method", default="spgd", show_default=True)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A parameter of the method; repeatable.")
@click.option("--budget", default=1000, show_default=True, help="Image-gradients of one timed craft.")
@click.option("--processes", default="1,2", show_default=True, metavar="N,N,...")
@click.option("--rounds", default=3, show_default=True, help="Timed crafts; the median counts.")
@click.option("--threads", default=1, show_default=True, help="CPU threads of each process.")
@click.option("--device", default="auto", show_default=True)
def scale(processes: str, **options: object) -> None:
    """Image-gradients per second with 1, 2, ... processes."""
    numbers = [int(number) for number in processes.split(",")]
    found = {number: _under_torchrun(number, options) for number in numbers}
    rates = {number: result["image_gradients_per_second"] for number, result in found.items()}
    base = rates[numbers[0]] / numbers[0]
    result = {
        **found[numbers[0]],
        "image_gradients_per_second": {str(number): rate for number, rate in rates.items()},
        "efficiency": {str(number): round(rate / (number * base), 3) for number, rate in rates.items()},
    }
    click.echo(json.dumps(result, indent=1))


def _under_torchrun(processes: int, options: dict[str, object]) -> dict:
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    env = {**os.environ, "OMP_NUM_THREADS": str(options["threads"]), "SCALE_OPTIONS": json.dumps(options, default=str)}
    done = subprocess.run([*words, __file__], env=env, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise click.ClickException(f"{processes} processes failed; what they said is above")
    return json.loads(done.stdout)


def _worker(options: dict) -> None:
    """One of the processes."""
    from uapgen import distributed
    from uapgen.attacks import craft, find_method
    from uapgen.cli.options import parse_settings
    from uapgen.proxies import Pool, Procedural
    from uapgen.runtime import resolve_device, start_process
    from uapgen.victims import load_victim

    start_process(options["threads"])
    distributed.init(resolve_device(options["device"]))
    victim = load_victim(options["spec"], weights=options["weights"], device=options["device"])
    driven = find_method(options["method"]).images == "driven"
    source = Pool(Procedural(victim.input_size[1:], victim.device), 256, 0) if driven else None
    seconds = []
    for seed in range(options["rounds"] + 1):  # the first is a warm-up
        distributed.all_gather_objects(None)
        started = time.perf_counter()
        uap = craft(
            victim,
            method=options["method"],
            source=source,
            budget=options["budget"],
            seed=seed,
            **parse_settings(options["settings"]),
        )
        distributed.all_gather_objects(uap.sha256)  # nobody is done before all are
        seconds.append(time.perf_counter() - started)
    spent = uap.card["cost"]["image_gradients"]
    if distributed.is_main():
        result = {
            "victim": victim.name,
            "device": victim.device.type,
            "precision": victim.precision,
            "threads": options["threads"],
            "method": options["method"],
            "budget": options["budget"],
            "image_gradients_per_second": round(spent / statistics.median(seconds[1:]), 2),
        }
        click.echo(json.dumps(result))
    distributed.finish()


if __name__ == "__main__":
    _worker(json.loads(os.environ["SCALE_OPTIONS"]))
