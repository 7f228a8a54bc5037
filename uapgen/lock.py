"""One process at a time in a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO
from weakref import WeakValueDictionary, finalize

from .errors import UapgenError

try:
    import fcntl
except ImportError:  # Windows: folders are not locked there
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"


class Lock:
    """Held until nobody refers to it any more, or the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        if file := _locked_file(folder):
            finalize(self, _release, folder / LOCK, file, os.getpid())


_held: WeakValueDictionary[Path, Lock] = WeakValueDictionary()


def lock(folder: Path) -> Lock:
    """The lock of `folder`, which is made if need be; one process may ask for it any number of times.

    Raises UapgenError when another process has it. Where files cannot be locked or written, nothing is locked.
    """
    path = folder.resolve()
    found = _held.get(path)
    if found is None:
        found = _held[path] = Lock(path)
    return found


def _release(path: Path, file: IO[str], owner: int) -> None:
    if os.getpid() == owner:  # a forked worker has the object too, but not the lock
        path.unlink(missing_ok=True)
    file.close()


def _locked_file(folder: Path) -> IO[str] | None:
    # POSIX record locks: forked workers do not inherit them, so none outlives a killed process; but closing any handle
    # of the file drops the lock, which is why a process opens it once.
    if fcntl is None:
        return None
    path = folder / LOCK
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = path.open("a+")
        except OSError:
            return None
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                break
            file.close()  # its owner took it away between our two calls
        except (BlockingIOError, PermissionError) as error:
            file.seek(0)
            owner = file.read(20).strip()
            file.close()
            who = f"process {owner}" if owner else "another process"
            raise UapgenError(f"{folder} is in use by {who}; wait until it ends, or give another folder") from error
        except FileNotFoundError:
            file.close()
        except OSError:  # a file system without locks
            file.close()
            return None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file
