"""What a class index is called."""

from __future__ import annotations

from functools import lru_cache

IMAGENET_CLASSES = 1000


@lru_cache(maxsize=1)
def _imagenet_names() -> list[str]:
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return [info.index_to_description(index).split(",")[0] for index in range(IMAGENET_CLASSES)]


@lru_cache(maxsize=1)
def wordnet_indices() -> dict[str, int]:
    """ImageNet's WordNet names to class indices: {"n01440764": 0, ...}, from the table inside timm."""
    from timm.data import ImageNetInfo

    return {name: index for index, name in enumerate(ImageNetInfo().label_names())}


def class_name(index: int, num_classes: int) -> str:
    """The first ImageNet name of a class of a 1000-class victim, such as "soccer ball"; else the index itself."""
    return _imagenet_names()[index] if num_classes == IMAGENET_CLASSES else str(index)
