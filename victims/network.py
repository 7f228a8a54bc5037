"""Are the weights on this machine, and if not, can they be fetched? Decided in a second, before anybody retries."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import getproxies, proxy_bypass

from ..errors import UapgenError, UsageError


def hub_cached(repo: str, filenames: Sequence[str]) -> Path | None:
    """The first of `filenames` that the hub cache holds for `repo` (`ORG/NAME` or `ORG/NAME@REVISION`)."""
    from huggingface_hub import try_to_load_from_cache

    name, _, revision = repo.partition("@")
    for filename in filenames:
        try:
            found = try_to_load_from_cache(name, filename, revision=revision or None)
        except ValueError as error:
            raise UsageError(f"{repo!r} is no repository name; expected ORG/NAME or ORG/NAME@REVISION") from error
        if isinstance(found, str):
            return Path(found)
    return None


def torch_cache(url: str) -> Path:
    """Where torch.hub keeps, or would keep, the file behind `url`."""
    import torch

    return Path(torch.hub.get_dir(), "checkpoints", os.path.basename(urlparse(url).path))


def need_network(name: str, url: str | None, *, offline: bool) -> None:
    """Returns when the weights of `name` can be fetched from `url` (None: the model hub); costs at most a second.

    Raises UapgenError with the ways out when the user forbade the network or there is none.
    """
    from huggingface_hub import constants

    if offline or constants.HF_HUB_OFFLINE:
        reason = "the network is switched off (--offline or HF_HUB_OFFLINE)"
    elif reachable(url or constants.ENDPOINT):
        return
    else:
        reason = "the place to fetch them from cannot be reached"
    if url is None:
        cache = f"the hub cache (HF_HOME, now {constants.HF_HOME})"
    else:
        cache = f"torch's cache (TORCH_HOME) as {torch_cache(url)}"
    by_hand = "download the folder and use local-dir:DIR" if name.startswith("hf-hub:") else "give --weights FILE"
    dry_run = "" if name.startswith("hf-hub:") else f", or {name}:random for a dry run"
    raise UapgenError(
        f"the weights of {name} are not on this machine and {reason}; {by_hand}, or copy them into {cache}, "
        f"or use --victim embedded/efficientnet_lite0{dry_run}"
    )


def reachable(url: str, timeout: float = 1.0) -> bool:
    """Whether a TCP connection to the host of `url`, or to the proxy before it, opens within `timeout` seconds."""
    target = urlparse(url)
    proxy = getproxies().get(target.scheme)
    if proxy and not proxy_bypass(target.hostname or ""):
        target = urlparse(proxy if "://" in proxy else f"//{proxy}")
    port = target.port or (80 if target.scheme == "http" else 443)
    opened = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((target.hostname, port), timeout).close()
            opened.set()
        except OSError:
            return

    # In a thread, because the timeout of a socket does not cover a slow name server.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(timeout)
    return opened.is_set()


def hub_offline(active: bool) -> AbstractContextManager[None]:
    """Inside, the hub client reads its cache and asks nobody; without it a cached file still costs a request."""
    return _hub_offline() if active else nullcontext()


@contextmanager
def _hub_offline() -> Iterator[None]:
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
