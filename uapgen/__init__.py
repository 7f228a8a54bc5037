"""uapgen crafts universal adversarial perturbations without the victim's data, and measures them honestly."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

_here = Path(__file__).parent
if not (_here / "attacks").is_dir():  # a source checkout: attacks/ and victims/ lie beside this folder
    __path__.append(str(_here.parent))

if TYPE_CHECKING:
    from .attacks import craft
    from .errors import UapgenError
    from .evaluation import evaluate
    from .images.sets import open_images
    from .perturbation import Perturbation
    from .victims import Victim, load_victim

__version__ = "0.1.0"
__all__ = ["Perturbation", "UapgenError", "Victim", "craft", "evaluate", "load_victim", "open_images"]

_HOME = {
    "Perturbation": "uapgen.perturbation",
    "UapgenError": "uapgen.errors",
    "Victim": "uapgen.victims",
    "craft": "uapgen.attacks",
    "evaluate": "uapgen.evaluation",
    "load_victim": "uapgen.victims",
    "open_images": "uapgen.images.sets",
}


def __getattr__(name: str) -> Any:
    # Lazy, so that `uapgen --help` does not pay two seconds for torch.
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'uapgen' has no attribute {name!r}")
