"""What `evaluate` costs beyond the forward passes that it needs, and how its memory grows with the images."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from PIL import Image
from torch import Tensor, nn

from uapgen.evaluation import evaluate
from uapgen.evaluation.fooling import noise_floors
from uapgen.images.sets import ImageSet, open_images
from uapgen.perturbation import Perturbation
from uapgen.proxies import Procedural
from uapgen.runtime import start_process
from uapgen.victims import Preprocessing, Victim, load_victim

EPS = 10 / 255


@click.command("evaluate")
@click.option("--victim", "spec", default="embedded/efficientnet_lite0", show_default=True)
@click.option("--weights", type=click.Path(path_type=Path))
@click.option("--data", help="Folder or tar of images.  [default: procedural ones, written as JPEGs of 500x375]")
@click.option("--images", "n", default=200, show_default=True)
@click.option("--batch", default=32, show_default=True)
@click.option("--workers", default=0, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--threads", type=int)
def evaluate_bench(spec: str, weights: Path | None, data: str | None, n: int, threads: int | None, **how: Any) -> None:
    """One perturbation on one victim against the forward passes that it needs: clean, perturbed, and the random floor.

    The passes are bare: bytes to floats, the victim, argmax; nothing is perturbed or counted. Beside them stand
    `evaluate` on the same images decoded into memory, the decoding alone, and `evaluate` of the files. All take turns;
    medians. The target is the first ratio: at most 1.1.
    """
    start_process(threads)
    victim = load_victim(spec, weights=weights, precision="fp32")
    with tempfile.TemporaryDirectory() as folder:
        files = open_images(data or _write_photos(Path(folder), n), victim.transform, limit=n)
        click.echo(json.dumps(_compare(victim, files, **how), indent=1))


def _compare(victim: Victim, files: ImageSet, batch: int, workers: int, rounds: int) -> dict[str, object]:
    pixels = torch.cat([part.images for part in files.batches(batch, workers=workers) if part.images is not None])
    memory = open_images(pixels, victim)
    uap = _signs(victim)
    deltas = [u.delta.to(victim.device) for u in [uap, *noise_floors([uap], 0)]]
    passes = 1 + len(deltas)
    seconds = _medians(
        {
            "forward passes": lambda: _forward(victim, pixels, passes, batch),
            "evaluate in memory": lambda: evaluate(uap, victim, memory, batch_size=batch, workers=workers),
            "decode": lambda: [None for _ in files.batches(batch, workers=workers)],
            "evaluate files": lambda: evaluate(uap, victim, files, batch_size=batch, workers=workers),
        },
        rounds,
    )
    bare, decode = seconds["forward passes"], seconds["decode"]
    return {
        "victim": victim.name,
        "device": str(victim.device),
        "threads": torch.get_num_threads(),
        "images": len(pixels),
        "batch": batch,
        "workers": workers,
        "passes_per_image": {"clean": 1, "perturbed": 1, "random floor": passes - 2},
        "milliseconds_per_image": {name: round(1000 * value / len(pixels), 3) for name, value in seconds.items()},
        "evaluate_in_memory_to_forward_passes": round(seconds["evaluate in memory"] / bare, 3),
        "evaluate_files_to_decode_plus_forward_passes": round(seconds["evaluate files"] / (decode + bare), 3),
        "evaluate_files_to_forward_passes": round(seconds["evaluate files"] / bare, 3),
    }


def _forward(victim: Victim, pixels: Tensor, passes: int, batch: int) -> None:
    """The bare passes: the same images each time, which costs a network what other images would."""
    with torch.inference_mode():
        for part in pixels.split(batch):
            x = part.to(victim.device).float() / 255
            for _ in range(passes):
                victim(x).argmax(1).cpu()


def _medians(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 1):  # the first is a warm-up
        for name, work in variants.items():
            started = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _write_photos(folder: Path, n: int) -> Path:
    """Procedural pictures in the size of ImageNet's photographs."""
    pictures = Procedural((375, 500)).batch(min(n, 16), torch.Generator().manual_seed(0))
    for i in range(n):
        pixels = (pictures[i % len(pictures)] * 255).round().to(torch.uint8).permute(1, 2, 0)
        Image.fromarray(pixels.contiguous().numpy()).save(folder / f"{i:05}.jpg", quality=90)
    return folder


@click.command("memory")
@click.option("--images", "counts", multiple=True, type=int, default=(1000, 10000), show_default=True)
@click.option("--tar", is_flag=True, help="Pack the images into one tar.")
@click.option("--workers", default=0, show_default=True)
def memory(counts: tuple[int, ...], tar: bool, workers: int) -> None:
    """Peak memory of `evaluate` over so many images (32x32 PNGs, a tiny victim), each in a process of its own."""
    before, peaks = {}, {}
    for n in counts:
        with tempfile.TemporaryDirectory() as folder:
            data = _write_tiny(Path(folder), n, tar)
            script = f"import evaluation as b; b.peak({str(data)!r}, {workers})"
            env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env)
            if done.returncode:
                raise click.ClickException(done.stderr[-2000:])
            before[n], peaks[n] = map(int, done.stdout.split())
    first, last = counts[0], counts[-1]
    grown = peaks[last] - peaks[first]
    result = {
        "before_mib": {str(n): round(kib / 1024, 1) for n, kib in before.items()},
        "peak_mib": {str(n): round(kib / 1024, 1) for n, kib in peaks.items()},
        "difference_mib": round(grown / 1024, 1),
        "bytes_per_further_image": round(1024 * grown / max(1, last - first)),
        "bytes_of_an_image_decoded": 3 * 32 * 32,
    }
    click.echo(json.dumps(result, indent=1))


def _write_tiny(folder: Path, n: int, tar: bool) -> Path:
    import tarfile

    (folder / "data").mkdir()
    draws = torch.Generator().manual_seed(0)
    for i in range(n):
        pixels = torch.randint(0, 256, (32, 32, 3), generator=draws, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / "data" / f"{i:06}.png", compress_level=1)
    if not tar:
        return folder / "data"
    with tarfile.open(folder / "data.tar", "w") as held:
        held.add(folder / "data", "")
    return folder / "data.tar"


def peak(data: str, workers: int) -> None:
    """Prints this process's peak memory in KiB before and after an evaluation of `data`."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 10))
    plain = Preprocessing(input_size=(3, 32, 32), crop_pct=1.0)
    victim = Victim(net, name="tiny", preprocessing=plain, device="cpu", precision="fp32")
    start_process(1)
    victim(torch.zeros(32, 3, 32, 32))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    evaluate(_signs(victim), victim, open_images(data, victim.transform, num_classes=10), workers=workers)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _signs(victim: Victim) -> Perturbation:
    signs = torch.randint(0, 2, victim.input_size, generator=torch.Generator().manual_seed(1)) * 2.0 - 1
    return Perturbation.create(EPS * signs, eps=EPS, method={"name": "signs"}, data={"class": "none"})
