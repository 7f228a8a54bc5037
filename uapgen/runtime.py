"""Devices, precision, seeded generators, and files that never exist half-written."""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UapgenError, UsageError, did_you_mean

# torch is imported inside functions: a gate writes its files without waiting for it.
if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


def resolve_device(spec: str | torch.device = "auto") -> torch.device:
    """`auto` is the first GPU where there is one (this rank's under torchrun), else the CPU.

    Raises UsageError for a device that torch does not know or that this machine lacks.
    """
    import torch

    if spec == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
        return torch.device("cpu")
    try:
        device = torch.device(spec)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {str(spec)!r} cannot be used here ({reason}); try --device cpu") from error
    return device


def resolve_precision(spec: str, device: torch.device, module: nn.Module) -> str:
    """`auto` picks bf16 where it was measured to pay: GPUs, and CPUs with bf16 units on nets without depthwise
    convs.
    """
    import torch

    if spec not in ("auto", "fp32", "bf16"):
        raise UsageError(f"precision {spec!r} is unknown; expected auto, fp32 or bf16")
    if spec != "auto":
        return spec
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    depthwise = any(isinstance(m, torch.nn.Conv2d) and m.groups > 1 for m in module.modules())
    return "bf16" if device.type == "cpu" and cpu_has_bf16() and not depthwise else "fp32"


def start_process(threads: int | None = None) -> None:
    """What a command does once: CPU threads, and an allocator that keeps large blocks.

    glibc hands every activation map back to the kernel and faults it in again, which took more time than the
    convolutions of a small net (`scripts/bench` prints the ratio).
    """
    import torch

    if threads:
        torch.set_num_threads(threads)
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # absent under musl
        if mallopt is not None:
            mallopt(M_MMAP_THRESHOLD, 1 << 30)
            mallopt(M_TRIM_THRESHOLD, 1 << 30)


def cpu_has_bf16() -> bool:
    """Whether this CPU computes in bfloat16 rather than emulating it."""
    import torch

    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # torch has no public name for it
    return bool(probe and probe())


def rng(seed: int, *key: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that depends on nothing but the seed and the key.

    Keys such as `("gan", step)` let a resumed run draw what the uninterrupted one would have drawn,
    without any generator state on disk.
    """
    import torch

    text = repr((seed, *key)).encode()
    number = int.from_bytes(hashlib.sha256(text).digest()[:7], "little")
    return torch.Generator(device=device).manual_seed(number)


def tensor_sha256(*tensors: Tensor) -> str:
    """sha256 over the little-endian bytes of the tensors, in order; device and memory format do not matter."""
    import torch

    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def module_sha256(module: nn.Module) -> str:
    """Hash of a module's parameters and buffers, names included."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor_sha256(tensor.reshape(-1)).encode())
    return digest.hexdigest()


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it on success and removes it on failure.

    Raises UapgenError, naming `path`, when the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error
    except Exception as error:  # safetensors and torch wrap the system's message in errors of their own
        if "os error" in str(error) or "PytorchStreamWriter" in str(error):
            raise _unwritable(path, str(error).splitlines()[0]) from error
        raise
    finally:
        with suppress(OSError):  # what went wrong above is what the user should read
            temporary.unlink(missing_ok=True)


def _unwritable(path: Path, reason: str) -> UapgenError:
    return UapgenError(f"cannot write {path}: {reason}; free space or choose another place with -o")


def ensure_writable(path: str | Path) -> None:
    """Fail before hours of work, not after them: tries a file beside `path`. Leaves nothing behind."""
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{path} is a folder; expected the name of a file to write")
    created = [folder for folder in [path.parent, *path.parent.parents] if not folder.exists()]
    probe = path.with_name(f".{path.name}.{os.getpid()}.probe")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"\0" * 4096)
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error
    finally:
        if probe.parent.is_dir():
            probe.unlink(missing_ok=True)
        for folder in created:  # innermost first
            if folder.is_dir():
                folder.rmdir()


def uniform(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """U(low, high) on the CPU, so that every device sees the same numbers."""
    import torch

    return low + (high - low) * torch.rand(shape, generator=generator)


def import_named(spec: str, role: str) -> Any:
    """What `package.module:name` names; `role` says in messages what it was given as, such as "victim".

    Raises UsageError when there is no such module or name, UapgenError when importing it fails.
    """
    name, _, attribute = spec.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(f"{role} {spec!r}: no module {name!r}; run where {name}.py lies, or install it") from error
        raise UapgenError(f"{role} {spec!r}: importing {name} failed: {error}") from error
    except Exception as error:  # the user's code may raise anything
        raise UapgenError(f"{role} {spec!r}: importing {name} raised {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        raise UsageError(f"{role} {spec!r}: {name} has no {attribute!r}{did_you_mean(attribute, dir(module))}")
    return getattr(module, attribute)
