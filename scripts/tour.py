"""Runs the commands of docs/tour.md from top to bottom in a scratch folder and checks their exit codes.

python scripts/tour.py [FOLDER]     a folder that stays, in place of a scratch one
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def commands(page: str) -> list[tuple[str, int]]:
    """Lines of the page's bash blocks, and the exit code that each states; 0 where it states none."""
    found = []
    for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL):
        for line in block.strip().splitlines():
            text, _, code = line.partition("# exit ")
            found.append((text.strip(), int(code or 0)))
    return found


def main(folder: Path) -> int:
    """How many commands gave another exit code than the page says."""
    wrong = 0
    shell = f'uapgen() {{ "{sys.executable}" -m uapgen "$@"; }}; '
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "UAPGEN_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    for text, expected in commands((ROOT / "docs" / "tour.md").read_text()):
        started = time.monotonic()
        run = subprocess.run(["bash", "-c", shell + text], cwd=folder, env=environment, capture_output=True, text=True)
        verdict = "ok" if run.returncode == expected else f"EXIT {run.returncode}, the page says {expected}"
        print(f"{time.monotonic() - started:6.1f} s  {verdict}: {text}", flush=True)
        if run.returncode != expected:
            wrong += 1
            print(run.stdout + run.stderr)
    return wrong


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(Path(sys.argv[1])))
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(main(Path(scratch)))
