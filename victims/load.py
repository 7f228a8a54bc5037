"""`load_victim`: from a name to a frozen, checked classifier that says exactly what it is."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import UapgenError, UsageError
from ..runtime import import_named, resolve_device, rng
from .graph import load_graph
from .hub import load_repository, load_timm
from .spec import Loaded, Spec, adjusted, parse
from .trained import classifier_header, load_classifier
from .victim import Preprocessing, Victim
from .vision import load_embedded, load_vision
from .weights import file_preprocessing, load_into


def load_victim(
    spec: str,
    *,
    weights: str | Path | None = None,
    arch: str | None = None,
    device: str | torch.device = "auto",
    precision: str = "auto",
    offline: bool = False,
    check: bool = True,
) -> Victim:
    """The victim that `spec` names, with its own normalisation inside.

    `spec` is `timm/NAME.TAG` (or a bare NAME: timm first, then torchvision), `tv/NAME.WEIGHTS`, `embedded/NAME`,
    `file:PATH` with `arch` (without, for a file of `uapgen gan classifier`), `module:function`, `hf-hub:ORG/NAME`,
    `local-dir:DIR` (timm's or transformers'), or a program that is only run: `file:PATH.onnx`, .pt2 or .torchscript,
    then `:mean=0.5,...`. timm and tv names take options: `NAME:random` for a dry run,
    `NAME:pad_type=same,mean=0.5,std=0.5` for model arguments and preprocessing.
    `weights` is a local file to use in place of published weights; preprocessing then comes from the options, else from
    the file's metadata, else from the tag's configuration. `check` runs `check_victim`; see `victim.warnings`.

    Raises UsageError for a name or combination that cannot be, UapgenError for weights that are missing or not right.
    """
    target = resolve_device(device)
    parsed, file = combine(spec, arch, Path(weights) if weights else None)
    if parsed.kind == "graph":
        loaded: Loaded | Victim = load_graph(Path(parsed.name), parsed.preprocessing, target)
        precision = "fp32"  # a program computes as it was written
    elif parsed.kind == "file":
        loaded = load_classifier(parsed.name, device=target, precision=precision)
    else:
        loaded = _load(parsed, file, offline)
    if isinstance(loaded, Loaded):
        loaded = _with_preprocessing(loaded, parsed, file) if parsed.kind != "graph" else loaded
        loaded = _wrap(loaded, target, precision, copy_module=parsed.kind == "python")
    victim = loaded
    if check:
        victim.warnings = check_victim(victim)
    return victim


def announce(victim: Victim) -> str:
    """One line for the log: name, weights, hash and preprocessing as resolved."""
    p, source = victim.preprocessing, f" ({victim.source})" if victim.source else ""
    weights = f"weights {victim.weights}{source}, sha256 {victim.weights_sha256[:12]}"
    picture = f"{p.input_size[1]}x{p.input_size[2]} px, {p.interpolation}, crop {p.crop_pct:.3g}"
    normalisation = f"mean {_numbers(p.mean)}, std {_numbers(p.std)} [{p.origin}]"
    where = f"{victim.device}, {victim.precision}"
    return f"victim {victim.name}: {victim.num_classes} classes, {weights}; {picture}, {normalisation}; {where}"


def _numbers(values: tuple[float, ...]) -> str:
    distinct = values[:1] if len(set(values)) == 1 else values
    return "/".join(f"{value:.3g}" for value in distinct)


def combine(text: str, arch: str | None, weights: Path | None) -> tuple[Spec, Path | None]:
    """`file:PATH --arch NAME` and `NAME --weights PATH` are two ways to say one thing: the architecture and the file.

    Raises UsageError for a combination that cannot be.
    """
    spec = parse(text)
    if spec.kind == "file":
        if weights:
            raise UsageError(f"--victim {text} already names a file; drop --weights")
        if not arch and classifier_header(spec.name):
            return spec, None
        if not arch:
            raise UsageError(
                f"--victim {text} needs --arch NAME: a timm name, tv/NAME or module:function "
                "(files of 'uapgen gan classifier' need none)"
            )
        spec, weights = parse(arch), Path(spec.name)
        if spec.kind not in ("timm", "tv", "python"):
            raise UsageError(f"--arch {arch} is no architecture; expected a timm name, tv/NAME or module:function")
    elif arch:
        raise UsageError(f"--arch goes with --victim file:PATH only; {text!r} names its architecture itself")
    if weights and (spec.random or spec.kind not in ("timm", "tv", "python")):
        raise UsageError(f"--victim {text} brings its own weights; drop --weights {weights}")
    return spec, weights


def _load(spec: Spec, weights: Path | None, offline: bool) -> Loaded | Victim:
    if spec.kind == "timm":
        return load_timm(spec, weights=weights, offline=offline)
    if spec.kind == "tv":
        return load_vision(spec, weights=weights, offline=offline)
    if spec.kind == "embedded":
        return load_embedded(spec.name)
    if spec.kind == "python":
        return load_callable(spec.name, weights=weights)
    return load_repository(spec, offline=offline)


def _with_preprocessing(loaded: Loaded, spec: Spec, weights: Path | None) -> Loaded:
    preprocessing = loaded.preprocessing
    if weights:
        preprocessing = adjusted(preprocessing, file_preprocessing(weights), weights.name)
    return dataclasses.replace(loaded, preprocessing=adjusted(preprocessing, spec.preprocessing, "--victim"))


def _wrap(loaded: Loaded, device: torch.device, precision: str, copy_module: bool) -> Victim:
    try:
        return Victim(
            loaded.module,
            name=loaded.name,
            weights=loaded.weights,
            source=loaded.source,
            preprocessing=loaded.preprocessing,
            licence=loaded.licence,
            device=device,
            precision=precision,
            copy_module=copy_module,
        )
    except (RuntimeError, AssertionError, ValueError, TypeError, NotImplementedError) as error:
        size = "x".join(str(n) for n in loaded.preprocessing.input_size)
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        message = f"victim {loaded.name} cannot run on a {size} image: {reason}; check input_size and --device"
        raise UapgenError(message) from error


def load_callable(spec: str, *, weights: Path | None) -> Loaded | Victim:
    """`package.module:name`, where `name` is a module, or a callable without arguments that returns one.

    Accepted results: nn.Module, (nn.Module, Preprocessing), or a Victim, which keeps its own device and
    precision. `weights` are loaded into a module.
    Raises UsageError when the name does not exist, UapgenError when it fails or returns something else.
    """
    result = _call(import_named(spec, "victim"), spec)
    if isinstance(result, Victim):
        if weights:
            raise UsageError(f"{spec} returns a finished Victim; load {weights} inside it")
        return result
    module, preprocessing = result if isinstance(result, tuple) and len(result) == 2 else (result, Preprocessing())
    if not isinstance(module, nn.Module) or not isinstance(preprocessing, Preprocessing):
        expected = "expected nn.Module, (nn.Module, uapgen.victims.Preprocessing) or Victim"
        raise UapgenError(f"{spec} returned {type(result).__name__}; {expected}")
    if weights:
        load_into(module, weights, model_name=spec)
        return Loaded(module, spec, "file", preprocessing, source=weights.name)
    return Loaded(module, spec, "user", preprocessing)


def _call(found: Any, spec: str) -> Any:
    if isinstance(found, (nn.Module, Victim)) or not callable(found):
        return found
    try:
        return found()
    except UapgenError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise UapgenError(f"victim {spec!r} raised {type(error).__name__}: {error}") from error


BATCH = 2


def check_victim(victim: Victim) -> list[str]:
    """Warnings, each one sentence; empty for a victim that attacks can work with. Costs two forwards and one backward.

    Looks for probabilities in place of logits, missing input gradients, and outputs that change from call to call.
    Raises UapgenError when an output is not finite.
    """
    noise = torch.rand(BATCH, *victim.input_size, generator=rng(0, "check_victim"))
    x = noise.to(victim.device).requires_grad_(victim.differentiable)
    with torch.enable_grad():
        logits = victim(x)
        gradient = _input_gradient(logits, x)
    if not torch.isfinite(logits).all():
        raise UapgenError(f"victim {victim.name} returns non-finite values; check its weights, or try --precision fp32")
    with torch.no_grad():
        logits, again = logits.detach(), victim(x)
    warnings = []
    if _are_probabilities(logits):
        warnings.append("the outputs are probabilities, not logits: losses on them saturate; remove the final softmax")
    if victim.differentiable and (gradient is None or not gradient.any()):
        warnings.append("the image gradient is zero: gradient methods cannot work; use a UAP crafted on another victim")
    elif gradient is not None and not torch.isfinite(gradient).all():
        warnings.append("the image gradient is not finite: gradient methods will fail; try --precision fp32")
    if not torch.allclose(logits, again, rtol=1e-2, atol=1e-3 * float(logits.abs().max())):
        warnings.append("two passes over one image differ: the victim is random, and its noise enters the fooling rate")
    return warnings


def _input_gradient(logits: torch.Tensor, x: torch.Tensor) -> torch.Tensor | None:
    """Of a random combination of the logits, so that no symmetry (rows that sum to one) can cancel it."""
    if not logits.requires_grad:
        return None
    weights = torch.randn(logits.shape, generator=rng(0, "check_victim", "loss")).to(logits.device)
    return torch.autograd.grad((logits * weights).sum(), x, allow_unused=True)[0]


def _are_probabilities(logits: torch.Tensor) -> bool:
    sums = logits.sum(1)
    return logits.shape[1] > 1 and bool((logits >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-2)
